// Slow: each test starts a member and a proxy, and some wait for real time to pass.
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Client } from "../../src/client/client.ts";
import { RpcError } from "../../src/client/rpc-error.ts";
import {
  LeaseService,
  WatchCreateRequest,
  WatchRequest,
  type WatchResponse,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { Authority } from "../harness/certificates.ts";
import { type InProcess, startInProcess, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { clientOf, run, startProxy } from "./helpers.ts";

interface Setting {
  readonly server: InProcess;
  readonly address: string;
  /** Through the proxy. */
  readonly client: Client;
  /** To the member itself. */
  readonly direct: Client;
}

async function start(t: TestContext, ...flags: string[]): Promise<Setting> {
  const server = await startInProcess();
  t.after(() => server.close());
  const { address } = await startProxy(t, "grpc-proxy", "start", `--endpoints=${server.url}`, ...flags);
  return { server, address, client: clientOf(t, address), direct: clientOf(t, server.url) };
}

async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(url)).text();
  const value = new RegExp(`^${name} (.+)$`, "m").exec(text)?.[1];
  assert.ok(value !== undefined, `${name} is in ${url}`);
  return Number(value);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** A Watch call as a client makes it, with what it received. */
function rawWatch(client: Client) {
  const responses: WatchResponse[] = [];
  const stream = client.caller.stream(
    WatchService.Watch,
    { onMessage: (response: WatchResponse) => void responses.push(response), onEnd: () => {} },
    {},
  );
  return {
    responses,
    stream,
    create: (fields: Partial<WatchCreateRequest>) =>
      stream.send(WatchRequest.create({ createRequest: WatchCreateRequest.create(fields) })),
    events: () => responses.flatMap(({ events }) => events),
  };
}

const rejects = (work: Promise<unknown>, details: RegExp): Promise<void> =>
  assert.rejects(work, (error) => error instanceof RpcError && details.test(error.details));

test("reads and writes go through a proxy, and errors come back as the member gave them", async (t) => {
  const { client, direct } = await start(t);
  await client.put("a", "1");
  assert.equal((await direct.get("a"))?.value, "1");
  assert.equal((await client.get("a"))?.value, "1");
  await direct.put("a", "2");
  assert.equal((await client.get("a"))?.value, "2", "a linearizable read is never an old one");
  const { deleted } = await client.delete("a");
  assert.equal(deleted, 1);
  await rejects(client.get("a", { revision: 1_000_000 }), /future revision/);
  await rejects(client.put("k", "v", { lease: 77n }), /requested lease not found/);
});

test("serializable reads are answered from memory until the proxy writes to their keys", async (t) => {
  const { client, direct, address } = await start(t);
  await client.put("a", "1");
  const read = async () => (await client.get("a", { serializable: true }))?.value;
  const list = async () => (await client.range({ prefix: "" }, { serializable: true })).kvs.map(({ value }) => value);
  assert.equal(await read(), "1");
  assert.deepEqual(await list(), ["1"]);
  await direct.put("a", "2");
  assert.equal(await read(), "1");
  assert.deepEqual(await list(), ["1"]);
  await client.put("b", "x");
  assert.equal(await read(), "1", "another key was written");
  assert.deepEqual(await list(), ["2", "x"]);
  await client.delete({ prefix: "a" });
  assert.equal(await read(), undefined);
  const url = `http://${address}/proxy/metrics`;
  assert.ok((await metric(url, "etcd_grpc_proxy_cache_hits_total")) >= 3);
  assert.ok((await metric(url, "etcd_grpc_proxy_cache_misses_total")) >= 2);
  assert.ok((await metric(url, "etcd_grpc_proxy_cache_keys_total")) >= 1);
});

test("a thousand watches of one key cost the member one, and all see each event once", async (t) => {
  const { client, server, address } = await start(t);
  const watchers = Array.from({ length: 1000 }, () => client.watch("k"));
  await Promise.all(watchers.map(({ ready }) => ready));
  const onMember = () => metric(`${server.url}/metrics`, "etcd_debugging_mvcc_watcher_total");
  assert.equal(await onMember(), 1);
  assert.equal(await metric(`http://${address}/proxy/metrics`, "etcd_grpc_proxy_watchers_coalescing_total"), 999);
  const seen = watchers.map(async (watcher) => {
    const values: string[] = [];
    for await (const event of watcher) {
      if (event.type === "put") values.push(event.kv.value);
      if (values.length === 3) break;
    }
    return values.join();
  });
  for (const value of ["1", "2", "3"]) await client.put("k", value);
  assert.deepEqual(new Set(await Promise.all(seen)), new Set(["1,2,3"]));
  await waitFor("the member's watch to end with the last", async () => (await onMember()) === 0);
});

test("a watch from the past catches up on its own, and then shares the present one", async (t) => {
  const { client, server } = await start(t);
  const { revision: first } = await client.put("k", "1");
  for (const value of ["2", "3"]) await client.put("k", value);
  const present = client.watch("k");
  await present.ready;
  const past = client.watch("k", { revision: first });
  const values: string[] = [];
  const done = (async () => {
    for await (const event of past) {
      if (event.type === "put") values.push(event.kv.value);
      if (values.length === 5) return;
    }
  })();
  await waitFor("the past to be seen", () => values.length === 3);
  await client.put("k", "4");
  await waitFor("one watch to be left on the member", async () => {
    return (await metric(`${server.url}/metrics`, "etcd_debugging_mvcc_watcher_total")) === 1;
  });
  await client.put("k", "5");
  await done;
  assert.deepEqual(values, ["1", "2", "3", "4", "5"]);
});

test("a watch gets what it asked for: the pair before, no deletions, its own id", async (t) => {
  const { client } = await start(t);
  await client.put("k", "old");
  const watch = rawWatch(client);
  const key = Buffer.from("k");
  watch.create({ key, prevKv: true, watchId: 7 });
  watch.create({ key, filters: [1] });
  watch.create({ key, filters: [0] });
  watch.create({ key, watchId: 7 });
  watch.create({ key, startRevision: -1 });
  watch.create({ key: Buffer.from("z"), rangeEnd: Buffer.from("a") });
  await waitFor("six answers", () => watch.responses.length === 6);
  assert.deepEqual(
    watch.responses.map(({ watchId, canceled }) => [watchId, canceled]),
    [
      [7, false],
      [0, false],
      [1, false],
      [-1, true],
      [-1, true],
      [-1, true],
    ],
  );
  assert.match(watch.responses[3]!.cancelReason, /duplicate watch ID/);
  assert.match(watch.responses[4]!.cancelReason, /compacted/);
  await client.put("k", "new");
  await client.delete("k");
  await waitFor("the events", () => watch.events().length === 4);
  const of = (id: number) => watch.responses.slice(6).filter(({ watchId }) => watchId === id);
  const [put, gone] = of(7).flatMap(({ events }) => events);
  assert.equal(Buffer.from(put!.prevKv!.value).toString(), "old");
  assert.equal(Buffer.from(gone!.prevKv!.value).toString(), "new");
  assert.deepEqual(
    of(0).flatMap(({ events }) => events.map(({ type, prevKv }) => [type, prevKv])),
    [[0, undefined]],
  );
  assert.deepEqual(
    of(1).flatMap(({ events }) => events.map(({ type }) => type)),
    [1],
  );
  watch.stream.send(WatchRequest.create({ cancelRequest: { watchId: 1 } }));
  await waitFor("the answer to the cancellation", () => watch.responses.at(-1)?.canceled === true);
  assert.equal(watch.responses.at(-1)!.watchId, 1);
});

test("a watch whose past is compacted says so, with the oldest revision that there is", async (t) => {
  const { client } = await start(t);
  for (const value of ["1", "2", "3"]) await client.put("k", value);
  const { revision } = await client.put("k", "4");
  await client.maintenance.compact(revision);
  const watch = rawWatch(client);
  watch.create({ key: Buffer.from("k"), startRevision: 1 });
  const last = await waitFor("the end of the watch", () => watch.responses.find(({ canceled }) => canceled));
  assert.equal(last.compactRevision, revision);
});

test("a client that reads slowly does not hold others up, and gets everything in order later", async (t) => {
  const { client, direct, address } = await start(t);
  const slow = rawWatch(clientOf(t, address));
  slow.create({ key: Buffer.from("k") });
  await waitFor("the slow watch", () => slow.responses.length === 1);
  slow.stream.pause();
  const fast = client.watch("k");
  await fast.ready;
  const count = 60;
  const value = "v".repeat(500_000);
  const seen = (async () => {
    let events = 0;
    for await (const _ of fast) if (++events === count) return;
  })();
  for (let i = 0; i < count; i++) await direct.put("k", `${i} ${value}`);
  await seen;
  assert.ok(slow.events().length < count, "the slow one is behind");
  slow.stream.resume();
  await waitFor("the slow one to catch up", () => slow.events().length >= count);
  const order = slow.events().map(({ kv }) => Number.parseInt(Buffer.from(kv!.value).toString("utf8", 0, 3), 10));
  assert.deepEqual(order, [...order.keys()]);
});

test("renewals of one lease by many clients reach the member as few, and each is answered", async (t) => {
  const { client, address } = await start(t);
  const lease = await client.leases.grant(60);
  const others = Array.from({ length: 20 }, () => clientOf(t, address));
  const answers = await Promise.all(others.map((other) => other.leases.keepAliveOnce(lease)));
  assert.deepEqual(new Set(answers), new Set([60]));
  assert.equal(await client.leases.keepAliveOnce(12345n), undefined, "there is no such lease");
  await lease.revoke();
  assert.equal(await client.leases.keepAliveOnce(lease), undefined);
  const stream = client.caller.stream(LeaseService.LeaseKeepAlive, { onMessage: () => {}, onEnd: () => {} }, {});
  stream.cancel();
});

test("locks, snapshots and the state of the member are the cluster's", async (t) => {
  const { client, direct } = await start(t);
  await client.put("k", "v".repeat(200_000));
  const pieces: Uint8Array[] = [];
  for await (const piece of client.maintenance.snapshot()) pieces.push(piece);
  assert.ok(Buffer.concat(pieces).length > 200_000);
  const [through, straight] = [await client.maintenance.status(), await direct.maintenance.status()];
  assert.equal(through.leader, straight.leader);
});

test("what one user has read does not answer another, and each may watch what it may read", async (t) => {
  const { direct, address } = await start(t);
  await direct.put("secret", "s");
  await direct.auth.addUser("root", "r");
  await direct.auth.addUser("eve", "e");
  await direct.auth.addRole("root");
  await direct.auth.grantRole("root", "root");
  await direct.auth.enable();
  const root = clientOf(t, address, { username: "root", password: "r" });
  const eve = clientOf(t, address, { username: "eve", password: "e" });
  assert.equal((await root.get("secret", { serializable: true }))?.value, "s");
  const watch = root.watch("secret");
  await watch.ready;
  await rejects(eve.get("secret", { serializable: true }), /permission denied/);
  await rejects(eve.watch("secret").ready, /permission denied/);
  await rejects(clientOf(t, address).get("secret"), /user name is empty/);
  assert.deepEqual(await (await fetch(`http://${address}/health`)).json(), { health: "true", reason: "" });
});

test("with a namespace, clients see the keys below it and nothing else", async (t) => {
  const { client, direct } = await start(t, "--namespace=app/");
  await direct.put("other", "x");
  await client.put("a", "1");
  assert.equal((await direct.get("app/a"))?.value, "1");
  const all = await client.range({ from: "" });
  assert.deepEqual(
    all.kvs.map(({ key }) => key),
    ["a"],
  );
  const watch = client.watch({ prefix: "" });
  await watch.ready;
  await direct.put("other", "y");
  const lease = await client.leases.grant(60);
  await client.put("b", "2", { lease });
  for await (const event of watch) {
    assert.equal(event.key, "b");
    break;
  }
  await direct.put("elsewhere", "", { lease });
  const { keys } = await client.leases.timeToLive(lease, { keys: true });
  assert.deepEqual(
    keys.map(String),
    [String(Buffer.from("b"))].map((text) => [...Buffer.from(text)].join(",")),
  );
  const { deleted } = await client.delete({ from: "" });
  assert.equal(deleted, 2);
  assert.equal((await direct.get("other"))?.value, "y");
});

test("proxies under one prefix show each other in place of the members, and one that is gone no more", async (t) => {
  const server = await startInProcess();
  t.after(() => server.close());
  const flags = [`--endpoints=${server.url}`, "--resolver-prefix=proxies", "--resolver-ttl=5"];
  const first = await startProxy(t, "grpc-proxy", "start", ...flags, "--advertise-client-url=10.0.0.1:1");
  const second = await startProxy(t, "grpc-proxy", "start", ...flags, "--advertise-client-url=10.0.0.2:1");
  const client = clientOf(t, first.address);
  const shown = async () =>
    (await client.cluster.members())
      .flatMap(({ clientUrls }) => clientUrls)
      .sort()
      .join();
  await waitFor("both proxies", async () => (await shown()) === "10.0.0.1:1,10.0.0.2:1");
  await second.running!.close();
  await waitFor("one proxy", async () => (await shown()) === "10.0.0.1:1", 20_000);
});

test("a watch goes on when the member was away", async (t) => {
  const port = await freePort();
  const listenClient = [{ kind: "tcp" as const, host: "127.0.0.1", port, url: `http://127.0.0.1:${port}` }];
  const dir = tempDir();
  t.after(() => dir.remove());
  const options = { dataDir: `${dir.path}/data`, etcd: { listenClient } };
  let server = await startInProcess(options);
  t.after(() => server.close());
  const { address } = await startProxy(t, "grpc-proxy", "start", `--endpoints=${server.url}`);
  const client = clientOf(t, address);
  const watch = rawWatch(client);
  watch.create({ key: Buffer.from("k") });
  await waitFor("the watch", () => watch.responses.length === 1);
  await client.put("k", "1");
  await waitFor("an event", () => watch.events().length === 1);
  await server.close();
  assert.equal((await fetch(`http://${address}/health`)).status, 503);
  server = await startInProcess(options);
  await client.put("k", "2", { timeoutMs: 20_000 });
  await waitFor("the event after the restart", () => watch.events().length === 2);
  assert.deepEqual(
    watch.events().map(({ kv }) => Buffer.from(kv!.value).toString()),
    ["1", "2"],
  );
});

test("a proxy serves health and metrics, its own and the cluster's", async (t) => {
  const { address } = await start(t);
  for (const path of ["/health", "/proxy/health"]) {
    assert.deepEqual(await (await fetch(`http://${address}${path}`)).json(), { health: "true", reason: "" });
  }
  assert.equal(await metric(`http://${address}/metrics`, "etcd_server_has_leader"), 1);
  assert.match(await (await fetch(`http://${address}/proxy/metrics`)).text(), /^grpc_server_started_total\{/m);
  assert.equal((await fetch(`http://${address}/other`)).status, 404);
});

test("a proxy with a generated certificate serves TLS alone", async (t) => {
  const dir = tempDir();
  t.after(() => dir.remove());
  const { address } = await start(t, "--auto-tls", `--data-dir=${dir.path}`);
  const secure = clientOf(t, address, { tls: { insecureSkipVerify: true } });
  await secure.put("k", "v");
  await assert.rejects(clientOf(t, address, { timeoutMs: 1000 }).get("k"), RpcError);
});

test("a certificate with a common name is refused: members may take it for a user's name", async (t) => {
  const dir = tempDir();
  t.after(() => dir.remove());
  const authority = await Authority.create("ca");
  const flagsFor = async (cn: string): Promise<string[]> => {
    const { cert, key } = await authority.issue({ cn });
    const [certFile, keyFile, caFile] = ["cert", "key", "ca"].map((name) => join(dir.path, name)) as [
      string,
      string,
      string,
    ];
    writeFileSync(certFile, cert);
    writeFileSync(keyFile, key);
    writeFileSync(caFile, authority.pem);
    return [`--cert=${certFile}`, `--key=${keyFile}`, `--cacert=${caFile}`];
  };
  const { code, err } = await run("grpc-proxy", "start", "--listen-addr=127.0.0.1:0", ...(await flagsFor("root")));
  assert.equal(code, 1);
  assert.match(err, /^cert has non empty Common Name \(root\): .*cert; use a certificate without one/);
  await startProxy(t, "grpc-proxy", "start", ...(await flagsFor("")));
});

for (const [what, flags, message] of [
  ["a prefix without time to live", ["--resolver-prefix=p"], /^invalid resolver-ttl 0/],
  ["a time to live without prefix", ["--resolver-ttl=5"], /^invalid resolver-prefix ""/],
  [
    "an unknown TLS version",
    ["--tls-min-version=TLS1.1"],
    /^tls-min-version is invalid: unexpected TLS version "TLS1.1"/,
  ],
  [
    "TLS versions the wrong way round",
    ["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
    /^min version \(TLS1\.3\)/,
  ],
  ["half a certificate", ["--cert-file=/x"], /^give --cert-file and --key-file both/],
  ["a listen address without port", ["--listen-addr=x"], /^failed to validate listen address: x/],
  ["an endpoint that is none", ["--endpoints=a"], /missing port in address/],
] as const) {
  test(`the start of a gRPC proxy is refused for ${what}`, async () => {
    const { code, err } = await run("grpc-proxy", "start", ...flags);
    assert.equal(code, 1);
    assert.match(err, message);
  });
}
