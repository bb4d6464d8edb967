import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { formatId, type Member, memberId } from "../../../src/membership/member.ts";
import type { PeerClient, RemoteCluster } from "../../../src/server/contract/network.ts";
import type { ServerOptions } from "../../../src/server/contract/options.ts";
import { bootstrap } from "../../../src/server/start/bootstrap.ts";
import { foundCluster, joinCluster } from "../../../src/server/start/initial-cluster.ts";
import { MemoryLogger, serverOptions, tempDir } from "../../harness/in-process.ts";
import { noPeers } from "../../harness/no-peers.ts";

const dir = tempDir();
after(() => dir.remove());

const THREE = new Map([
  ["a", ["http://127.0.0.1:1"]],
  ["b", ["http://127.0.0.1:2"]],
  ["c", ["http://127.0.0.1:3"]],
]);
const TOKEN = "etcd-cluster";

const optionsOf = (changes: Partial<ServerOptions> = {}) =>
  serverOptions(join(dir.path, "data"), { name: "c", initialCluster: THREE, ...changes });

const joining = (changes: Partial<ServerOptions> = {}) => optionsOf({ newCluster: false, ...changes });

/** Running members; the last one was added and has not started, unless stated otherwise. */
function running(count: number, changes: Partial<Member> = {}): Member[] {
  return [...THREE.values()].slice(0, count).map((peerUrls, i) => ({
    id: BigInt(100 - i),
    peerUrls,
    isLearner: false,
    ...(i === 2
      ? { name: "", clientUrls: [], ...changes }
      : { name: "abc"[i]!, clientUrls: [`http://127.0.0.1:1${i}`] }),
  }));
}

/** The others' answers over their peer URLs; a member not in `answers` does not answer. */
function peers(answers: Readonly<Record<string, RemoteCluster>>, cluster = "3.7.0", downgrading = false): PeerClient {
  return {
    ...noPeers,
    members: (url) => (answers[url] === undefined ? noPeers.members(url, 0) : Promise.resolve(answers[url])),
    versions: () => Promise.resolve({ server: "3.7.1", cluster, storage: cluster }),
    downgradeEnabled: () => Promise.resolve(downgrading),
  };
}

const answering = (members: readonly Member[], ...rest: [string?, boolean?]): PeerClient =>
  peers({ "http://127.0.0.1:2": { clusterId: 7n, members } }, ...rest);

test("initial members with the same flags compute the same ids, in the same order", async () => {
  const found = await Promise.all(["a", "b", "c"].map((name) => foundCluster(optionsOf({ name }), noPeers)));
  const [first] = found;
  for (const one of found) {
    assert.equal(one.clusterId, first!.clusterId);
    assert.deepEqual(one.members, first!.members);
    assert.deepEqual(one.remotes, []);
  }
  const ids = first!.members.map((member) => member.id);
  assert.deepEqual(
    ids,
    [...ids].sort((x, y) => (x < y ? -1 : 1)),
  );
  assert.equal(found[1]!.local.id, memberId(["http://127.0.0.1:2"], TOKEN));
  // etcd v3.7.1's result for these flags.
  assert.equal(formatId(first!.clusterId), "8db7cbf7c4cad526");
  assert.equal(formatId(found[2]!.local.id), "4ec819aa19b9f4b5");
});

test("a member known as started to the running cluster does not form it again", async () => {
  const id = memberId(["http://127.0.0.1:3"], TOKEN);
  const known = (clientUrls: string[]) =>
    answering([{ id, peerUrls: ["http://127.0.0.1:3"], isLearner: false, name: "c", clientUrls }]);
  await assert.rejects(foundCluster(optionsOf(), known(["http://127.0.0.1:9"])), {
    name: "ClusterConfigError",
    message: new RegExp(`^member ${formatId(id)} has already been bootstrapped: .*etcdctl member remove`),
  });
  // The others started a moment ago and do not know it yet.
  assert.equal((await foundCluster(optionsOf(), known([]))).local.id, id);
});

