// Slow: tens of thousands of watchers.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { RevisionVisitor } from "../../src/mvcc/model/types.ts";
import type { MvccStore } from "../../src/mvcc/store/store.ts";
import type { WatchHub, WatchHubOptions } from "../../src/mvcc/watch/hub.ts";
import { type LargeBatch, LargeBatchGoneError } from "../../src/mvcc/watch/types.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";
import { BufferSink, describeDelivery, openHub, openStore, request, settled, write } from "./watch-harness.ts";

interface Setup {
  clock: VirtualClock;
  store: MvccStore;
  hub: WatchHub;
  /** Rows that the watchers have read from the backend. */
  rows: { count: number };
}

async function setup(hubOptions: Partial<WatchHubOptions> = {}, clock = new VirtualClock()): Promise<Setup> {
  const store = await openStore(clock);
  const rows = { count: 0 };
  const read = store.forEachRevision.bind(store);
  store.forEachRevision = (from: number, to: number, fromSub: number, visit: RevisionVisitor): void =>
    read(from, to, fromSub, (...row) => {
      rows.count++;
      return visit(...row);
    });
  return { clock, store, hub: openHub(store, clock, hubOptions), rows };
}

const key = (i: number): string => `k${String(i).padStart(6, "0")}`;

/** As on a real machine: reading takes time. */
class WorkingClock extends VirtualClock {
  rows = { count: 0 };
  #askedMs = 0;

  override nowMs(): number {
    this.#askedMs += 0.01;
    return super.nowMs() + this.#askedMs + this.rows.count * 0.01;
  }
}

describe("watchers that catch up", () => {
  it("all together, each from its own revision, read the past once, and the last page once more", async () => {
    const { clock, store, hub, rows } = await setup();
    const count = 3000;
    for (let i = 0; i < count; i++) write(store, [[key(i), "1"]]);
    const sink = new BufferSink();
    const stream = hub.newStream(sink);
    for (let i = 0; i < count; i++) stream.watch(request(key(i), { startRevision: i + 2 }));
    clock.settle();
    assert.equal(hub.syncedCount, count);
    assert.equal(sink.buffer.length, count);
    assert.ok(rows.count <= count + 2048 + 10, `${rows.count} rows were read`);
  });

  it("one after the other share passes", async () => {
    const working = new WorkingClock();
    const { clock, store, hub, rows } = await setup({}, working);
    working.rows = rows;
    const count = 400;
    for (let i = 0; i < count; i++) write(store, [[key(i), "1"]]);
    const sink = new BufferSink();
    const stream = hub.newStream(sink);
    for (let i = 0; i < count; i++) {
      stream.watch(request(key(i), { startRevision: 2 }));
      clock.turn();
    }
    for (let i = 0; hub.slowCount > 0; i++) {
      assert.ok(i < 1000, "they do not catch up");
      clock.advance(100);
    }
    assert.equal(sink.buffer.length, count);
    assert.ok(rows.count < (count * count) / 10, `${rows.count} rows were read`);
  });

  it("join, read and leave in bounded numbers per turn, while synced ones get new events", async () => {
    const { clock, store, hub } = await setup({ page: { watchersMax: 50 } });
    const count = 2000;
    for (let i = 0; i < 20; i++) write(store, [["a", String(i)]]);
    const fast = new BufferSink();
    hub.newStream(fast).watch(request("b"));
    const sink = new BufferSink();
    const stream = hub.newStream(sink);
    for (let i = 0; i < count; i++) stream.watch(request("a", { startRevision: 2 + (i % 20) }));
    for (let before = 0, turns = 0; hub.slowCount > 0; turns++) {
      assert.ok(turns < 1000);
      clock.turn();
      assert.ok(sink.acceptedCount - before <= 101, `${sink.acceptedCount - before} responses in one turn`);
      before = sink.acceptedCount;
      if (turns % 5 === 0) {
        write(store, [["b", String(turns)]]);
        assert.equal(fast.buffer.length, turns / 5 + 1);
      }
    }
    assert.equal(sink.buffer.length, count);
  });
});

