import assert from "node:assert/strict";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { encodeMembers, type Member, memberId } from "../../src/membership/member.ts";
import { Authority, writePair } from "../harness/certificates.ts";
import { startInProcess, tempDir } from "../harness/in-process.ts";
import { freePorts } from "../harness/server.ts";
import { etcdutl, putText, saveSnapshot } from "../utl/helpers.ts";
import { codesOf, doctor, type FoundByDoctor, findings, one } from "./helpers.ts";

let dir: ReturnType<typeof tempDir>;
let restored: string;
let ports: number[];
let directories = 0;

before(async () => {
  dir = tempDir();
  ports = await freePorts(4);
  const server = await startInProcess();
  const backup = join(dir.path, "backup.db");
  try {
    await putText(server.client, "a", "1");
    await saveSnapshot(server.client, backup);
  } finally {
    await server.close();
  }
  restored = join(dir.path, "restored");
  const cluster = ["--name", "a", "--initial-cluster", `a=${url(0)},b=${url(1)}`];
  const args = [...cluster, "--initial-advertise-peer-urls", url(0), "--data-dir", restored];
  const { code, err } = await etcdutl("snapshot", "restore", backup, ...args);
  assert.equal(code, 0, err);
  chmodSync(restored, 0o700);
});

after(() => dir.remove());

const url = (i: number) => `http://127.0.0.1:${ports[i]}`;
const empty = () => join(dir.path, `empty-${++directories}`);

/** Flags of member a of a cluster with b, on ports that nothing uses. */
function flagsFor(dataDir: string, changes: Readonly<Record<string, string>> = {}): string[] {
  const flags: Record<string, string> = {
    name: "a",
    "data-dir": dataDir,
    "listen-peer-urls": url(0),
    "initial-advertise-peer-urls": url(0),
    "listen-client-urls": url(2),
    "advertise-client-urls": url(2),
    "initial-cluster": `a=${url(0)},b=${url(1)}`,
    ...changes,
  };
  return Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
}

const examine = (dataDir: string, changes?: Readonly<Record<string, string>>) =>
  findings("--", ...flagsFor(dataDir, changes));