test("two members with the same URLs are refused", async () => {
  const initialCluster = new Map([...THREE, ["d", ["http://127.0.0.1:1"]]]);
  await assert.rejects(foundCluster(optionsOf({ initialCluster }), noPeers), {
    message: /^member exists with identical ID &\{ID:[0-9a-f]+ RaftAttributes:\{PeerURLs:\[http:\/\/127.0.0.1:1\]/,
  });
});

test("discovery gives an initial member the others", async () => {
  const asked: unknown[] = [];
  const options = optionsOf({
    initialCluster: new Map([["c", ["http://127.0.0.1:3"]]]),
    discover: async (...question) => {
      asked.push(question);
      return THREE;
    },
  });
  const found = await foundCluster(options, noPeers);
  assert.deepEqual(asked, [[memberId(["http://127.0.0.1:3"], TOKEN), "c=http://127.0.0.1:3"]]);
  assert.equal(found.clusterId, (await foundCluster(optionsOf(), noPeers)).clusterId);
});

test("a name that another member registered too is refused", async () => {
  const options = optionsOf({
    initialCluster: new Map([["c", ["http://127.0.0.1:3"]]]),
    discover: async () => new Map([["c", ["http://127.0.0.1:1", "http://127.0.0.1:3"]]]),
  });
  await assert.rejects(foundCluster(options, noPeers), { message: /^another member is registered under the name "c"/ });
});

test("a member that has run in the cluster before and lost its data does not join again under its old id", async () => {
  const members = running(3, { name: "c", clientUrls: ["http://127.0.0.1:13"] });
  await assert.rejects(joinCluster(joining(), answering(members)), (error: Error) => {
    assert.match(
      error.message,
      /^member 62 \(c\) has run in this cluster before, but --data-dir=.* holds no data of it/,
    );
    assert.match(error.message, /etcdctl member remove 62, .*etcdctl member add .*--initial-cluster-state=existing$/);
    return true;
  });
});

test("a joining member takes the ids of the running cluster, by the peer URLs", async () => {
  const members = running(3);
  const { clusterId, local, members: known, remotes } = await joinCluster(joining(), answering(members));
  assert.equal(clusterId, 7n);
  assert.equal(local.id, 98n);
  assert.deepEqual(
    known.map(({ id, name }) => [id, name]),
    [
      [98n, "c"],
      [99n, "b"],
      [100n, "a"],
    ],
  );
  assert.deepEqual(
    remotes.map((member) => member.id),
    [98n, 99n, 100n],
  );
});

test("a member with another name in --initial-cluster is reported by its URLs", async () => {
  const initialCluster = new Map([...THREE, ["a", ["http://127.0.0.9:1"]]]);
  await assert.rejects(joinCluster(joining({ initialCluster }), answering(running(3))), {
    message:
      /^error validating peerURLs \{ClusterID:7 Members:\[.*\] RemovedMemberIDs:\[\]\}: PeerURLs: no match found for existing member \(64, \[http:\/\/127.0.0.1:1\]\), last resolver error \(resolved urls: "http:\/\/127.0.0.1:1" != "http:\/\/127.0.0.[39]:[13]"\)/,
  });
});

test("a member that was not added before it joins gets an error saying so", async () => {
  await assert.rejects(joinCluster(joining(), answering(running(2))), {
    message: /^error validating peerURLs \{ClusterID:7 .*\}: member count is unequal .*etcdctl member add/,
  });
});

test("the start ends when no member can be asked, with each error", async () => {
  const logger = new MemoryLogger();
  await assert.rejects(joinCluster(joining({ logger }), noPeers), {
    message:
      /^cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs \(http:\/\/127.0.0.1:1: this member has no peers; http:\/\/127.0.0.1:2: /,
  });
  const warnings = logger.lines.filter((line) => line.message === "failed to get cluster response");
  assert.deepEqual(
    warnings.map((line) => line.fields["address"]),
    ["http://127.0.0.1:1/members", "http://127.0.0.1:2/members"],
  );
});

test("a cluster of another version is not joined", async () => {
  const members = running(3);
  for (const version of ["3.8.0", "2.3.0", "not_decided"]) {
    await assert.rejects(joinCluster(joining(), answering(members, version)), {
      message: "incompatible with current running cluster",
    });
  }
  assert.equal((await joinCluster(joining(), answering(members, "3.4.0"))).local.id, 98n);
  // A downgrade from 3.8 admits only members of 3.7.
  assert.equal((await joinCluster(joining(), answering(members, "3.8.0", true))).local.id, 98n);
  await assert.rejects(joinCluster(joining(), answering(members, "3.7.0", true)), /incompatible/);
});

test("a cluster that cannot say whether it is being downgraded, for lack of a quorum, is joined after two elections", async () => {
  const silent = { ...answering(running(3)), downgradeEnabled: () => new Promise<boolean>(() => {}) };
  assert.equal((await joinCluster(joining({ tickMs: 10 }), silent)).local.id, 98n);
});

test("a cluster with more learners than --max-learners is not joined", async () => {
  const members = running(3, { isLearner: true });
  await assert.rejects(joinCluster(joining({ maxLearners: 0 }), answering(members)), {
    message: /^membership: too many learner members in cluster/,
  });
  assert.equal((await joinCluster(joining(), answering(members))).local.id, 98n);
});

test("a joining member writes no entries of its own, and remembers its identity", async () => {
  const dataDir = join(dir.path, "joined");
  const options = joining({ dataDir });
  const parts = await bootstrap(options, answering(running(3)));
  assert.equal(parts.storage.lastIndex(), 0);
  assert.deepEqual(parts.confState.voters, []);
  assert.equal(parts.remotes.length, 3);
  parts.wal.close();
  await parts.backend.close();
  parts.unlock();
  // The second time no member is asked.
  const again = await bootstrap(options, noPeers);
  assert.equal(again.memberId, 98n);
  assert.equal(again.clusterId, 7n);
  again.wal.close();
  await again.backend.close();
  again.unlock();
});
