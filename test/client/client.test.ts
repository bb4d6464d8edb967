import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  Client,
  ClientClosedError,
  ClientOptionsError,
  CodecError,
  op,
  RpcError,
  when,
} from "../../src/client/index.ts";
import type { InProcess } from "../harness/in-process.ts";
import { freePorts } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";
import { servedClient } from "./served.ts";

describe("a client", () => {
  let server: InProcess;
  let client: Client;
  servedClient((...served) => ([client, server] = served));

  test("reads what it has written, with its revisions", async () => {
    const { revision, previous } = await client.put("kv/a", "1");
    assert.equal(previous, undefined);
    const kv = await client.get("kv/a");
    assert.deepEqual(kv, {
      key: "kv/a",
      value: "1",
      version: 1,
      createRevision: revision,
      modRevision: revision,
      lease: 0n,
    });
    const second = await client.put("kv/a", "2", { previous: true });
    assert.deepEqual(second, { revision: revision + 1, previous: kv });
    assert.equal((await client.get("kv/a", { revision }))?.value, "1");
    assert.equal(await client.get("kv/nothing"), undefined);
  });

  test("deletes a range, with what was there", async () => {
    await client.put("del/a", "1");
    await client.put("del/b", "2");
    const { deleted, previous } = await client.delete({ prefix: "del/" }, { previous: true });
    assert.equal(deleted, 2);
    assert.deepEqual(
      previous.map(({ key, value }) => [key, value]),
      [
        ["del/a", "1"],
        ["del/b", "2"],
      ],
    );
    assert.equal(await client.count({ prefix: "del/" }), 0);
  });

  test("understands every form of a range, inside a namespace and without", async () => {
    const space = client.namespace("forms/");
    for (const key of ["a", "ab", "b", "c"]) await space.put(key, key.toUpperCase());
    await client.put("forms0", "after the namespace");
    const keys = async (range: Parameters<typeof space.range>[0]) =>
      (await space.range(range)).kvs.map(({ key }) => key);
    assert.deepEqual(await keys("a"), ["a"]);
    assert.deepEqual(await keys({ prefix: "a" }), ["a", "ab"]);
    assert.deepEqual(await keys({ from: "ab", to: "c" }), ["ab", "b"]);
    assert.deepEqual(await keys({ from: "b" }), ["b", "c"]);
    assert.deepEqual(await keys({ all: true }), ["a", "ab", "b", "c"]);
    assert.equal(await client.count({ prefix: "forms/" }), 4);
    assert.equal((await client.namespace("for").namespace("ms/").get("b"))?.key, "b");
    assert.equal((await client.get("forms/b"))?.value, "B");
  });

  test("streams a range of one revision, as it was when the stream began", async () => {
    const space = client.namespace("stream/");
    const value = "v".repeat(1000);
    await Promise.all(Array.from({ length: 600 }, (_, i) => space.put(`${1000 + i}`, value)));
    const seen: string[] = [];
    for await (const kv of space.stream({ all: true })) {
      assert.equal(kv.value, value);
      if (seen.push(kv.key) === 1) await space.delete({ all: true });
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 600 }, (_, i) => `${1000 + i}`),
    );
    for await (const kv of space.stream({ all: true })) assert.fail(kv.key);
    await assert.rejects(space.stream("a", { revision: 1e9 }).next(), { code: 11 });
  });

  test("says how many bytes have no answer, and waits until there are few", async () => {
    await using small = new Client({ endpoints: server.url, requestBytesMax: 2000, pendingBytesMax: 3000 });
    await assert.rejects(small.put("a", "v".repeat(2000)), {
      code: 8,
      details: /more than the 2000 of requestBytesMax/,
    });
    const puts = ["a", "b", "c"].map((key) => small.put(key, "v".repeat(1000)));
    const third = assert.rejects(puts[2]!, { code: 8, details: /await some of them/, maybeApplied: false });
    assert.ok(small.pendingBytes > 2000 && small.pendingBytes <= 3000, `${small.pendingBytes}`);
    await small.drained();
    assert.ok(small.pendingBytes < 750, `${small.pendingBytes}`);
    await Promise.all([puts[0], puts[1], third]);
    assert.equal(small.pendingBytes, 0);
    await small.put("c", "v".repeat(1000));
  });

  test("lists many keys page by page at one revision", async () => {
    const space = client.namespace("pages/");
    for (let i = 0; i < 25; i++) await space.put(`k${String(i).padStart(2, "0")}`, `${i}`);
    const seen: string[] = [];
    for await (const { key } of space.list({ all: true }, { pageSize: 10 })) {
      // A write in between belongs to no page.
      if (seen.push(key) === 1) await space.put("k99", "later");
    }
    assert.equal(seen.length, 25);
    assert.deepEqual(seen, seen.toSorted());
    const empty = [];
    for await (const kv of space.list({ prefix: "none" })) empty.push(kv);
    assert.deepEqual(empty, []);
  });

  test("sorts, limits and counts", async () => {
    const space = client.namespace("sorted/");
    for (const [key, value] of [
      ["a", "3"],
      ["b", "1"],
      ["c", "2"],
    ] as const)
      await space.put(key, value);
    const { kvs, more, count } = await space.range({ all: true }, { sort: "value", descending: true, limit: 2 });
    assert.deepEqual([kvs.map(({ key }) => key), more, count], [["a", "c"], true, 3]);
    const bare = await space.json().range({ all: true }, { keysOnly: true });
    assert.deepEqual(
      bare.kvs.map(({ key, value }) => [key, value]),
      [
        ["a", undefined],
        ["b", undefined],
        ["c", undefined],
      ],
    );
  });

  test("types the results of a transaction by its operations", async () => {
    const space = client.namespace("txn/");
    await space.put("a", "1");
    const answer = await space.txn({
      compare: [when.value("a", "=", "1"), when.missing("z"), when.exists("a")],
      success: [
        op.get("a"),
        op.put("b", "2"),
        op.range({ all: true }),
        op.count({ all: true }),
        op.delete("a", { previous: true }),
      ],
      failure: [op.get("z")],
    });
    assert.ok(answer.succeeded);
    const [got, put, range, count, deleted] = answer.results;
    // Each of these is a compile error when the type does not follow from the operation.
    const value: string | undefined = got?.value;
    assert.deepEqual([value, put.revision, range.kvs.length, count, deleted.deleted], ["1", answer.revision, 2, 2, 1]);
    assert.equal(deleted.previous[0]?.value, "1");
    const refused = await space.txn({
      compare: [when.version("a", ">", 0)],
      success: [op.put("a", "x")],
      failure: [op.get("b")],
    });
    assert.ok(!refused.succeeded);
    assert.equal(refused.results[0]?.value, "2");
  });

  test("nests transactions", async () => {
    const space = client.namespace("nested/");
    const answer = await space.txn({
      success: [op.txn({ compare: [when.missing("a")], success: [op.put("a", "1")], failure: [op.get("a")] })],
    });
    assert.ok(answer.succeeded && answer.results[0].succeeded);
    assert.equal(answer.results[0].results[0].revision, answer.revision);
    assert.equal((await space.get("a"))?.value, "1");
  });

  test("writes values by codec, and refuses to guess", async () => {
    const users = client.namespace("json/").json<{ name: string }>();
    await users.put("1", { name: "Ada" });
    assert.equal((await users.get("1"))?.value.name, "Ada");
    const raw = client.namespace("json/").bytes;
    const odd = Uint8Array.of(0xff, 0, 0xfe);
    await raw.put(odd, odd);
    assert.deepEqual((await raw.get(odd))?.value, odd);
    assert.deepEqual((await raw.get(odd))?.key, odd);
    await assert.rejects(client.namespace("json/").get(odd), CodecError);
    await assert.rejects(users.get(odd), CodecError);
    await client.put("json/text", "not json");
    await assert.rejects(users.get("text"), CodecError);
  });

  test("carries values larger than the window in both directions, beside small ones", async () => {
    const large = "x".repeat(1_400_000);
    const names = ["a", "b", "c", "d"];
    await Promise.all([...names.map((name) => client.put(`large/${name}`, large)), client.put("large/small", "1")]);
    const all = await client.range({ prefix: "large/" });
    assert.deepEqual(
      all.kvs.map(({ value }) => value.length),
      [1_400_000, 1_400_000, 1_400_000, 1_400_000, 1],
    );
    assert.equal((await client.get("large/small"))?.value, "1");
  });

  test("has many calls in flight on one connection", async () => {
    const keys = Array.from({ length: 2000 }, (_, i) => `many/${i}`);
    await Promise.all(keys.map((key) => client.put(key, key)));
    const values = await Promise.all(keys.map(async (key) => (await client.get(key))?.value));
    assert.deepEqual(values, keys);
    assert.equal(client.status[0]?.calls, 0);
  });

  test("rejects with the server's code and text", async () => {
    await assert.rejects(client.put("", "x"), (error: RpcError) => {
      assert.ok(error instanceof RpcError);
      assert.deepEqual([error.code, error.details, error.maybeApplied], [3, "etcdserver: key is not provided", false]);
      return true;
    });
    await assert.rejects(client.get("a", { revision: 1e9 }), { code: 11 });
  });

  test("ends a call with the reason of its signal", async () => {
    const reason = new Error("no longer wanted");
    await assert.rejects(client.get("a", { signal: AbortSignal.abort(reason) }), reason);
    const controller = new AbortController();
    const call = client.get("a", { signal: controller.signal });
    controller.abort(reason);
    await assert.rejects(call, reason);
    assert.equal(await client.get("kv/nothing"), undefined);
  });

  test("compacts, and reports what is gone", async () => {
    const { revision } = await client.put("compact/a", "1");
    await client.put("compact/a", "2");
    await client.maintenance.compact(revision + 1, { physical: true });
    await assert.rejects(client.get("compact/a", { revision }), { code: 11, details: /compacted/ });
  });

  test("knows the members, their state and their hash", async () => {
    const [member] = await client.cluster.members();
    const status = await client.maintenance.status();
    assert.deepEqual([member?.name, status.memberId, status.leader], ["default", member?.id, member?.id]);
    const { hash, hashRevision } = await client.maintenance.hash();
    assert.ok(hash > 0 && hashRevision >= status.revision);
    assert.deepEqual(await client.maintenance.alarms(), []);
  });

  test("asks one member alone, whether it is one of its own or not", async () => {
    const [port] = await freePorts(1);
    await using elsewhere = new Client({ endpoints: `127.0.0.1:${port}`, timeoutMs: 60_000 });
    const { memberId } = await elsewhere.maintenance.status({ endpoint: server.url });
    assert.equal(memberId, (await client.maintenance.status({ endpoint: server.url })).memberId);
    let size = 0;
    for await (const piece of elsewhere.maintenance.snapshot({ endpoint: server.url })) size += piece.length;
    assert.ok(size > 0);
    const other = `http://127.0.0.1:${port}`;
    await assert.rejects(client.get("a", { endpoint: other, timeoutMs: 100 }), { code: 14, details: /^not connected/ });
    await assert.rejects(client.get("a", { endpoint: "ftp://a" }), { code: "ERR_ENDPOINT" });
  });

  test("streams a backup with its hash", async () => {
    let size = 0;
    for await (const piece of client.maintenance.snapshot()) size += piece.length;
    assert.equal(size % 512, 32);
  });
});