/** What a member at b's peer URL answers. */
async function withPeer<T>(clusterId: bigint, members: readonly Member[], body: () => Promise<T>): Promise<T> {
  const server = createServer((request, response) => {
    const isList = request.url === "/members";
    response.setHeader("x-etcd-cluster-id", clusterId.toString(16));
    response.end(isList ? encodeMembers(members) : '{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}');
  });
  await new Promise<void>((resolve) => server.listen(ports[1], "127.0.0.1", resolve));
  try {
    return await body();
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const member = (name: string, i: number, id: bigint, started = true): Member => ({
  id,
  peerUrls: [url(i)],
  isLearner: false,
  name: started ? name : "",
  clientUrls: started ? ["http://127.0.0.1:9"] : [],
});

test("a member that founds a cluster is told which, and the disk is measured for its times", async () => {
  const dataDir = empty();
  const { all } = await examine(dataDir, { "heartbeat-interval": "60000", "election-timeout": "49000" });
  assert.match(one(all, "configuration-invalid").text, /--election-timeout\[49000ms\] should be at least as 5 times/);
  const fine = await examine(dataDir, { "heartbeat-interval": "9000", "election-timeout": "45000" });
  assert.deepEqual(codesOf(fine.all), ["peer-unreachable"]);
  assert.match(one(fine.all, "first-start").text, /is empty: member a \([0-9a-f]+\) founds cluster [0-9a-f]+ of 2$/);
  const disk = fine.all.find(({ code }) => code === "disk" || code === "disk-slow");
  assert.match(disk!.text, /a heartbeat of 9000 ms and an election time-out of 45000 ms$/);
});

test("a name or URL that is not in --initial-cluster is refused in etcd's words, with advice", async () => {
  const name = one((await examine(empty(), { name: "c" })).all, "start-refused");
  assert.match(name.text, /couldn't find local name "c" in the initial cluster configuration$/);
  assert.match(name.next![0]!, /^give --name one of the names/);
  const peer = one((await examine(empty(), { "initial-advertise-peer-urls": url(3) })).all, "start-refused");
  assert.match(peer.text, /--initial-cluster has a=http.* but missing from --initial-advertise-peer-urls/);
  assert.match(peer.next![0]!, /^write the same peer URL/);
});

test("existing where no cluster runs should be new", async () => {
  const { all, code } = await examine(empty(), { "initial-cluster-state": "existing" });
  assert.equal(code, 2);
  assert.match(one(all, "state-should-be-new").next![0]!, /--initial-cluster-state=new on each of them/);
});

test("new where the cluster runs should be existing", async () => {
  const added = [member("b", 1, 20n), member("", 0, 10n, false)];
  const { all } = await withPeer(7n, added, () => examine(empty()));
  assert.match(
    one(all, "state-should-be-existing").text,
    /cluster 7 runs, and knows http:\S+ as member a: this member would found/,
  );
  const unknown = await withPeer(7n, [member("b", 1, 20n)], () => examine(empty()));
  assert.match(one(unknown.all, "state-should-be-existing").next![0]!, /^etcdctl member add/);
});

test("an empty directory of a member that the cluster knows says that its data is lost, and how it returns", async () => {
  const id = memberId([url(0)], "etcd-cluster");
  const known = [member("a", 0, id), member("b", 1, 20n)];
  for (const state of ["new", "existing"]) {
    const { all, code } = await withPeer(7n, known, () => examine(empty(), { "initial-cluster-state": state }));
    const lost = one(all, "member-lost-its-data");
    assert.equal(code, 2);
    assert.match(lost.text, new RegExp(`etcdctl member remove ${id.toString(16)}`));
    assert.equal(lost.lost, "nothing, while the other members have a quorum");
  }
});

test("a member that was added joins, and is refused with an outdated --initial-cluster", async () => {
  const added = [member("b", 1, 20n), member("", 0, 10n, false)];
  const joins = await withPeer(7n, added, () => examine(empty(), { "initial-cluster-state": "existing" }));
  assert.deepEqual(codesOf(joins.all), []);
  assert.match(one(joins.all, "first-start").text, /joins cluster 7 of 2$/);
  const three = [...added, member("c", 3, 30n)];
  const refused = await withPeer(7n, three, () => examine(empty(), { "initial-cluster-state": "existing" }));
  assert.match(one(refused.all, "start-refused").text, /member count is unequal/);
});

test("a directory is compared with the cluster that runs, and with the flags", async () => {
  const own = await examine(restored);
  assert.deepEqual(codesOf(own.all), ["peer-unreachable"]);
  const wrong = await withPeer(7n, [member("b", 1, 20n)], () => examine(restored));
  assert.match(one(wrong.all, "wrong-cluster").text, /^the directory is of cluster [0-9a-f]+, but .* of cluster 7/);
  const token = await examine(restored, { "initial-cluster-token": "other" });
  assert.match(one(token.all, "flags-of-another-cluster").text, /would found cluster [0-9a-f]+, and the data is of/);
  const named = { name: "b", "initial-advertise-peer-urls": url(1), "listen-peer-urls": url(1) };
  const swapped = await examine(restored, named);
  assert.match(one(swapped.all, "name-differs").text, /^--name is b, but the data is of a/);
  assert.match(one(swapped.all, "peer-urls-differ").next![0]!, /etcdctl member update [0-9a-f]+ --peer-urls=/);
});

const listening = (server: Server): Promise<number> =>
  new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port)));

