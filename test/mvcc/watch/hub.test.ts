import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { MvccStore } from "../../../src/mvcc/store/store.ts";
import type { WatchHub, WatchHubOptions } from "../../../src/mvcc/watch/hub.ts";
import { Share } from "../../../src/mvcc/watch/share.ts";
import type { WatchStream } from "../../../src/mvcc/watch/stream.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";
import { BufferSink, describeDelivery, openHub, openStore, request, settled, write } from "../watch-harness.ts";

interface Setup {
  clock: VirtualClock;
  store: MvccStore;
  hub: WatchHub;
  sink: BufferSink;
  stream: WatchStream;
  /** The output since the last call, as text. */
  received(): string[];
}

async function setup(options: { capacity?: number; hub?: Partial<WatchHubOptions> } = {}): Promise<Setup> {
  const clock = new VirtualClock();
  const store = await openStore(clock);
  const hub = openHub(store, clock, options.hub);
  const sink = new BufferSink(options.capacity);
  const stream = hub.newStream(sink);
  const received = () => {
    clock.settle();
    return sink.take(stream).map(describeDelivery);
  };
  return { clock, store, hub, sink, stream, received };
}

describe("a watcher", () => {
  it("of a key gets its puts and deletions, each revision in one response whose header has that revision", async () => {
    const { store, stream, received } = await setup();
    assert.equal(stream.watch(request("a")), 0);
    write(store, [["a", "1"]]);
    write(store, [["b", "1"]]);
    write(store, [["a", "2"]]);
    write(store, [], ["a"]);
    assert.deepEqual(received(), ["0@2 a=1@2", "0@4 a=2@4", "0@5 a=DELETED@5"]);
  });

  it("of a range gets all changes of one transaction together, in the order they were made", async () => {
    const { store, stream, received } = await setup();
    stream.watch(request("b", { end: "d" }));
    write(store, [
      ["c", "1"],
      ["a", "1"],
      ["b", "1"],
      ["d", "1"],
    ]);
    write(store, [["bb", "2"]], ["c", "a"]);
    assert.deepEqual(received(), ["0@2 c=1@2 b=1@2", "0@3 bb=2@3 c=DELETED@3"]);
  });

  it("of the empty key watches the smallest key, and a range end of one zero byte watches all from the key on", async () => {
    const { store, stream, received } = await setup();
    stream.watch(request(""));
    stream.watch(request("", { end: "\0" }));
    stream.watch(request("m", { end: "\0" }));
    write(store, [
      ["\0", "zero"],
      ["a", "1"],
      ["\xff\xff", "last"],
    ]);
    assert.deepEqual(received().sort(), [
      "0@2 \0=zero@2",
      "1@2 \0=zero@2 a=1@2 \xff\xff=last@2",
      "2@2 \xff\xff=last@2",
    ]);
  });

  it("that starts in the past gets the events since then, in as few responses as possible, then new events", async () => {
    const { store, stream, received } = await setup();
    for (let i = 1; i <= 5; i++)
      write(store, [
        ["a", String(i)],
        ["b", String(i)],
      ]);
    stream.watch(request("a", { startRevision: 3 }));
    assert.deepEqual(received(), ["0@6 a=2@3 a=3@4 a=4@5 a=5@6"]);
    write(store, [["a", "6"]]);
    assert.deepEqual(received(), ["0@7 a=6@7"]);
  });

  it("that starts in the past gets nothing before its creation could be answered", async () => {
    const { store, stream, sink } = await setup();
    write(store, [["a", "1"]]);
    stream.watch(request("a", { startRevision: 1 }));
    assert.equal(sink.buffer.length, 0);
  });

  it("that starts in the future gets nothing earlier", async () => {
    const { store, stream, received } = await setup();
    stream.watch(request("a", { startRevision: 4 }));
    for (let i = 1; i <= 4; i++) write(store, [["a", String(i)]]);
    assert.deepEqual(received(), ["0@4 a=3@4", "0@5 a=4@5"]);
  });

  it("that starts below the compact revision is cancelled with it", async () => {
    const { clock, store, hub, stream, received } = await setup();
    for (let i = 1; i <= 9; i++) write(store, [["a", String(i)]]);
    await settled(clock, store.compact(6));
    stream.watch(request("a", { startRevision: 5 }));
    stream.watch(request("a", { startRevision: 6 }));
    assert.deepEqual(received(), ["0 compacted 6", "1@10 a=5@6 a=6@7 a=7@8 a=8@9 a=9@10"]);
    assert.equal(hub.watcherCount, 1);
    write(store, [["a", "10"]]);
    assert.deepEqual(received(), ["1@11 a=10@11"]);
  });

  it("that was cancelled by a compaction keeps its id until the client cancels it too", async () => {
    const { clock, store, hub, stream, received } = await setup();
    for (let i = 1; i <= 3; i++) write(store, [["a", String(i)]]);
    await settled(clock, store.compact(4));
    stream.watch(request("a", { startRevision: 1, watchId: 9 }));
    assert.deepEqual(received(), ["9 compacted 4"]);
    assert.throws(() => stream.watch(request("a", { watchId: 9 })), { code: "ERR_WATCH_DUPLICATE_ID" });
    assert.equal(stream.cancel(9), true);
    assert.equal(stream.watch(request("a", { watchId: 9 })), 9);
    assert.equal(hub.watcherCount, 1);
  });

  it("gets no puts or no deletions on request, and no response when nothing is left", async () => {
    const { store, stream, received } = await setup();
    stream.watch(request("a", { end: "z", filters: [0] }));
    stream.watch(request("a", { end: "z", filters: [1] }));
    stream.watch(request("a", { end: "z", filters: [0, 1] }));
    write(store, [
      ["a", "1"],
      ["b", "1"],
    ]);
    write(store, [["c", "1"]], ["a"]);
    write(store, [], ["b", "c"]);
    assert.deepEqual(received(), ["1@2 a=1@2 b=1@2", "0@3 a=DELETED@3", "1@3 c=1@3", "0@4 b=DELETED@4 c=DELETED@4"]);
    stream.watch(request("a", { end: "z", filters: [1], startRevision: 2 }));
    stream.watch(request("a", { end: "z", filters: [0, 1], startRevision: 2 }));
    assert.deepEqual(received(), ["3@4 a=1@2 b=1@2 c=1@3"]);
  });

  it("gets the previous value on request, except where the key is new or that revision is compacted", async () => {
    const { clock, store, stream, received } = await setup();
    stream.watch(request("a", { prevKv: true }));
    stream.watch(request("a"));
    write(store, [["a", "1"]]);
    write(store, [["a", "2"]]);
    write(store, [], ["a"]);
    write(store, [["a", "3"]]);
    assert.deepEqual(received(), [
      "0@2 a=1@2",
      "1@2 a=1@2",
      "0@3 a=2@3(was 1)",
      "1@3 a=2@3",
      "0@4 a=DELETED@4(was 2)",
      "1@4 a=DELETED@4",
      "0@5 a=3@5",
      "1@5 a=3@5",
    ]);
    stream.watch(request("a", { prevKv: true, startRevision: 3 }));
    assert.deepEqual(received(), ["2@5 a=2@3(was 1) a=DELETED@4(was 2) a=3@5"]);
    await settled(clock, store.compact(3));
    stream.watch(request("a", { prevKv: true, startRevision: 3 }));
    assert.deepEqual(received(), ["3@5 a=2@3 a=DELETED@4(was 2) a=3@5"]);
  });

  it("gets nothing after it is cancelled", async () => {
    const { store, hub, stream, received } = await setup();
    stream.watch(request("a"));
    stream.watch(request("a", { startRevision: 1 }));
    write(store, [["a", "1"]]);
    assert.equal(stream.cancel(0), true);
    assert.equal(stream.cancel(1), true);
    assert.equal(stream.cancel(1), false);
    write(store, [["a", "2"]]);
    assert.deepEqual(received(), ["0@2 a=1@2"]);
    assert.equal(hub.watcherCount, 0);
    assert.equal(hub.slowCount, 0);
  });
});