describe("very many synced watchers", () => {
  it("of one key get a change over several turns, and events from meanwhile in one response", async () => {
    const { clock, store, hub } = await setup({ fanOut: { unitsPerTurn: 200 } });
    const count = 1000;
    const sinks = Array.from({ length: 10 }, () => new BufferSink());
    const streams = sinks.map((sink) => hub.newStream(sink));
    for (let i = 0; i < count; i++) streams[i % 10]!.watch(request("hot"));
    const other = new BufferSink();
    hub.newStream(other).watch(request("other"));
    const taken = (): number => sinks.reduce((sum, { acceptedCount }) => sum + acceptedCount, 0);
    for (let i = 1; i <= 5; i++) write(store, [["hot", String(i)]]);
    write(store, [["other", "1"]]);
    assert.deepEqual(other.buffer.map(describeDelivery), ["0@7 other=1@7"], "nobody waits for them");
    assert.ok(taken() <= 100);
    assert.equal(streams[0]!.requestProgressAll(), false, "they are not told of progress that they have not made");
    for (let before = taken(), turns = 0; clock.turn(); turns++) {
      assert.ok(turns < 100);
      assert.ok(taken() - before <= 101, `${taken() - before} responses in one turn`);
      before = taken();
      if (turns === 2) write(store, [["hot", "6"]]);
    }
    for (const { buffer } of sinks) {
      for (let id = 0; id < 100; id++) {
        const own = buffer.filter((delivery) => delivery.kind === "events" && delivery.watch.id === id);
        const events = own.flatMap((delivery) => (delivery.kind === "events" ? delivery.batch.decodedEvents() : []));
        assert.deepEqual(
          events.map(({ kv }) => Buffer.from(kv!.value).toString()),
          ["1", "2", "3", "4", "5", "6"],
        );
        assert.ok(own.length <= 2);
      }
    }
  });

  it("continue from the backend when more waits for them than allowed", async () => {
    const { clock, store, hub, rows } = await setup({ fanOut: { unitsPerTurn: 10, waitingBytesMax: 2000 } });
    const sink = new BufferSink();
    const stream = hub.newStream(sink);
    for (let i = 0; i < 20; i++) stream.watch(request("hot"));
    for (let i = 0; i < 50; i++) write(store, [["hot", String(i)]]);
    assert.ok(hub.slowCount > 0);
    clock.settle();
    assert.ok(rows.count > 0);
    const events = sink.buffer.flatMap((delivery) =>
      delivery.kind === "events" ? delivery.batch.decodedEvents() : [],
    );
    assert.equal(events.length, 20 * 50);
    assert.equal(hub.syncedCount, 20);
  });
});

describe("a stream with very many watchers", () => {
  it("is removed over several turns, and its watchers get nothing meanwhile", async () => {
    const { clock, store, hub } = await setup();
    const sink = new BufferSink();
    const stream = hub.newStream(sink);
    const count = 10_000;
    for (let i = 0; i < count; i++) stream.watch(request(key(i), i % 2 === 0 ? {} : { end: "l" }));
    stream.close();
    assert.equal(hub.streamCount, 0);
    write(store, [[key(count - 1), "1"]]);
    for (let before = hub.watcherCount, turns = 0; hub.watcherCount > 0; turns++) {
      assert.ok(turns < 20);
      clock.turn();
      assert.ok(before - hub.watcherCount <= 2048);
      before = hub.watcherCount;
    }
    assert.equal(sink.acceptedCount, 0);
    assert.equal(hub.syncedCount + hub.slowCount, 0);
  });

  it("gets progress over several turns, and waits for its client", async () => {
    const { clock, hub } = await setup();
    const sink = new BufferSink(1000);
    const stream = hub.newStream(sink);
    const count = 3000;
    for (let i = 0; i < count; i++) stream.watch(request(key(i), { progressNotify: true }));
    stream.progressTick();
    stream.progressTick();
    assert.ok(sink.buffer.length <= 512);
    clock.settle();
    assert.equal(sink.buffer.length, 1000);
    const told = new Set<number>();
    for (let i = 0; told.size < count; i++) {
      assert.ok(i < 100, `${told.size} were told`);
      for (const delivery of sink.take(stream)) {
        assert.ok(delivery.kind === "progress");
        assert.ok(!told.has(delivery.watchId), "nobody is told twice");
        told.add(delivery.watchId);
      }
      clock.settle();
    }
  });
});