test("a port that is taken, and an address of another machine, are found before the start", async () => {
  const server = createTcpServer();
  const port = await listening(server);
  try {
    const client = `http://127.0.0.1:${port}`;
    const { all } = await examine(empty(), { "listen-client-urls": client, "advertise-client-urls": client });
    assert.match(one(all, "port-taken").next![0]!, new RegExp(`ss -ltnp 'sport = :${port}'`));
  } finally {
    server.close();
  }
  const foreign = await examine(empty(), { "listen-client-urls": `http://192.0.2.1:${ports[2]}` });
  assert.match(one(foreign.all, "address-missing").text, /^192\.0\.2\.1 .* is not an address of this machine$/);
});

test("certificates are examined as the member reads them", async () => {
  const [authority, stranger] = await Promise.all([Authority.create("one"), Authority.create("other")]);
  const caFile = join(dir.path, "ca.crt");
  writeFileSync(caFile, authority.pem);
  const pairs = {
    good: await authority.issue(),
    expired: await authority.issue({ expired: true }),
    named: await authority.issue({ names: ["elsewhere.example"] }),
    strange: await stranger.issue(),
    serverOnly: await authority.issue({ usages: ["server"] }),
  };
  const files = Object.fromEntries(
    Object.entries(pairs).map(([name, pair]) => [name, writePair(dir.path, name, pair)]),
  );
  const peerUrl = url(0).replace("http:", "https:");
  const check = async (certFile: string, keyFile: string): Promise<FoundByDoctor[]> => {
    const { all } = await examine(empty(), {
      "listen-peer-urls": peerUrl,
      "initial-advertise-peer-urls": peerUrl,
      "initial-cluster": `a=${peerUrl}`,
      "peer-cert-file": certFile,
      "peer-key-file": keyFile,
      "peer-trusted-ca-file": caFile,
    });
    return all.filter(({ subject }) => subject === "certificates");
  };
  const codes = async (name: string) => codesOf(await check(files[name]!.certFile, files[name]!.keyFile));
  assert.deepEqual(await codes("good"), []);
  assert.deepEqual(await codes("expired"), ["certificate-expired"]);
  assert.deepEqual(await codes("named"), ["certificate-names"]);
  assert.deepEqual(await codes("strange"), ["certificate-authority"]);
  assert.deepEqual(await codes("serverOnly"), ["certificate-usage"]);
  const { certFile, keyFile } = files["good"]!;
  assert.deepEqual(codesOf(await check(certFile, files["named"]!.keyFile)), ["certificate-key-mismatch"]);
  const [missing] = await check(`${certFile}.gone`, keyFile);
  assert.match(missing!.text, /^open .*\.gone: no such file or directory/);
});

test("a configuration file is read as etcd reads it, and its mistakes are told", async () => {
  const file = join(dir.path, "etcd.yml");
  const dataDir = empty();
  mkdirSync(dataDir);
  const [peer, client] = [url(0), url(2)];
  const lines = [
    `name: a`,
    `data-dir: ${dataDir}`,
    `listen-peer-urls: ${peer}`,
    `initial-advertise-peer-urls: ${peer}`,
  ];
  lines.push(`listen-client-urls: ${client}`, `advertise-client-urls: ${client}`, `initial-cluster: a=${peer}`);
  writeFileSync(file, `${lines.join("\n")}\n`);
  const { all } = await findings("--config-file", file);
  assert.deepEqual(codesOf(all), []);
  assert.match(one(all, "first-start").text, /founds cluster [0-9a-f]+ of 1$/);
  writeFileSync(file, `${lines.join("\n")}\ninitial-cluster-state: old\n`);
  assert.match(one((await findings("--config-file", file)).all, "configuration-invalid").text, /"old"/);
  assert.match((await doctor("--config-file", file, "--", "--name=a")).err, /as etcd reads only one/);
});

test("a quota beyond the disk, and a database near its quota, are warnings", async () => {
  const beyond = await examine(empty(), { "quota-backend-bytes": String(2 ** 50) });
  assert.match(one(beyond.all, "quota-beyond-disk").text, /the disk is full before the quota is reached/);
  const near = await examine(restored, { "quota-backend-bytes": "20000" });
  assert.match(one(near.all, "quota-near").text, /at the quota, writes are refused/);
});