describe("watch ids", () => {
  it("are counted from 0 and skip those that clients chose", async () => {
    const { stream } = await setup();
    assert.equal(stream.watch(request("a", { watchId: 1 })), 1);
    assert.equal(stream.watch(request("a")), 0);
    assert.equal(stream.watch(request("a")), 2);
    stream.cancel(2);
    assert.equal(stream.watch(request("a")), 3, "an id is not used again by itself");
    assert.throws(() => stream.watch(request("a", { watchId: 3 })), {
      code: "ERR_WATCH_DUPLICATE_ID",
      message: "mvcc: duplicate watch ID provided on the WatchStream",
    });
  });

  it("are not given to a range without keys or a negative revision", async () => {
    const { stream } = await setup();
    for (const end of ["a", "b"]) {
      assert.throws(() => stream.watch(request("b", { end })), {
        code: "ERR_WATCH_EMPTY_RANGE",
        message: "mvcc: watcher range is empty",
      });
    }
    assert.throws(() => stream.watch(request("b", { startRevision: -1 })), {
      code: "ERR_WATCH_NEGATIVE_REVISION",
      message: "etcdserver: mvcc: required revision has been compacted",
    });
    assert.equal(stream.size, 0);
  });

  it("are limited per stream", async () => {
    const { stream } = await setup({ hub: { watchersPerStreamMax: 2 } });
    stream.watch(request("a"));
    stream.watch(request("a"));
    assert.throws(() => stream.watch(request("a")), { code: "ERR_WATCH_TOO_MANY" });
    stream.cancel(0);
    stream.watch(request("a"));
  });

  it("belong to their stream: closing it ends its watchers only", async () => {
    const { store, hub, stream, received } = await setup();
    const other = hub.newStream(new BufferSink());
    other.watch(request("a"));
    stream.watch(request("a"));
    other.close();
    other.close();
    assert.equal(hub.streamCount, 1);
    assert.equal(hub.watcherCount, 1);
    assert.throws(() => other.watch(request("a")), { code: "ERR_WATCH_STREAM_CLOSED" });
    write(store, [["a", "1"]]);
    assert.deepEqual(received(), ["0@2 a=1@2"]);
  });
});

