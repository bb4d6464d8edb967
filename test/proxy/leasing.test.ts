// Slow: each test starts a member and several proxies.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { Client } from "../../src/client/client.ts";
import { op, when } from "../../src/client/operations.ts";
import { type Held, LeasingCache } from "../../src/proxy/grpc/leasing/cache.ts";
import { startInProcess } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { clientOf, startProxy } from "./helpers.ts";

const PREFIX = "leases/";

async function start(t: TestContext, ...flags: string[]) {
  const server = await startInProcess();
  t.after(() => server.close());
  const direct = clientOf(t, server.url);
  const proxy = async (): Promise<Client> => {
    const { address } = await startProxy(
      t,
      "grpc-proxy",
      "start",
      `--endpoints=${server.url}`,
      `--experimental-leasing-prefix=${PREFIX}`,
      ...flags,
    );
    const client = clientOf(t, address);
    // A write waits for the proxy's session.
    await client.put("warm", "");
    return client;
  };
  const requests = async (): Promise<number> => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    let sum = 0;
    for (const method of ["Range", "Txn"]) {
      sum += Number(new RegExp(`^grpc_server_started_total\\{grpc_method="${method}".* (\\d+)$`, "m").exec(text)?.[1]);
    }
    return sum;
  };
  return { server, direct, proxy, requests };
}

test("a key that a proxy holds is read without the cluster, as it is after each write", async (t) => {
  const { proxy, direct, requests } = await start(t);
  const client = await proxy();
  await direct.put("a", "1");
  assert.equal((await client.get("a"))?.value, "1");
  assert.ok(await direct.get(`${PREFIX}a`), "it is held");
  const before = await requests();
  for (let i = 0; i < 20; i++) assert.equal((await client.get("a"))?.value, "1");
  assert.equal(await client.count("a"), 1);
  assert.equal(await requests(), before);
  const { revision } = await client.put("a", "2");
  const read = await client.get("a");
  assert.deepEqual(
    [read?.value, read?.version, read?.modRevision, read?.createRevision],
    ["2", 2, revision, (await direct.get("a"))?.createRevision],
  );
  assert.equal((await client.delete("a")).deleted, 1);
  assert.equal(await client.get("a"), undefined);
  assert.equal((await client.delete("a")).deleted, 0);
  await client.put("a", "3");
  assert.deepEqual(await client.get("a"), await direct.get("a"));
});

test("a proxy gives a key up when another wants to write it", async (t) => {
  const { proxy, direct } = await start(t);
  const [one, other] = [await proxy(), await proxy()];
  await one.put("a", "1");
  assert.equal((await one.get("a"))?.value, "1");
  await other.put("a", "2");
  assert.equal((await one.get("a"))?.value, "2");
  assert.equal(await direct.get(`${PREFIX}a`), undefined, "it is not held again at once");
  assert.equal((await other.get("a"))?.value, "2");
  await one.txn({ success: [op.put("a", "3"), op.put("b", "3")] });
  assert.equal((await other.get("a"))?.value, "3");
  assert.equal((await other.get("b"))?.value, "3");
  await one.delete({ prefix: "" });
  assert.equal(await other.get("a"), undefined);
  assert.equal(await other.get("b"), undefined);
});

test("a transaction that reads held keys is answered without the cluster, others see and change what is held", async (t) => {
  const { proxy, direct, requests } = await start(t);
  const client = await proxy();
  await direct.put("a", "1");
  await client.get("a");
  await client.get("none");
  const before = await requests();
  const read = { compare: [when.value("a", "=", "1"), when.missing("none")], success: [op.get("a")] } as const;
  const seen = await client.txn(read);
  assert.deepEqual([seen.succeeded, seen.succeeded && seen.results[0]?.value], [true, "1"]);
  assert.equal((await client.txn({ compare: [when.version("a", ">", 1)] })).succeeded, false);
  assert.equal(await requests(), before);
  await client.txn({ compare: [when.value("a", "=", "1")], success: [op.put("a", "2"), op.delete("none")] });
  assert.deepEqual(await client.get("a"), await direct.get("a"));
  assert.equal((await client.get("a"))?.value, "2");
  assert.equal((await client.txn(read)).succeeded, false);
});

