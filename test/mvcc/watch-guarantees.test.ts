import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { MvccStore } from "../../src/mvcc/store/store.ts";
import type { WatchHub } from "../../src/mvcc/watch/hub.ts";
import type { WatchStream } from "../../src/mvcc/watch/stream.ts";
import { rounds } from "../harness/fast.ts";
import { type SeededRandom, seeded } from "../harness/random.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";
import { BufferSink, type Delivery, openHub, openStore, request, settled, write } from "./watch-harness.ts";

/**
 * etcd's promises about watches, checked on random histories: every watcher gets exactly the changes of its range, in
 * order, each once, each revision complete; it may only be cancelled because of a compaction of revisions it still
 * needed.
 */

interface Change {
  key: string;
  /** Undefined is a deletion. */
  value: string | undefined;
  /** The previous value; undefined when the key did not exist. */
  previous: string | undefined;
}

/** The changes, by revision. */
class History {
  readonly byRevision = new Map<number, Change[]>();
  readonly current = new Map<string, string>();

  record(revision: number, puts: readonly (readonly [string, string])[], deletes: readonly string[]): void {
    const changes: Change[] = [];
    for (const [key, value] of puts) {
      changes.push({ key, value, previous: this.current.get(key) });
      this.current.set(key, value);
    }
    for (const key of deletes) {
      if (!this.current.has(key)) continue;
      changes.push({ key, value: undefined, previous: this.current.get(key) });
      this.current.delete(key);
    }
    if (changes.length > 0) this.byRevision.set(revision, changes);
  }
}

interface ExpectedWatcher {
  key: string;
  end: string;
  filters: readonly number[];
  prevKv: boolean;
  /** Number of the stream's responses when the client learned of this watcher. */
  createdAt: number;
  /** Everything before this revision was received. */
  next: number;
  ended: boolean;
}

class World {
  readonly random: SeededRandom;
  readonly clock: VirtualClock;
  readonly hub: WatchHub;
  readonly history = new History();
  readonly streams: { stream: WatchStream; sink: BufferSink; watchers: Map<number, ExpectedWatcher> }[] = [];
  store: MvccStore;
  counts = {
    events: 0,
    refusals: 0,
    compacted: 0,
    progress: 0,
    streamProgress: 0,
    cancelled: 0,
    restored: 0,
    previous: 0,
    large: 0,
  };

  constructor(seed: number, clock: VirtualClock, store: MvccStore) {
    this.random = seeded(seed);
    this.clock = clock;
    this.store = store;
    const page = {
      watchersMax: 1 + this.random.below(6),
      entriesMax: 1 + this.random.below(30),
      revisionsMax: 1 + this.random.below(10),
      bytesMax: 1 + this.random.below(2_000),
      largeRows: 1 + this.random.below(4),
      largeBytes: 1 + this.random.below(1_000),
      keptBytesMax: 1 + this.random.below(1_500),
      joinRevisions: 1 + this.random.below(40),
    };
    const fanOut = {
      unitsPerTurn: 1 + this.random.below(40),
      matchesPerTurn: 1 + this.random.below(200),
      changesMax: 2 + this.random.below(4),
      waitingBytesMax: this.random.below(20_000),
    };
    this.hub = openHub(store, clock, { page, fanOut });
  }

  key(): string {
    return this.random.pick(["a", "aa", "ab", "b", "ba", "c", "\0", "\xff", "\xff\0"]);
  }

  openStream(): void {
    const capacity = this.random.chance(0.3) ? Number.POSITIVE_INFINITY : 1 + this.random.below(4);
    const sink = new BufferSink(capacity);
    const stream = this.hub.newStream(sink);
    const watchers = new Map<number, ExpectedWatcher>();
    this.streams.push({ stream, sink, watchers });
    let position = 0;
    sink.onTake = (delivery) => this.check(watchers, delivery, position++);
  }

  closeStream(): void {
    const index = this.random.below(this.streams.length);
    const [closed] = this.streams.splice(index, 1);
    this.counts.refusals += closed!.sink.refusals;
    this.counts.large += closed!.sink.largeCount;
    closed!.stream.close();
  }