describe("a revision with very many events", () => {
  const count = 5000;

  async function removal(options: Partial<WatchHubOptions> = {}): Promise<Setup & { remove: () => void }> {
    const made = await setup(options);
    const { store } = made;
    for (let i = 0; i < count; i++) write(store, [[key(i), "1"]]);
    const remove = (): void => {
      const txn = store.begin();
      txn.deleteRange(Buffer.from("k"), Buffer.from("l"));
      txn.end();
    };
    return { ...made, remove };
  }

  it("reaches every watcher complete, and is read a bounded number of rows per turn", async () => {
    const { clock, store, hub, rows, remove } = await removal({ page: { keptBytesMax: 100_000 } });
    const one = new BufferSink();
    const oneStream = hub.newStream(one);
    for (let i = 0; i < count; i++) oneStream.watch(request(key(i)));
    const few = new BufferSink();
    hub.newStream(few).watch(request("k0001", { end: "k0002" }));
    const all = new BufferSink();
    const allStream = hub.newStream(all);
    allStream.watch(request("k", { end: "l", prevKv: true }));
    allStream.watch(request("k", { end: "l", filters: [1] }));
    remove();
    write(store, [[key(7), "2"]]);
    for (let before = rows.count, turns = 0; hub.slowCount > hub.blockedCount; turns++) {
      assert.ok(turns < 2000);
      clock.turn();
      // The test's sink reads large batches at once, twice: do not count that.
      if (all.largeCount === 0) assert.ok(rows.count - before <= 2100, `${rows.count - before} rows in one turn`);
      before = rows.count;
    }
    const eventsOf = (sink: BufferSink): string[] =>
      sink.buffer.flatMap((delivery) => (delivery.kind === "events" ? [String(delivery.batch.events.length)] : []));
    assert.equal(one.buffer.length, count + 1);
    assert.deepEqual(eventsOf(few), ["100"]);
    const taken = [];
    for (let i = 0; i < 5; i++) {
      taken.push(...all.take(allStream));
      clock.settle();
    }
    const [first, ...rest] = taken;
    assert.ok(first?.kind === "events");
    assert.equal(first.batch.events.length, count);
    assert.ok(first.batch.decodedEvents().every(({ prevKv }) => prevKv !== undefined));
    assert.deepEqual(rest.map(describeDelivery).sort(), [
      `0@${store.currentRevision} ${key(7)}=2@${store.currentRevision}`,
      `1@${store.currentRevision} ${key(7)}=2@${store.currentRevision}`,
    ]);
  });

  it("that is compacted during delivery ends the delivery", async () => {
    const { clock, store, hub, remove } = await removal();
    const batches: LargeBatch[] = [];
    const stream = hub.newStream({
      deliver: () => true,
      deliverLarge: (_watch, batch) => {
        batches.push(batch);
        return true;
      },
      deliverCompacted: () => true,
      deliverProgress: () => true,
    });
    stream.watch(request("k", { end: "l" }));
    remove();
    clock.settle();
    const [batch] = batches;
    while (!batch!.measure());
    assert.equal(batch!.eventCount, count);
    assert.ok(batch!.piece(3).length <= 64 * 1024);
    write(store, [["k", "1"]]);
    await settled(clock, store.compact(store.currentRevision));
    assert.throws(() => batch!.piece(4), LargeBatchGoneError);
    assert.equal(hub.watcherCount, 1);
    stream.close();
    assert.equal(hub.watcherCount, 0);
  });
});