test("a key with a lease is never held, for its end would not be seen", async (t) => {
  const { proxy, direct } = await start(t);
  const client = await proxy();
  const lease = await direct.leases.grant(600);
  await client.get("a");
  await client.put("a", "1", { lease });
  assert.equal((await client.get("a"))?.value, "1");
  await lease.revoke();
  assert.equal(await client.get("a"), undefined);
});

test("with a namespace, leasing keys are below it too", async (t) => {
  const { proxy, direct } = await start(t, "--namespace=ns/");
  const client = await proxy();
  await direct.put("ns/a", "1");
  assert.equal((await client.get("a"))?.value, "1");
  assert.ok(await direct.get(`ns/${PREFIX}a`));
  await client.put("a", "2");
  assert.deepEqual([(await client.get("a"))?.value, (await direct.get("ns/a"))?.value], ["2", "2"]);
});

test("a proxy whose lease is gone answers from the cluster until it has another", async (t) => {
  const { proxy, direct } = await start(t);
  const client = await proxy();
  await client.put("a", "1");
  await client.get("a");
  const lease = (await direct.get(`${PREFIX}a`))!.lease;
  await direct.leases.revoke(lease);
  await waitFor("the leasing key is known to be gone", async () => {
    await direct.put("a", "2");
    return (await client.get("a"))?.value === "2";
  });
  await waitFor("the key is held under another lease", async () => {
    await client.get("a");
    const held = await direct.get(`${PREFIX}a`);
    return held !== undefined && held.lease !== lease;
  });
});

test("reads through several proxies never go back", async (t) => {
  const { proxy } = await start(t);
  const clients = [await proxy(), await proxy(), await proxy()];
  const keys = ["a", "b", "c"];
  /** The highest value whose write is acknowledged. */
  const written = new Map(keys.map((key) => [key, 0]));
  let next = 0;
  const work = async (client: Client, seed: number): Promise<void> => {
    for (let i = 0; i < 40; i++) {
      const key = keys[(seed + i * 7) % keys.length]!;
      if ((i + seed) % 4 === 0) {
        const kv = await client.get(key);
        const value = ++next;
        const compare = [when.modRevision(key, "=", kv?.modRevision ?? 0)];
        const { succeeded } = await client.txn({ compare, success: [op.put(key, String(value))] });
        if (succeeded) written.set(key, Math.max(written.get(key)!, kv === undefined ? 1 : Number(kv.version) + 1));
      } else {
        const least = written.get(key)!;
        const version = (await client.get(key))?.version ?? 0;
        assert.ok(version >= least, `${key}: version ${version} after ${least} was acknowledged`);
      }
    }
  };
  await Promise.all(clients.flatMap((client, i) => [work(client, i), work(client, i + 10)]));
});

test("what is held is bounded, and the least recently read is given up", () => {
  const dropped: string[] = [];
  const cache = new LeasingCache(
    () => 0,
    (held: Held) => void dropped.push(held.name),
    { keysMax: 2, bytesMax: 100 },
  );
  const header = { clusterId: 0n, memberId: 0n, revision: 5, raftTerm: 1 };
  const pair = (key: string, bytes: number) => ({
    key: Buffer.from(key),
    value: Buffer.alloc(bytes),
    createRevision: 1,
    modRevision: 1,
    version: 1,
    lease: 0n,
  });
  for (const key of ["a", "b", "c"]) cache.add(key, header, pair(key, 1));
  assert.deepEqual(dropped, ["a"]);
  cache.add("d", header, pair("d", 99));
  assert.deepEqual(dropped, ["a", "b", "c", "d"]);
  assert.equal(cache.size, 0);
});

test("an answer that is older than a request to give the key up is not kept", () => {
  const cache = new LeasingCache(
    () => 0,
    () => {},
  );
  const header = { clusterId: 0n, memberId: 0n, revision: 5, raftTerm: 1 };
  cache.giveUp("a", 6);
  assert.equal(cache.mayAcquire("a"), false);
  assert.equal(cache.add("a", header, undefined), false);
  assert.equal(cache.get("a"), undefined);
});
