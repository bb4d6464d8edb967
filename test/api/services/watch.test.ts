import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { RawStream } from "../../../src/client/raw.ts";
import {
  WatchCreateRequest_FilterType as Filter,
  KVService,
  PutRequest,
  RequestOp,
  WatchCancelRequest,
  WatchCreateRequest,
  WatchProgressRequest,
  type WatchRequest,
  type WatchResponse,
  WatchService,
} from "../../../src/proto/etcdserverpb.ts";
import { type Event, Event_EventType as EventType } from "../../../src/proto/mvccpb.ts";
import { slow } from "../../harness/fast.ts";
import { type InProcess, startInProcess } from "../../harness/in-process.ts";
import { waitFor } from "../../harness/wait.ts";
import { bytes, text } from "../../server/requests.ts";

/** One watch call: requests by name, responses one at a time. */
class Watching {
  readonly #stream: RawStream<WatchRequest, WatchResponse>;
  readonly #responses: AsyncIterator<WatchResponse>;

  constructor(server: InProcess, metadata: Record<string, string> = {}) {
    this.#stream = server.client.stream(WatchService.Watch, { metadata });
    this.#responses = this.#stream[Symbol.asyncIterator]();
  }

  async create(key: string, fields: Partial<WatchCreateRequest> = {}): Promise<WatchResponse> {
    await this.#stream.send({ createRequest: WatchCreateRequest.create({ key: bytes(key), ...fields }) });
    return this.next();
  }

  cancelWatch(watchId: number): Promise<void> {
    return this.#stream.send({ cancelRequest: WatchCancelRequest.create({ watchId }) });
  }

  progress(): Promise<void> {
    return this.#stream.send({ progressRequest: WatchProgressRequest.create() });
  }

  send(request: Partial<WatchRequest>): Promise<void> {
    return this.#stream.send(request);
  }

  async next(): Promise<WatchResponse> {
    const { value, done } = await this.#responses.next();
    assert.ok(!done, "the stream ended");
    return value as WatchResponse;
  }

  /** The next `count` events, however many responses bring them. */
  async events(count: number): Promise<Event[]> {
    const events: Event[] = [];
    while (events.length < count) events.push(...(await this.next()).events);
    return events;
  }

  close(): void {
    this.#stream.cancel();
  }
}

const short = ({ type, kv }: Event): string =>
  type === EventType.DELETE ? `-${text(kv!.key)}` : `${text(kv!.key)}=${text(kv!.value)}`;