describe("a slow stream", () => {
  it("loses no event, keeps none in memory, and does not disturb the others", async () => {
    const { clock, store, hub, sink, stream, received } = await setup({ capacity: 2 });
    const fast = new BufferSink();
    const fastStream = hub.newStream(fast);
    fastStream.watch(request("a"));
    stream.watch(request("a"));
    stream.watch(request("b"));
    for (let i = 1; i <= 6; i++) write(store, [["a", String(i)]]);
    write(store, [["b", "1"]]);
    clock.settle();
    assert.equal(fast.buffer.length, 6);
    assert.equal(sink.buffer.length, 2);
    assert.equal(hub.blockedCount, 2);
    assert.equal(hub.slowCount, 2);
    assert.equal(sink.refusals, 1, "a full stream is not asked again before it drains");
    assert.deepEqual(received(), ["0@2 a=1@2", "0@3 a=2@3"]);
    assert.deepEqual(received(), ["0@8 a=3@4 a=4@5 a=5@6 a=6@7", "1@8 b=1@8"]);
    assert.equal(hub.slowCount, 0);
    assert.equal(hub.syncedCount, 3);
  });

  it("is notified when it was away for so long that its next revision is compacted", async () => {
    const { clock, store, hub, stream, received } = await setup({ capacity: 1 });
    stream.watch(request("a"));
    stream.watch(request("b"));
    for (let i = 1; i <= 6; i++) write(store, [["a", String(i)]]);
    await settled(clock, store.compact(5));
    assert.deepEqual(received(), ["0@2 a=1@2"]);
    assert.deepEqual(received(), ["0 compacted 5"]);
    write(store, [["b", "1"]]);
    assert.deepEqual(received(), ["1@8 b=1@8"], "a watcher that missed nothing goes on");
    assert.equal(hub.watcherCount, 1);
  });

  it("can be closed and its watchers cancelled while it is full", async () => {
    const { store, hub, sink, stream } = await setup({ capacity: 1 });
    stream.watch(request("a"));
    stream.watch(request("a"));
    write(store, [["a", "1"]]);
    write(store, [["a", "2"]]);
    assert.equal(hub.blockedCount, 2);
    assert.equal(stream.cancel(1), true);
    assert.equal(hub.blockedCount, 1);
    stream.close();
    assert.equal(hub.blockedCount, 0);
    assert.equal(hub.watcherCount, 0);
    stream.drained();
    assert.equal(sink.buffer.length, 1);
  });
});