  watch(): void {
    const { random, store } = this;
    const { stream, sink, watchers } = random.pick(this.streams);
    const key = this.key();
    const other = this.key();
    const end = random.chance(0.4) ? "" : random.chance(0.3) ? "\0" : other > key ? other : `${key}\xff`;
    const filters = [0, 1].filter(() => random.chance(0.15));
    const prevKv = random.chance(0.3);
    const current = store.currentRevision;
    const startRevision = random.chance(0.4) ? 0 : Math.max(1, current - random.below(60) + 10);
    const fields = { end, filters, prevKv, startRevision, progressNotify: random.chance(0.3) };
    const id = stream.watch(request(key, fields));
    assert.ok(!watchers.has(id));
    const next = startRevision === 0 ? current + 1 : startRevision;
    watchers.set(id, { key, end, filters, prevKv, createdAt: sink.acceptedCount, next, ended: false });
  }

  cancel(): void {
    const { stream, sink, watchers } = this.random.pick(this.streams);
    if (watchers.size === 0) return;
    const id = this.random.pick([...watchers.keys()]);
    for (const delivery of sink.take(stream)) void delivery;
    assert.ok(stream.cancel(id));
    watchers.delete(id);
    this.counts.cancelled++;
  }

  write(): void {
    const { random, history } = this;
    const puts = new Map<string, string>();
    const deletes = new Set<string>();
    for (let i = 1 + random.below(4); i > 0; i--) {
      if (random.chance(0.3)) deletes.add(this.key());
      else puts.set(this.key(), `${this.store.currentRevision}-${"v".repeat(random.below(100))}`);
    }
    for (const key of puts.keys()) deletes.delete(key);
    const before = this.store.currentRevision;
    const revision = write(this.store, [...puts], [...deletes]);
    if (revision > before) history.record(revision, [...puts], [...deletes]);
  }

  matching(watcher: ExpectedWatcher, from: number, to: number): string[] {
    const found: string[] = [];
    for (let revision = from; revision <= to; revision++) {
      for (const change of this.history.byRevision.get(revision) ?? []) {
        if (isWanted(watcher, change))
          found.push(describeChange(watcher, revision, change, this.store.compactRevision));
      }
    }
    return found;
  }

  check(watchers: Map<number, ExpectedWatcher>, delivery: Delivery, position: number): void {
    if (delivery.kind === "progress") {
      this.counts.progress++;
      if (delivery.watchId === -1) this.counts.streamProgress++;
      const all = [...watchers.values()].filter(({ createdAt }) => createdAt <= position);
      const told = delivery.watchId === -1 ? all : [watchers.get(delivery.watchId)!];
      for (const watcher of told) {
        assert.deepEqual(this.matching(watcher, watcher.next, delivery.revision), [], "progress before the events");
        watcher.next = Math.max(watcher.next, delivery.revision + 1);
      }
      return;
    }
    const watcher = watchers.get(delivery.watch.id)!;
    assert.equal(watcher.ended, false, "nothing comes after the end");
    if (delivery.kind === "compacted") {
      this.counts.compacted++;
      assert.ok(watcher.next < delivery.compactRevision, "it was cancelled though nothing that it needs is compacted");
      watcher.ended = true;
      return;
    }
    const { batch } = delivery;
    const got = batch.decodedEvents().map(({ type, kv, prevKv }) => {
      const value = type === 1 ? "DELETED" : text(kv!.value);
      const previous = prevKv === undefined ? undefined : text(prevKv.value);
      if (previous !== undefined) this.counts.previous++;
      return { what: `${text(kv!.key)}=${value}@${kv!.modRevision}`, previous, revision: kv!.modRevision };
    });
    const last = got.at(-1)!.revision;
    assert.ok(batch.revision >= last);
    const wanted = this.matching(watcher, watcher.next, batch.revision);
    assert.deepEqual(
      got.map(({ what, previous, revision }) => {
        // Whether a value from before a compaction is still sent depends on when the batch was made.
        return watcher.prevKv && revision - 1 < this.store.compactRevision ? what : `${what} was ${previous}`;
      }),
      wanted,
    );
    this.counts.events += got.length;
    watcher.next = batch.revision + 1;
  }

  async compact(): Promise<void> {
    const { store, random } = this;
    const from = Math.max(store.compactRevision + 1, store.currentRevision - 40);
    if (from < store.currentRevision) {
      const done = store.compact(from + random.below(store.currentRevision - from));
      if (random.chance(0.5)) await settled(this.clock, done);
    }
  }