test("a client that has no member to talk to says why, at its deadline", async () => {
  const [port] = await freePorts(1);
  await using client = new Client({ endpoints: `127.0.0.1:${port}`, timeoutMs: 200 });
  await assert.rejects(client.get("a"), { code: 14, details: /^not connected: / });
  const refused = client.get("a", { timeoutMs: 60_000 });
  await waitFor("the refusal", () => /ECONNREFUSED/.test(client.status[0]!.problem));
  await assert.rejects(client.put("a", "1"), { code: 14, maybeApplied: false });
  client.close();
  await assert.rejects(refused, ClientClosedError);
});

test("a closed client fails its calls, those in progress too", async () => {
  const [port] = await freePorts(1);
  const client = new Client({ endpoints: `127.0.0.1:${port}` });
  const waiting = client.get("a");
  client.close();
  await assert.rejects(waiting, ClientClosedError);
  await assert.rejects(client.get("a"), ClientClosedError);
});

test("a client refuses settings that make no sense", () => {
  assert.throws(() => new Client({ endpoints: [] }), ClientOptionsError);
  assert.throws(() => new Client({ endpoints: "ftp://a:1" }), { code: "ERR_ENDPOINT" });
  assert.throws(() => new Client({ username: "root" }), ClientOptionsError);
  assert.throws(() => new Client({ timeoutMs: 0 }), ClientOptionsError);
});