describe("the watch service", () => {
  let server: InProcess;
  let open: Watching[] = [];
  before(async () => {
    server = await startInProcess({ etcd: { watchProgressNotifyIntervalMs: 100 } });
  });
  afterEach(async () => {
    for (const watching of open) watching.close();
    open = [];
    await waitFor("all watchers are gone", () => server.etcd.server.watchHub.watcherCount === 0);
  });
  after(async () => {
    await server.close();
    assert.deepEqual(server.failures, []);
  });

  const watching = (metadata?: Record<string, string>): Watching => {
    const made = new Watching(server, metadata);
    open.push(made);
    return made;
  };
  const put = async (key: string, value = ""): Promise<number> => {
    const { header } = await server.client.unary(KVService.Put, { key: bytes(key), value: bytes(value) });
    return header!.revision;
  };
  const remove = (key: string) => server.client.unary(KVService.DeleteRange, { key: bytes(key) });

  test("answers a creation with its id and the current revision, then sends events", async () => {
    const revision = await put("created");
    const w = watching();
    const created = await w.create("created");
    assert.deepEqual([created.created, created.canceled, created.watchId], [true, false, 0]);
    assert.equal(created.header!.revision, revision);
    assert.equal(created.header!.memberId, server.etcd.server.memberId);
    await put("created", "1");
    await remove("created");
    assert.deepEqual((await w.events(2)).map(short), ["created=1", "-created"]);
  });

  test("numbers the watches of a stream, or takes the client's number", async () => {
    const w = watching();
    assert.equal((await w.create("a")).watchId, 0);
    assert.equal((await w.create("a", { watchId: 5 })).watchId, 5);
    assert.equal((await w.create("a")).watchId, 1);
    const twice = await w.create("a", { watchId: 5 });
    assert.deepEqual([twice.watchId, twice.created, twice.canceled], [-1, true, true]);
    assert.equal(twice.cancelReason, "mvcc: duplicate watch ID provided on the WatchStream");
  });

  test("sends one response per transaction, and to every watcher its own", async () => {
    const w = watching();
    await w.create("t", { rangeEnd: bytes("u") });
    await w.create("t1");
    await server.client.unary(KVService.Txn, {
      success: ["t1", "t2"].map((key) => ({
        requestRange: undefined,
        requestPut: {
          key: bytes(key),
          value: bytes("v"),
          lease: 0n,
          prevKv: false,
          ignoreValue: false,
          ignoreLease: false,
        },
        requestDeleteRange: undefined,
        requestTxn: undefined,
      })),
    });
    const responses = [await w.next(), await w.next()].sort((a, b) => a.watchId - b.watchId);
    assert.deepEqual(
      responses.map(({ events }) => events.map(short)),
      [["t1=v", "t2=v"], ["t1=v"]],
    );
  });

  test("begins in the past when requested, and skips what filters exclude", async () => {
    const revision = await put("past", "1");
    await remove("past");
    await put("past", "2");
    const all = watching();
    await all.create("past", { startRevision: revision });
    assert.deepEqual((await all.events(3)).map(short), ["past=1", "-past", "past=2"]);
    const puts = watching();
    await puts.create("past", { startRevision: revision, filters: [Filter.NODELETE] });
    assert.deepEqual((await puts.events(2)).map(short), ["past=1", "past=2"]);
    const deletes = watching();
    await deletes.create("past", { startRevision: revision, filters: [Filter.NOPUT] });
    assert.deepEqual((await deletes.events(1)).map(short), ["-past"]);
  });

  test("waits for a future revision", async () => {
    const now = await put("future", "0");
    const w = watching();
    await w.create("future", { startRevision: now + 2 });
    await put("future", "1");
    await put("future", "2");
    assert.deepEqual((await w.events(1)).map(short), ["future=2"]);
  });

  test("sends previous values when requested", async () => {
    await put("prev", "old");
    const w = watching();
    await w.create("prev", { prevKv: true });
    await put("prev", "new");
    await remove("prev");
    const [changed, removed] = await w.events(2);
    assert.equal(text(changed!.prevKv!.value), "old");
    assert.equal(text(removed!.prevKv!.value), "new");
  });

  test("cancels a watch from a compacted revision with the compact revision", async () => {
    const first = await put("gone", "1");
    const last = await put("gone", "2");
    await server.client.unary(KVService.Compact, { revision: last });
    const w = watching();
    assert.equal((await w.create("gone", { startRevision: first })).created, true);
    const cancelled = await w.next();
    assert.deepEqual([cancelled.canceled, cancelled.compactRevision], [true, last]);
  });

  test("cancels a watch for the client, once, and continues with the others", async () => {
    const w = watching();
    await w.create("c1");
    await w.create("c2");
    await w.cancelWatch(0);
    const cancelled = await w.next();
    assert.deepEqual([cancelled.watchId, cancelled.canceled, cancelled.created], [0, true, false]);
    await w.cancelWatch(0);
    await w.cancelWatch(99);
    await put("c1");
    await put("c2", "seen");
    assert.deepEqual((await w.events(1)).map(short), ["c2=seen"]);
  });

  test("answers a progress request with the revision up to which everything was sent", async () => {
    const w = watching();
    await w.create("progress");
    const revision = await put("elsewhere");
    await w.progress();
    const progress = await w.next();
    assert.deepEqual([progress.watchId, progress.events.length, progress.header!.revision], [-1, 0, revision]);
  });

  test("notifies idle watches of progress at intervals when they request it", async () => {
    const w = watching();
    const created = await w.create("idle", { progressNotify: true });
    const revision = await put("elsewhere");
    let notified = await w.next();
    while (notified.header!.revision < revision) notified = await w.next();
    assert.deepEqual([notified.watchId, notified.events.length], [created.watchId, 0]);
  });

  test("splits a transaction that is larger than a message when requested", async () => {
    const small = await startInProcess({ server: { maxRequestBytes: 64 * 1024 } });
    const w = new Watching(small);
    await w.create("f", { rangeEnd: bytes("g"), fragment: true });
    const whole = new Watching(small);
    await whole.create("f", { rangeEnd: bytes("g") });
    // 20 keys of 40 KiB in the history, deleted at once: the previous values make the response large.
    for (let i = 10; i < 30; i++) {
      await small.client.unary(KVService.Put, { key: bytes(`f${i}`), value: Buffer.alloc(40 * 1024, i) });
    }
    await w.events(20);
    const prev = new Watching(small);
    await prev.create("f", { rangeEnd: bytes("g"), fragment: true, prevKv: true });
    await small.client.unary(KVService.DeleteRange, { key: bytes("f"), rangeEnd: bytes("g") });
    const pieces: WatchResponse[] = [await prev.next()];
    while (pieces.at(-1)!.fragment) pieces.push(await prev.next());
    assert.ok(pieces.length > 1, "800 KiB of previous values do not fit into one piece of 576 KiB");
    assert.equal(pieces.flatMap(({ events }) => events).length, 20);
    assert.ok(pieces.every((piece) => piece.header!.revision === pieces[0]!.header!.revision));
    assert.equal((await w.next()).events.length, 20, "without previous values one piece is enough");
    for (const each of [w, whole, prev]) each.close();
    await small.close();
  });

  test("sends a revision that is too large to keep in one response, or in fragments when requested", slow, async () => {
    const small = await startInProcess({ server: { maxRequestBytes: 64 * 1024 } });
    const count = 3000;
    for (let i = 0; i < count; i += 100) {
      const success = Array.from({ length: 100 }, (_, j) => ({
        requestPut: PutRequest.create({ key: bytes(`l${i + j}`), value: Buffer.alloc(300, 1) }),
      }));
      await small.client.unary(KVService.Txn, { success: success.map((op) => RequestOp.create(op)) });
    }
    const ways: Partial<WatchCreateRequest>[] = [
      {},
      { fragment: true, prevKv: true },
      { prevKv: true },
      { filters: [Filter.NODELETE] },
    ];
    const all: Watching[] = [];
    for (const fields of ways) {
      const w = new Watching(small);
      await w.create("l", { rangeEnd: bytes("m"), ...fields });
      all.push(w);
    }
    const [plain, fragments, previous, puts] = all;
    await small.client.unary(KVService.DeleteRange, { key: bytes("l"), rangeEnd: bytes("m") });
    await small.client.unary(KVService.Put, { key: bytes("l"), value: bytes("next") });
    const whole = await plain!.next();
    assert.deepEqual([whole.events.length, whole.fragment], [count, false]);
    assert.ok(whole.events.every(({ type, prevKv }) => type === EventType.DELETE && prevKv === undefined));
    const withPrevious = await previous!.next();
    assert.ok(withPrevious.events.every(({ prevKv }) => prevKv?.value.length === 300));
    const pieces: WatchResponse[] = [await fragments!.next()];
    while (pieces.at(-1)!.fragment) pieces.push(await fragments!.next());
    assert.ok(pieces.length > 1, "900 kB of previous values do not fit into one piece of 576 KiB");
    assert.deepEqual(
      pieces.flatMap(({ events }) => events),
      withPrevious.events,
    );
    for (const w of all) assert.deepEqual((await w.events(1)).map(short), ["l=next"]);
    await puts!.progress();
    assert.equal((await puts!.next()).watchId, -1);
    for (const w of all) w.close();
    await small.close();
  });

  test("answers thousands of requests that come at once, over several turns", slow, async () => {
    const stream = server.client.stream(WatchService.Watch);
    const count = 3000;
    for (let i = 0; i < count; i++) {
      void stream.send({ createRequest: WatchCreateRequest.create({ key: bytes(`many${i}`) }) });
    }
    const ids: number[] = [];
    for await (const { created, watchId } of stream) {
      assert.ok(created);
      ids.push(watchId);
      if (ids.length === count) break;
    }
    assert.deepEqual(
      ids,
      Array.from({ length: count }, (_, i) => i),
    );
    stream.cancel();
  });

  test(
    "lets a client that does not read fall behind, without delaying others, and brings it up to date later",
    slow,
    async () => {
      const slow = server.client.stream(WatchService.Watch);
      await slow.send({ createRequest: WatchCreateRequest.create({ key: bytes("slow"), rangeEnd: bytes("slox") }) });
      await waitFor("created", () => server.etcd.server.watchHub.watcherCount === 1);
      const quick = watching();
      await quick.create("slow", { rangeEnd: bytes("slox") });
      const count = 60;
      for (let i = 0; i < count; i++) {
        const value = Buffer.alloc(1024 * 1024, 1);
        await server.client.unary(KVService.Put, { key: bytes(`slow${i}`), value });
      }
      assert.equal((await quick.events(count)).length, count);
      const keys: string[] = [];
      for await (const { events } of slow) {
        for (const { kv } of events) keys.push(text(kv!.key));
        if (keys.length === count) break;
      }
      assert.deepEqual(
        keys,
        Array.from({ length: count }, (_, i) => `slow${i}`),
      );
    },
  );

  test("ignores a request of no kind", async () => {
    const w = watching();
    await w.send({});
    await w.create("nothing");
    await put("nothing", "1");
    assert.equal((await w.events(1)).length, 1);
  });
});
