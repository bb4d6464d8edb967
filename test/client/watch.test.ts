import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Client, ClientClosedError, WatchCompactedError, type WatchEvent } from "../../src/client/index.ts";
import { slow } from "../harness/fast.ts";
import { startInProcess, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { servedClient } from "./served.ts";

const told = (event: WatchEvent<string, string>) =>
  event.type === "put" ? `${event.key}=${event.kv.value}` : `${event.key} gone`;

async function take(events: AsyncIterable<WatchEvent<string, string>>, count: number): Promise<string[]> {
  const seen: string[] = [];
  for await (const event of events) if (seen.push(told(event)) === count) break;
  return seen;
}

describe("a watch", () => {
  let client: Client;
  servedClient((served) => (client = served));

  test("sees what happens after it is ready, in order", async () => {
    const watcher = client.watch({ prefix: "order/" }, { previous: true });
    const revision = await watcher.ready;
    await client.put("order/a", "1");
    await client.put("elsewhere", "1");
    await client.put("order/a", "2");
    await client.delete("order/a");
    const events: WatchEvent<string, string>[] = [];
    for await (const event of watcher) if (events.push(event) === 3) break;
    assert.deepEqual(events.map(told), ["order/a=1", "order/a=2", "order/a gone"]);
    assert.ok(events.every((event) => event.revision > revision));
    assert.deepEqual(
      events.map(({ previous }) => previous?.value),
      [undefined, "1", "2"],
    );
    assert.ok(events[0]?.type === "put" && events[0].isCreate && events[1]?.type === "put" && !events[1].isCreate);
  });

  test("sees the past, and is told when it has seen all of it", async () => {
    const space = client.namespace("past/");
    const { revision } = await space.put("a", "1");
    for (let i = 0; i < 20; i++) await space.put("a", `${i}`);
    let events = 0;
    for await (const batch of space.watch({ all: true }, { revision }).batches()) {
      events += batch.events.length;
      if (batch.caughtUp) break;
    }
    assert.equal(events, 21);
  });

  test("is told at once when there is no past to see", async () => {
    for await (const batch of client.watch("nothing").batches()) {
      assert.deepEqual([batch.events.length, batch.caughtUp], [0, true]);
      break;
    }
  });

  test("leaves out what it is asked to leave out", async () => {
    const watcher = client.watch({ prefix: "less/" }, { without: "put" });
    await watcher.ready;
    await client.put("less/a", "1");
    await client.delete("less/a");
    assert.deepEqual(await take(watcher, 1), ["less/a gone"]);
  });

  test("of many on one stream each sees its own keys", async () => {
    const watchers = Array.from({ length: 50 }, (_, i) => client.watch(`own/${i}`));
    await Promise.all(watchers.map(({ ready }) => ready));
    for (let i = 0; i < 50; i++) await client.put(`own/${i}`, `${i}`);
    const seen = await Promise.all(watchers.map((watcher) => take(watcher, 1)));
    assert.deepEqual(
      seen.flat(),
      Array.from({ length: 50 }, (_, i) => `own/${i}=${i}`),
    );
  });

  test("delivers a revision that comes in fragments as one", async () => {
    const space = client.namespace("fragments/");
    const watcher = space.watch({ all: true });
    await watcher.ready;
    const value = "x".repeat(40_000);
    const keys = Array.from({ length: 100 }, (_, i) => `k${i}`);
    await Promise.all(keys.map((key) => space.put(key, value)));
    await space.delete({ all: true });
    let deleted: number | undefined;
    for await (const { events } of watcher.batches()) {
      deleted = events.filter(({ type }) => type === "delete").length;
      if (deleted > 0) break;
    }
    assert.equal(deleted, 100);
  });

  test("throws when its past is compacted, with the revision to go on from", async () => {
    const { revision } = await client.put("compacted", "1");
    const { revision: next } = await client.put("compacted", "2");
    await client.maintenance.compact(next);
    await assert.rejects(take(client.watch("compacted", { revision }), 1), (error: WatchCompactedError) => {
      assert.ok(error instanceof WatchCompactedError);
      assert.deepEqual([error.compactRevision, error.nextRevision], [next, revision]);
      return true;
    });
    assert.deepEqual(await take(client.watch("compacted", { revision: next }), 1), ["compacted=2"]);
  });

  test("ends with its signal, with its loop, and when it is closed", async () => {
    const reason = new Error("enough");
    const controller = new AbortController();
    const watching = take(client.watch("end", { signal: controller.signal }), 1);
    controller.abort(reason);
    await assert.rejects(watching, reason);
    const watcher = client.watch("end");
    await watcher.ready;
    watcher.close();
    assert.deepEqual(await take(watcher, 1), []);
  });

  test("whose reader is slow keeps a bounded part, and misses nothing", slow, async () => {
    const space = client.namespace("slow/");
    const watcher = space.watch({ all: true });
    await watcher.ready;
    const value = "x".repeat(100_000);
    const count = 200;
    for (let i = 0; i < count; i += 10) {
      await Promise.all(Array.from({ length: 10 }, (_, j) => space.put(`k${i + j}`, value)));
    }
    await waitFor("the server to keep the rest", () => watcher.isParked);
    const seen = await take(watcher, count);
    assert.equal(new Set(seen).size, count);
  });
});

test("a watch goes on after its member was down, without loss or repetition", async () => {
  const dir = tempDir();
  let server = await startInProcess({ dataDir: dir.path });
  await using client = new Client({ endpoints: server.url });
  const watcher = client.watch({ prefix: "k" });
  await watcher.ready;
  const seen: string[] = [];
  const reading = (async () => {
    for await (const event of watcher) if (seen.push(told(event)) === 30) break;
  })();
  for (let i = 0; i < 10; i++) await client.put("k", `${i}`);
  await waitFor("the first ten", () => seen.length === 10);
  await server.close(0);
  server = await startInProcess({ dataDir: dir.path });
  // Written before the watch is back.
  await using writer = new Client({ endpoints: server.url });
  for (let i = 10; i < 20; i++) await writer.put("k", `${i}`);
  assert.equal(seen.length, 10);
  client.endpoints = [server.url];
  for (let i = 20; i < 30; i++) await writer.put("k", `${i}`);
  await reading;
  assert.deepEqual(
    seen,
    Array.from({ length: 30 }, (_, i) => `k=${i}`),
  );
  client.close();
  writer.close();
  await server.close();
  dir.remove();
});

test("closing the client ends its watches with an error", async () => {
  const server = await startInProcess();
  const client = new Client({ endpoints: server.url });
  const watching = take(client.watch("a"), 1);
  client.close();
  await assert.rejects(watching, ClientClosedError);
  await server.close();
});
