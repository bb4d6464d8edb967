/** The transport with stock etcd members. KVORUM_STOCK_ETCD names another version than the one on PATH. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { memberId } from "../../src/membership/member.ts";
import { InternalRaftRequest, PutRequest, RequestHeader } from "../../src/proto/etcdserverpb.ts";
import type { TlsClientOptions } from "../../src/rpc/tls/client.ts";
import { Authority, writePair } from "../harness/certificates.ts";
import { requireStockEtcd, stockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { freePorts } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";
import { type BareMember, startBareMember } from "./bare-member.ts";
import { NO_PEER_TLS } from "./loopback.ts";

const skip = requireStockEtcd();
const version = (await stockEtcdVersion()) ?? 0;
/** The flag for the number of entries kept after a snapshot. */
const CATCH_UP_FLAG = version < 3.006 ? "--experimental-snapshot-catchup-entries" : "--snapshot-catchup-entries";
/** Older versions keep thousands of entries, whatever the flag says. */
const skipSnapshots = skip || (version < 3.005 && "needs stock etcd 3.5 or later");
const TOKEN = "transport-test";

interface Stock {
  readonly clientUrl: string;
  log(): string;
  close(): Promise<void>;
}

function startStock(
  name: string,
  peerUrl: string,
  clientPort: number,
  initialCluster: string,
  more: string[] = [],
): Stock {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-stock-"));
  const clientUrl = `http://127.0.0.1:${clientPort}`;
  const { file } = stockEtcd();
  const args = [
    ...["--name", name, "--data-dir", join(dir, "data")],
    ...["--listen-client-urls", clientUrl, "--advertise-client-urls", clientUrl],
    ...["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl],
    ...[
      "--initial-cluster",
      initialCluster,
      "--initial-cluster-token",
      TOKEN,
      "--log-level",
      "debug",
      "--logger",
      "zap",
    ],
    ...more,
  ];
  const child: ChildProcess = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stdout!.on("data", (part) => (log += part));
  child.stderr!.on("data", (part) => (log += part));
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  return {
    clientUrl,
    log: () => log,
    async close() {
      child.kill("SIGKILL");
      await ended;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

async function call(url: string, path: string, body: object): Promise<Record<string, unknown> | undefined> {
  try {
    const response = await fetch(`${url}${path}`, {
      method: "POST",
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(3000),
    });
    return response.ok ? ((await response.json()) as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

const base64 = (text: string): string => Buffer.from(text).toString("base64");

async function serializableGet(url: string, key: string): Promise<string | undefined> {
  const found = await call(url, "/v3/kv/range", { key: base64(key), serializable: true });
  const kvs = found?.["kvs"] as { value: string }[] | undefined;
  return kvs?.[0] === undefined ? undefined : Buffer.from(kvs[0].value, "base64").toString();
}

const put = (key: string, value: string, id: bigint): Buffer =>
  InternalRaftRequest.encode(
    InternalRaftRequest.create({
      header: RequestHeader.create({ id }),
      put: PutRequest.create({ key: Buffer.from(key), value: Buffer.from(value) }),
    }),
  );

/** Runs a cluster of this transport and stock etcd. */
async function withStock(
  tls: TlsClientOptions | undefined,
  use: (ours: BareMember, theirs: Stock, theirId: bigint) => Promise<void>,
): Promise<void> {
  const [ourPort, theirPort, clientPort] = await freePorts(3);
  const scheme = tls === undefined ? "http" : "https";
  const members = new Map([
    ["ours", `${scheme}://127.0.0.1:${ourPort}`],
    ["theirs", `${scheme}://127.0.0.1:${theirPort}`],
  ]);
  const initialCluster = [...members].map(([name, url]) => `${name}=${url}`).join(",");
  const ours = await startBareMember("ours", members, TOKEN, tls === undefined ? {} : { tls });
  const more =
    tls === undefined
      ? []
      : [
          "--peer-cert-file",
          tls.certFile,
          "--peer-key-file",
          tls.keyFile,
          "--peer-trusted-ca-file",
          tls.trustedCaFile,
          "--peer-client-cert-auth",
        ];
  const theirs = startStock("theirs", members.get("theirs")!, clientPort!, initialCluster, more);
  try {
    await use(ours, theirs, memberId([members.get("theirs")!], TOKEN));
  } finally {
    await ours.close();
    await theirs.close();
  }
}

async function talk(ours: BareMember, theirs: Stock, theirId: bigint): Promise<void> {
  await waitFor("there is a leader", () => ours.raft.leader !== 0n, 20_000);

  // This end is leader: it appends, and stock etcd acknowledges and applies.
  await waitFor("this member leads", () => {
    if (ours.raft.isLeader) return true;
    if (ours.raft.leader !== 0n) ours.transferLeader(ours.id);
    return false;
  });
  for (let i = 0; i < 100; i++) assert.ok(ours.propose(put(`k${i}`, `${i}`.repeat(i * 50), BigInt(1000 + i))));
  assert.ok(ours.propose(put("large", "x".repeat(1_400_000), 2000n)));
  await waitFor("stock etcd has applied them", async () => {
    return (await serializableGet(theirs.clientUrl, "large"))?.length === 1_400_000;
  });
  assert.equal(await serializableGet(theirs.clientUrl, "k99"), "99".repeat(99 * 50));

  // Stock etcd is leader: its entries come over the stream, and the acknowledgements go back.
  ours.transferLeader(theirId);
  await waitFor("stock etcd leads", () => ours.raft.leader === theirId);
  for (let i = 0; i < 50; i++) {
    const done = await call(theirs.clientUrl, "/v3/kv/put", { key: base64(`their${i}`), value: base64("v") });
    assert.ok(done !== undefined, theirs.log());
  }
  await waitFor("this member has them", () => ours.committed.some(({ data }) => Buffer.from(data).includes("their49")));
  // A proposal of this end is forwarded.
  assert.ok(ours.propose(put("forwarded", "yes", 3000n)));
  await waitFor(
    "stock etcd has applied it",
    async () => (await serializableGet(theirs.clientUrl, "forwarded")) === "yes",
  );

  assert.ok(ours.node.transport.activeSince(theirId) !== undefined);
  for (const line of ours.node.logger.lines) {
    assert.ok(!line.message.startsWith("failed"), `${line.message} ${JSON.stringify(line.fields)}`);
  }
}

test("votes, entries and acknowledgements pass between this transport and stock etcd, in both roles", { skip }, () =>
  withStock(undefined, talk),
);

test("the same over TLS, with certificates of one CA", { skip }, async () => {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-stock-tls-"));
  try {
    const ca = await Authority.create("ca");
    const trustedCaFile = join(dir, "ca.crt");
    writeFileSync(trustedCaFile, ca.pem);
    const pair = writePair(dir, "member", await ca.issue());
    await withStock({ ...NO_PEER_TLS, ...pair, trustedCaFile, clientCertAuth: true }, talk);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test("a member of stock etcd sends its database to one that has fallen behind", { skip: skipSnapshots }, async () => {
  const ports = await freePorts(5);
  const url = (i: number): string => `http://127.0.0.1:${ports[i]}`;
  const members = new Map([
    ["ours", url(0)],
    ["one", url(1)],
    ["two", url(2)],
  ]);
  const initialCluster = [...members].map(([name, peer]) => `${name}=${peer}`).join(",");
  const flags = ["--snapshot-count", "10", CATCH_UP_FLAG, "5"];
  const stock = [
    startStock("one", url(1), ports[3]!, initialCluster, flags),
    startStock("two", url(2), ports[4]!, initialCluster, flags),
  ];
  let ours: BareMember | undefined;
  try {
    const put = (i: number) => call(stock[0]!.clientUrl, "/v3/kv/put", { key: base64(`k${i}`), value: base64("v") });
    await waitFor("stock etcd serves", () => put(0), 20_000);
    for (let i = 1; i < 60; i++) assert.ok((await put(i)) !== undefined);
    const late = await startBareMember("ours", members, TOKEN);
    ours = late;
    const database = await waitFor("the database has come", () => late.databases[0], 20_000);
    // A bbolt file: whole pages, the magic number after the header of the first.
    assert.equal(database.length % 4096, 0);
    assert.equal(database.readUInt32LE(16), 0xed0cdaed);
    assert.ok(database.includes("k40"));
    assert.ok((await put(60)) !== undefined);
    await waitFor("it follows from there", () => late.committed.some(({ data }) => Buffer.from(data).includes("k60")));
    await waitFor("stock etcd knows", () => stock.some((one) => one.log().includes("sent database snapshot")));
  } finally {
    await ours?.close();
    for (const one of stock) await one.close();
  }
});
