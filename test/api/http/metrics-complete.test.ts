/**
 * The complete metrics page: every name, type, help text and label is compared with a written list, and a cluster is
 * used until every counter that can increase has increased. Dashboards and alerts depend on the names, and a counter
 * that stays 0 looks like a healthy member.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmType,
  AuthService,
  ClusterService,
  KVService,
  LeaseService,
  MaintenanceService,
  WatchCreateRequest,
  WatchService,
} from "../../../src/proto/etcdserverpb.ts";
import type { BootstrapOptions } from "../../../src/server/contract/options.ts";
import { type InProcess, startInProcess, tempDir } from "../../harness/in-process.ts";
import { freePorts } from "../../harness/server.ts";
import { waitFor } from "../../harness/wait.ts";
import { headers } from "../../peer/raw-http.ts";
import { bytes } from "../../server/requests.ts";
import { FAMILIES, type Family, MOVED_ELSEWHERE } from "./metrics-list.ts";

interface Page {
  readonly families: ReadonlyMap<string, Omit<Family, "name">>;
  /** Sum of a family's samples; for a histogram, its observations. */
  readonly sums: ReadonlyMap<string, number>;
}

function parse(text: string): Page {
  const families = new Map<string, { type: string; help: string; labels: string[] }>();
  const sums = new Map<string, number>();
  let family = "";
  for (const line of text.trimEnd().split("\n")) {
    const described = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    if (described !== null) {
      const [, what, name, value] = described as unknown as [string, string, string, string];
      family = name;
      if (what === "HELP") families.set(name, { type: "", help: value, labels: [] });
      else families.get(name)!.type = value;
      continue;
    }
    const [, name, , labels = "", value] = /^(\w+)(\{(.*)\})? (\S+)$/.exec(line)!;
    const known = families.get(family)!;
    for (const [, label] of labels.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)) {
      if (label !== "le" && !known.labels.includes(label!)) known.labels.push(label!);
    }
    if (known.type !== "histogram" || name === `${family}_count`)
      sums.set(family, (sums.get(family) ?? 0) + Number(value));
  }
  return { families, sums };
}

const NAMES = ["a", "b", "c"];
const TICK_MS = 20;