describe("catching up", () => {
  it("reads the past in pages, yields between them, and never splits a revision", async () => {
    const page = { revisionsMax: 10 };
    const { clock, store, stream, sink } = await setup({ hub: { page } });
    for (let i = 1; i <= 35; i++)
      write(store, [
        ["a", String(i)],
        ["b", String(i)],
      ]);
    stream.watch(request("a", { end: "c", startRevision: 2 }));
    const sizes: number[] = [];
    while (clock.turn()) {
      const [delivery] = sink.take(stream);
      assert.ok(delivery?.kind === "events");
      assert.equal(delivery.batch.revision, delivery.batch.events.at(-1)!.revision);
      sizes.push(delivery.batch.events.length);
    }
    assert.deepEqual(sizes, [20, 20, 20, 10]);
  });

  it("is bounded in bytes and in rows, but passes a revision that is larger", async () => {
    const { store, stream, clock, sink } = await setup({ hub: { page: { bytesMax: 1_000, entriesMax: 3 } } });
    const puts = Array.from({ length: 20 }, (_, i) => [`k${i}`, "v".repeat(100)] as const);
    write(store, puts);
    for (let i = 0; i < 10; i++) write(store, [["other", String(i)]]);
    write(store, [["k0", "last"]]);
    stream.watch(request("k", { end: "l", startRevision: 1 }));
    const sizes: number[] = [];
    for (let turns = 0; clock.turn(); turns++) {
      assert.ok(turns < 10);
      for (const delivery of sink.take(stream)) {
        assert.ok(delivery.kind === "events");
        sizes.push(delivery.batch.events.length);
      }
    }
    assert.deepEqual(sizes, [20, 1]);
  });

  it("shares one page between watchers that are near each other, and one batch between equal ones", async () => {
    const { clock, store, hub } = await setup();
    for (let i = 1; i <= 20; i++) write(store, [["a", String(i)]]);
    const sinks = Array.from({ length: 100 }, () => new BufferSink());
    for (const sink of sinks) hub.newStream(sink).watch(request("a", { startRevision: 5 }));
    assert.equal(hub.slowCount, 100);
    clock.turn();
    assert.equal(hub.slowCount, 0);
    const batches = new Set(sinks.map(({ buffer }) => (buffer[0]!.kind === "events" ? buffer[0]!.batch : undefined)));
    assert.equal(batches.size, 1);
  });

  it("gives every watcher its turn, however old the revisions that others need", async () => {
    const page = { revisionsMax: 1, entriesMax: 1, watchersMax: 1 };
    const { clock, store, hub } = await setup({ hub: { page } });
    for (let i = 1; i <= 50; i++) write(store, [["a", String(i)]]);
    const old = Array.from({ length: 5 }, () => new BufferSink());
    for (const sink of old) hub.newStream(sink).watch(request("a", { startRevision: 2 }));
    const recent = new BufferSink();
    hub.newStream(recent).watch(request("a", { startRevision: 50 }));
    for (let i = 0; i < 12; i++) clock.turn();
    assert.deepEqual(recent.buffer.map(describeDelivery), ["0@50 a=49@50", "0@51 a=50@51"]);
    clock.settle();
    for (const sink of old) assert.equal(sink.buffer.length, 50);
  });
});