  finish(): void {
    for (let round = 0; round < 10_000; round++) {
      this.clock.settle();
      let took = 0;
      for (const { stream, sink } of this.streams) took += sink.take(stream).length;
      if (took === 0 && !this.clock.turn()) break;
    }
    let alive = 0;
    for (const { sink, watchers } of this.streams) {
      this.counts.refusals += sink.refusals;
      this.counts.large += sink.largeCount;
      for (const watcher of watchers.values()) {
        if (watcher.ended) continue;
        alive++;
        assert.deepEqual(this.matching(watcher, watcher.next, this.store.currentRevision), [], "events are missing");
      }
    }
    assert.equal(this.hub.watcherCount, alive);
    assert.equal(this.hub.syncedCount, alive);
    assert.equal(this.hub.slowCount, 0);
    assert.equal(this.hub.streamCount, this.streams.length);
  }
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}

function isWanted({ key, end, filters }: ExpectedWatcher, change: Change): boolean {
  if (filters.includes(change.value === undefined ? 1 : 0)) return false;
  if (end === "") return change.key === key;
  return change.key >= key && (end === "\0" || change.key < end);
}

function describeChange(watcher: ExpectedWatcher, revision: number, change: Change, compactRevision: number): string {
  const what = `${change.key}=${change.value ?? "DELETED"}@${revision}`;
  if (watcher.prevKv && revision - 1 < compactRevision) return what;
  return `${what} was ${watcher.prevKv ? change.previous : undefined}`;
}

async function run(seed: number): Promise<World> {
  const clock = new VirtualClock();
  const world = new World(seed, clock, await openStore(clock));
  const { random } = world;
  for (let i = 0; i < 4; i++) world.openStream();
  for (let step = 0; step < 600; step++) {
    const what = random.below(100);
    if (what < 45) world.write();
    else if (what < 58) world.watch();
    else if (what < 63) world.cancel();
    else if (what < 80) {
      const { stream, sink } = random.pick(world.streams);
      sink.take(stream);
    } else if (what < 92) clock.turn();
    else if (what < 94) await world.compact();
    else if (what < 96) random.pick(world.streams).stream.progressTick();
    else if (what < 98) random.pick(world.streams).stream.requestProgressAll();
    else if (world.streams.length > 3 && random.chance(0.5)) world.closeStream();
    else if (world.streams.length < 8) world.openStream();
    if (step % 200 === 150) await restore(world);
  }
  world.finish();
  return world;
}

/** The member was away: the leader's snapshot has all changes, and more. */
async function restore(world: World): Promise<void> {
  const leader = await openStore(world.clock);
  const ahead = world.store.currentRevision + world.random.below(20);
  const { byRevision } = world.history;
  for (let revision = 2; revision <= ahead; revision++) {
    let changes = byRevision.get(revision);
    if (changes === undefined) {
      const key = world.key();
      const value = `snapshot-${revision}`;
      world.history.record(revision, [[key, value]], []);
      changes = byRevision.get(revision)!;
    }
    const puts = changes.flatMap(({ key, value }) => (value === undefined ? [] : [[key, value] as const]));
    const deletes = changes.flatMap(({ key, value }) => (value === undefined ? [key] : []));
    assert.equal(write(leader, puts, deletes), revision);
  }
  if (world.store.compactRevision > 0) await settled(world.clock, leader.compact(world.store.compactRevision));
  await settled(world.clock, world.store.replaceBackend(leader.backend));
  world.counts.restored++;
}

describe("on any history, with slow clients, compactions, cancellations and snapshots, every watcher", () => {
  const totals = {
    events: 0,
    refusals: 0,
    compacted: 0,
    progress: 0,
    streamProgress: 0,
    cancelled: 0,
    restored: 0,
    previous: 0,
    large: 0,
  };
  const seeds = Number(process.env["KVORUM_WATCH_SEEDS"] ?? rounds(60));

  it("gets its events in order, once, complete and all of them", async () => {
    for (let seed = 1; seed <= seeds; seed++) {
      try {
        const { counts } = await run(seed);
        for (const name of Object.keys(totals) as (keyof typeof totals)[]) totals[name] += counts[name];
      } catch (error) {
        throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
      }
    }
  });

  it("was tested in every intended situation", () => {
    for (const [name, count] of Object.entries(totals)) assert.ok(count > rounds(20), `${name}: ${count}`);
  });
});