describe("the complete metrics page", () => {
  const dir = tempDir();
  const members = new Map<string, InProcess>();
  /** The highest value of any member. */
  const highest = new Map<string, number>();
  const labels = new Map<string, Set<string>>();
  let ports: number[];

  const urlOf = (name: string): string => `http://127.0.0.1:${ports[[...NAMES, "learner"].indexOf(name)]}`;

  async function start(name: string, server: Partial<BootstrapOptions> = {}): Promise<InProcess> {
    const url = urlOf(name);
    const member = await startInProcess({
      dataDir: join(dir.path, name),
      server: {
        name,
        initialCluster: new Map(NAMES.map((each) => [each, [urlOf(each)]] as const)),
        tickMs: TICK_MS,
        electionTicks: 20,
        strictReconfigCheck: false,
        snapshotCount: 100,
        snapshotCatchUpEntries: 10,
        // Every apply is a slow one.
        warningApplyDurationMs: 0.000_1,
        ...server,
      },
      etcd: {
        listenPeer: [{ kind: "tcp", host: "127.0.0.1", port: Number(new URL(url).port), url }],
        extensiveMetrics: true,
        features: [{ name: "StopGRPCServiceOnDefrag", stage: "ALPHA", enabled: true }],
      },
    });
    members.set(name, member);
    return member;
  }

  const leader = (): Promise<InProcess> =>
    waitFor("a leader", () => [...members.values()].find(({ etcd }) => etcd.server.replication.isLeader));

  async function look(): Promise<void> {
    for (const { url } of members.values()) {
      const page = parse(await (await fetch(`${url}/metrics`)).text());
      for (const [name, sum] of page.sums) highest.set(name, Math.max(sum, highest.get(name) ?? 0));
      for (const [name, family] of page.families) {
        const seen = labels.get(name) ?? new Set();
        for (const label of family.labels) seen.add(label);
        labels.set(name, seen);
      }
    }
  }

  before(async () => {
    ports = await freePorts(NAMES.length + 1);
    await Promise.all(NAMES.map((name) => start(name)));
    await leader();
    await readsAndWrites();
    await maintenance();
    await membership();
    await look();
    await lossOfMajority();
  });
  after(async () => {
    for (const member of members.values()) await member.close(0);
    dir.remove();
  });

  async function readsAndWrites(): Promise<void> {
    const { client, url } = await leader();
    const key = bytes("k");
    const watch = client.stream(WatchService.Watch);
    await watch.send({ createRequest: WatchCreateRequest.create({ key }) });
    const events = watch[Symbol.asyncIterator]();
    await events.next();
    await client.unary(KVService.Put, { key, value: bytes("v") });
    await events.next();
    await look(); // While the watcher exists.
    watch.cancel();
    await client.unary(KVService.Range, { key });
    const requestPut = {
      key,
      value: Buffer.alloc(0),
      lease: 0n,
      prevKv: false,
      ignoreValue: false,
      ignoreLease: false,
    };
    await client.unary(KVService.Txn, { success: [{ requestPut }] as never });
    await client.unary(KVService.DeleteRange, { key });
    const { id } = await client.unary(LeaseService.LeaseGrant, { ttl: 100 });
    const keepAlive = client.stream(LeaseService.LeaseKeepAlive);
    await keepAlive.send({ id });
    await keepAlive[Symbol.asyncIterator]().next();
    keepAlive.cancel();
    await client.unary(LeaseService.LeaseRevoke, { id });
    await client.unary(LeaseService.LeaseGrant, { ttl: 1 });
    await client.unary(AuthService.RoleAdd, { name: "r" });
    for (const path of ["/health", "/livez", "/readyz"]) assert.equal((await fetch(url + path)).status, 200);
    // Enough that one answer takes several slices, and that a new member gets a snapshot instead of the log.
    const puts = Array.from({ length: 3000 }, (_, i) =>
      client.unary(KVService.Put, { key: bytes(`n${i}`), value: key }),
    );
    await Promise.all(puts);
    await client.unary(KVService.Range, { key: bytes("n"), rangeEnd: bytes("o") });
    await waitFor("the lease expires", async () => {
      await look();
      return (highest.get("etcd_debugging_server_lease_expired_total") ?? 0) > 0;
    });
  }

  async function maintenance(): Promise<void> {
    const { client, url } = await leader();
    await client.unary(MaintenanceService.Hash, {});
    const { header } = await client.unary(MaintenanceService.HashKV, {});
    await client.unary(KVService.Compact, { revision: header!.revision, physical: true });
    await client.unary(MaintenanceService.Defragment, {});
    const backup = client.stream(MaintenanceService.Snapshot);
    await backup.send({});
    for await (const _ of backup);
    const alarm = { alarm: AlarmType.NOSPACE, memberId: 1n };
    await client.unary(MaintenanceService.Alarm, { action: AlarmAction.ACTIVATE, ...alarm });
    assert.equal((await fetch(`${url}/health`)).status, 503);
    await client.unary(MaintenanceService.Alarm, { action: AlarmAction.DEACTIVATE, ...alarm });
  }

  async function membership(): Promise<void> {
    const { client, etcd } = await leader();
    const added = await client.unary(ClusterService.MemberAdd, { peerUrls: [urlOf("learner")], isLearner: true });
    const { id } = added.member!;
    await assert.rejects(client.unary(ClusterService.MemberPromote, { id }), /learner/);
    const initialCluster = new Map([...NAMES, "learner"].map((each) => [each, [urlOf(each)]] as const));
    await start("learner", { newCluster: false, initialCluster });
    await look(); // While it is a learner.
    await waitFor("the learner is promoted", () =>
      client.unary(ClusterService.MemberPromote, { id }).then(
        () => true,
        () => false,
      ),
    );
    // Neither a message nor a snapshot.
    const ofPeers = headers({ "X-Etcd-Cluster-ID": etcd.server.cluster.id.toString(16), Host: undefined });
    await fetch(`${urlOf("learner")}/raft`, { method: "POST", headers: ofPeers, body: "no message" });
    await fetch(`${urlOf("learner")}/raft/snapshot`, { method: "POST", body: "no snapshot" });
    const other = [...members.values()].find((member) => !member.etcd.server.replication.isLeader)!;
    await client.unary(MaintenanceService.MoveLeader, { targetId: other.etcd.server.memberId });
    await waitFor("another leader", () => !etcd.server.replication.isLeader);
  }

  async function lossOfMajority(): Promise<void> {
    const [left, ...others] = [...members.keys()];
    const { client, url } = members.get(left!)!;
    for (const name of others) {
      await members.get(name)!.close(0);
      members.delete(name);
    }
    await waitFor("the leader is lost", async () =>
      (await (await fetch(`${url}/health`)).text()).includes("NO LEADER"),
    );
    await assert.rejects(client.unary(KVService.Put, { key: bytes("k") }), /timed out|no leader/);
    await assert.rejects(client.unary(KVService.Range, { key: bytes("k") }), /timed out|no leader/);
    await fetch(`${url}/readyz`);
    await waitFor("all is counted", async () => {
      await look();
      return unmoved().length === 0;
    }).catch(() => {}); // The test names what is missing.
  }

  const unmoved = (): string[] =>
    FAMILIES.map(({ name }) => name).filter((name) => !MOVED_ELSEWHERE.has(name) && !((highest.get(name) ?? 0) > 0));

  test("has the names, types, help texts and labels of the list, and no others", async () => {
    const [{ url }] = [...members.values()] as [InProcess];
    const { families } = parse(await (await fetch(`${url}/metrics`)).text());
    const page = [...families].map(([name, { type, help }]) => ({
      name,
      type,
      help,
      labels: [...labels.get(name)!].sort(),
    }));
    assert.deepEqual(page, FAMILIES);
  });

  test("counts: everything that can move has moved, by the purpose of each family", () => {
    assert.deepEqual(unmoved(), []);
  });
});