describe("progress", () => {
  it("is sent at the current revision to a synced watcher, and not to an unsynced one", async () => {
    const { store, stream, sink, received } = await setup();
    write(store, [["a", "1"]]);
    stream.watch(request("b"));
    stream.watch(request("a", { startRevision: 1 }));
    stream.requestProgress(0);
    stream.requestProgress(1);
    stream.requestProgress(77);
    assert.deepEqual(sink.buffer.map(describeDelivery), ["0 progress 2"]);
    assert.deepEqual(received(), ["0 progress 2", "1@2 a=1@2"]);
    stream.requestProgress(1);
    assert.deepEqual(received(), ["1 progress 2"]);
  });

  it("of a stream is sent under id -1, once all its watchers are synced", async () => {
    const { store, stream, received } = await setup();
    assert.equal(stream.requestProgressAll(), true);
    write(store, [["a", "1"]]);
    stream.watch(request("b"));
    stream.watch(request("a", { startRevision: 1 }));
    assert.equal(stream.requestProgressAll(), false);
    assert.deepEqual(received(), ["1@2 a=1@2"]);
    assert.equal(stream.requestProgressAll(), true);
    assert.deepEqual(received(), ["-1 progress 2"]);
  });

  it("is not sent to a watcher that waits for a future revision, nor for a stream with one", async () => {
    const { store, stream, received } = await setup();
    stream.watch(request("a", { startRevision: 3 }));
    stream.requestProgress(0);
    assert.equal(stream.requestProgressAll(), false);
    write(store, [["b", "1"]]);
    assert.equal(stream.requestProgressAll(), false);
    write(store, [["b", "2"]]);
    assert.equal(stream.requestProgressAll(), true);
    assert.deepEqual(received(), ["-1 progress 3"]);
  });

  it("on the timer goes to watchers that want it and had no event since the last time", async () => {
    const { store, stream, received } = await setup();
    stream.watch(request("a", { progressNotify: true }));
    stream.watch(request("b", { progressNotify: true }));
    stream.watch(request("a"));
    stream.progressTick();
    assert.deepEqual(received(), ["0 progress 1", "1 progress 1"]);
    write(store, [["a", "1"]]);
    received();
    stream.progressTick();
    assert.deepEqual(received(), ["1 progress 2"]);
    stream.progressTick();
    assert.deepEqual(received(), ["0 progress 2", "1 progress 2"]);
  });

  it("is dropped, not queued, when the stream is full", async () => {
    const { store, stream, received } = await setup({ capacity: 1 });
    stream.watch(request("a"));
    write(store, [["a", "1"]]);
    stream.requestProgress(0);
    stream.requestProgress(0);
    assert.deepEqual(received(), ["0@2 a=1@2"]);
    assert.deepEqual(received(), []);
    stream.requestProgress(0);
    assert.deepEqual(received(), ["0 progress 2"]);
  });
});

describe("a snapshot that replaces the store", () => {
  it("is caught up with from the last revision seen, also by watchers whose keys did not change", async () => {
    const { clock, store, hub, stream, received } = await setup();
    const leader = await openStore(clock);
    const both = [store, leader];
    for (const each of both) for (let i = 1; i <= 5; i++) write(each, [["a", String(i)]]);
    stream.watch(request("a"));
    stream.watch(request("quiet"));
    stream.watch(request("a", { startRevision: 9 }));
    for (const each of both) write(each, [["a", "6"]]);
    received();
    for (let i = 7; i <= 9; i++) write(leader, [["a", String(i)]]);
    // Watchers that saw everything up to revision 7 are not affected by its compaction.
    await settled(clock, leader.compact(8));
    await settled(clock, store.replaceBackend(leader.backend));
    assert.equal(hub.revision, 10);
    assert.deepEqual(received().sort(), ["0@10 a=7@8 a=8@9 a=9@10", "2@10 a=8@9 a=9@10"]);
    assert.equal(hub.syncedCount, 3);
    write(store, [
      ["quiet", "1"],
      ["a", "10"],
    ]);
    assert.deepEqual(received().sort(), ["0@11 a=10@11", "1@11 quiet=1@11", "2@11 a=10@11"]);
  });

  it("cancels watchers whose next revision it does not have", async () => {
    const { clock, store, stream, received } = await setup();
    const leader = await openStore(clock);
    for (const each of [store, leader]) write(each, [["a", "1"]]);
    stream.watch(request("a"));
    for (let i = 2; i <= 9; i++) write(leader, [["a", String(i)]]);
    await settled(clock, leader.compact(9));
    await settled(clock, store.replaceBackend(leader.backend));
    assert.deepEqual(received(), ["0 compacted 9"]);
  });
});

