import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Client, LeaseLostError } from "../../src/client/index.ts";
import { type InProcess, startInProcess, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { servedClient } from "./served.ts";

const TTL = 60;

describe("a lock", () => {
  let server: InProcess;
  let clients: Client[];
  before(async () => {
    server = await startInProcess();
    clients = Array.from({ length: 3 }, () => new Client({ endpoints: server.url }));
  });
  after(async () => {
    for (const client of clients) client.close();
    await server.close();
    assert.deepEqual(server.failures, []);
  });

  test("is held by one client at a time, with growing tokens", async () => {
    let holders = 0;
    const tokens: number[] = [];
    const turns = clients.flatMap((client) =>
      Array.from({ length: 4 }, async () => {
        await using lock = await client.lock("turns", { ttl: TTL });
        assert.equal(++holders, 1);
        tokens.push(lock.token);
        await client.get("something");
        assert.ok(lock.isHeld);
        holders--;
      }),
    );
    await Promise.all(turns);
    assert.equal(tokens.length, 12);
    assert.ok(
      tokens.every((token, i) => i === 0 || token > tokens[i - 1]!),
      tokens.join(" "),
    );
    assert.equal(await clients[0]!.count({ prefix: "turns/" }), 0);
  });

  test("has the key that etcd's own tools use", async () => {
    const client = clients[0]!;
    await using lock = await client.lock("named", { ttl: TTL });
    const { kvs } = await client.range({ prefix: "named/" });
    assert.deepEqual(
      kvs.map(({ key, lease }) => [key, lease]),
      [[`named/${lock.lease.id.toString(16)}`, lock.lease.id]],
    );
  });

  test("that is no longer wanted leaves nothing behind", async () => {
    const [first, second] = clients as [Client, Client];
    await using _held = await first.lock("unwanted", { ttl: TTL });
    const controller = new AbortController();
    const waiting = second.lock("unwanted", { ttl: TTL, signal: controller.signal });
    await waitFor("the second in the queue", async () => (await first.count({ prefix: "unwanted/" })) === 2);
    const reason = new Error("no longer wanted");
    controller.abort(reason);
    await assert.rejects(waiting, reason);
    assert.equal(await first.count({ prefix: "unwanted/" }), 1);
  });

  test("is lost with its key", async () => {
    const [first, second] = clients as [Client, Client];
    const lock = await first.lock("deleted", { ttl: TTL });
    await second.delete({ prefix: "deleted/" });
    await waitFor("the loss", () => lock.signal.aborted);
    assert.ok(lock.signal.reason instanceof LeaseLostError && !lock.isHeld);
    await lock.release();
  });

  test("is lost with its lease", async () => {
    const [first, second] = clients as [Client, Client];
    const lock = await first.lock("revoked", { ttl: TTL });
    await second.leases.revoke(lock.lease.id);
    await waitFor("the loss", () => lock.signal.aborted);
    assert.ok(lock.signal.reason instanceof LeaseLostError);
  });

  test("fences by a condition of transactions", async () => {
    const client = clients[0]!;
    const lock = await client.lock("fenced", { ttl: TTL });
    assert.ok((await client.txn({ compare: [lock.condition] })).succeeded);
    await lock.release();
    assert.ok(!(await client.txn({ compare: [lock.condition] })).succeeded);
  });

  test("belongs to its namespace", async () => {
    const [first, second] = clients as [Client, Client];
    await using _a = await first.namespace("a/").lock("same", { ttl: TTL });
    await using _b = await second.namespace("b/").lock("same", { ttl: TTL });
    assert.equal(await first.count({ prefix: "a/same/" }), 1);
  });
});

test("a lock is reported lost while its member is down, and kept over a restart that is quick", async () => {
  const dir = tempDir();
  let server = await startInProcess({ dataDir: dir.path });
  await using client = new Client({ endpoints: server.url });
  const [short, long] = [await client.lock("short", { ttl: 2 }), await client.lock("long", { ttl: TTL })];
  await server.close(0);
  await waitFor("the loss", () => short.signal.aborted);
  assert.ok(short.signal.reason instanceof LeaseLostError);
  server = await startInProcess({ dataDir: dir.path });
  client.endpoints = [server.url];
  await client.ready();
  assert.ok(long.isHeld);
  // It goes on being watched over.
  await client.delete({ prefix: "long/" });
  await waitFor("the loss", () => long.signal.aborted);
  client.close();
  await server.close();
  dir.remove();
});

describe("an election", () => {
  let client: Client;
  servedClient((served) => (client = served));

  test("has one leader after the other, whom all can see", async () => {
    const election = client.election("one");
    assert.equal(await election.leader(), undefined);
    const first = await election.campaign("a", { ttl: TTL });
    const waiting = election.campaign("b", { ttl: TTL });
    await waitFor("the second in the queue", async () => (await client.count({ prefix: "one/" })) === 2);
    assert.deepEqual(await election.leader(), { value: "a", token: first.token, revision: first.token });
    const seen: string[] = [];
    const watching = (async () => {
      for await (const { value } of election.leaders()) if (seen.push(value) === 3) break;
    })();
    await waitFor("the first leader", () => seen.length === 1);
    await first.proclaim("a, still");
    await waitFor("what it says", () => seen.length === 2);
    await first.release();
    await using second = await waiting;
    await watching;
    assert.deepEqual(seen, ["a", "a, still", "b"]);
    assert.ok(second.token > first.token);
    await assert.rejects(first.proclaim("too late"), LeaseLostError);
  });
});