describe("a sink", () => {
  it("that calls back into the hub while it takes a response is a broken invariant", async () => {
    const { store, hub } = await setup();
    const stream = hub.newStream({
      deliver: () => stream.cancel(0),
      deliverLarge: () => true,
      deliverCompacted: () => true,
      deliverProgress: () => true,
    });
    stream.watch(request("a"));
    assert.throws(() => write(store, [["a", "1"]]), { name: "InvariantError" });
  });

  it("may discover that its client is gone while it takes a response, and close its stream", async () => {
    const { clock, store, hub } = await setup();
    let delivered = 0;
    const stream = hub.newStream({
      deliver: () => {
        delivered++;
        stream.close();
        return false;
      },
      deliverLarge: () => true,
      deliverCompacted: () => true,
      deliverProgress: () => true,
    });
    for (let i = 0; i < 3; i++) stream.watch(request("a"));
    write(store, [["a", "1"]]);
    clock.settle();
    assert.equal(delivered, 1);
    assert.equal(hub.watcherCount, 0);
    assert.equal(hub.slowCount, 0);
  });
});

describe("the hub stops the process", () => {
  const breaks = (rule: string) => (error: Error) => error.name === "InvariantError" && error.message.startsWith(rule);

  it("when a revision's changes did not reach it", async () => {
    const { store } = await setup();
    let skips = true;
    const subscribe = store.onChange.bind(store);
    store.onChange = (listener) =>
      subscribe((revision, changes) => {
        if (skips) skips = false;
        else listener(revision, changes);
      });
    openHub(store, new VirtualClock());
    write(store, [["a", "1"]]);
    assert.throws(() => write(store, [["a", "2"]]), breaks("changes come revision by revision"));
  });

  it("before a watcher gets an event that it already had", async () => {
    const { store, stream, clock } = await setup();
    for (const value of ["1", "2", "3"]) write(store, [["a", value]]);
    const { batchFor } = Share.prototype;
    Share.prototype.batchFor = function (watcher) {
      return batchFor.call(this, Object.assign(Object.create(watcher) as typeof watcher, { minRevision: 0 }));
    };
    try {
      for (const startRevision of [2, 4]) stream.watch(request("a", { startRevision }));
      assert.throws(() => clock.settle(), breaks("a watcher gets no revision twice"));
    } finally {
      Share.prototype.batchFor = batchFor;
    }
  });

  it("when the past is not read in order, or not forwards", async () => {
    const { store, stream, clock } = await setup();
    for (const value of ["1", "2"]) write(store, [["a", value]]);
    const forEach = store.forEachRevision.bind(store);
    store.forEachRevision = (from, to, sub, visit) => forEach(from, to, sub, (_main, ...rest) => visit(1, ...rest));
    stream.watch(request("a", { startRevision: 2 }));
    assert.throws(() => clock.settle(), breaks("rows are read in the order of revisions"));
    const still = await setup({ hub: { page: { entriesMax: 0 } } });
    write(still.store, [["a", "1"]]);
    still.stream.watch(request("a", { startRevision: 2 }));
    assert.throws(() => still.clock.settle(), breaks("a page is read forwards"));
  });
});
