import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantError } from "../../../src/base/fatal.ts";
import { KeyIndex } from "../../../src/mvcc/index/key-index.ts";
import { revisionInfo } from "../../../src/mvcc/index/packed-revision.ts";
import { type Change, fromByteString, toByteString } from "../../../src/mvcc/model/types.ts";
import { slow } from "../../harness/fast.ts";
import { SeededRandom } from "../model.ts";

interface ModelRevision {
  readonly main: number;
  readonly sub: number;
  readonly version: number;
  readonly created: number;
}

/** The index as a sorted map of plain arrays, beside the real one: every change is made to both. */
class Pair {
  readonly index: KeyIndex;
  readonly model = new Map<string, ModelRevision[]>();
  /** For counts that exclude a transaction of many turns. */
  before: ReadonlyMap<string, boolean> | null = null;
  main = 1;
  readonly #out = revisionInfo();

  constructor(seed: number) {
    this.index = new KeyIndex(BigInt(seed));
  }

  isLive(key: string): boolean {
    return (this.model.get(key)?.at(-1)?.version ?? 0) !== 0;
  }

  put(key: string, main: number, sub: number): number {
    const { index, model } = this;
    const bytes = fromByteString(`${key}-`);
    let id = index.find(bytes, 0, key.length);
    const last = model.get(key)?.at(-1);
    assert.equal(id !== 0, last !== undefined);
    const version = (last?.version ?? 0) + 1;
    const created = version === 1 ? main : last!.created;
    if (id === 0) id = index.insert(bytes, 0, key.length, main, sub, 1, main);
    else assert.equal(index.put(id, main, sub), version);
    model.set(key, [...(model.get(key) ?? []), { main, sub, version, created }]);
    return id;
  }

  tombstone(key: string, main: number, sub: number): number {
    const id = this.index.find(fromByteString(key));
    this.index.tombstone(id, main, sub);
    this.model.get(key)!.push({ main, sub, version: 0, created: 0 });
    return id;
  }

  /** Deletes keys that follow each other, as the deletion of a range does, with puts between now and then. */
  deleteRun(random: SeededRandom, keyOf: () => string): void {
    const sorted = [...this.model.keys()].sort();
    const from = random.below(sorted.length);
    for (const key of sorted.slice(from, from + random.below(300))) {
      if (this.isLive(key)) this.tombstone(key, ++this.main, 0);
      if (random.below(10) === 0) this.put(keyOf(), ++this.main, 0);
    }
  }

  compact(at: number): void {
    const { index, model } = this;
    index.beginCompaction();
    const dead: number[] = [];
    index.visit(Buffer.alloc(0), null, (id) => {
      const key = index.key(id);
      const revisions = model.get(key)!;
      const seen = revisions.findLastIndex(({ main }) => main <= at);
      const keepsSeen = seen >= 0 && (revisions[seen]!.version !== 0 || revisions[seen]!.main === at);
      const left = revisions.slice(keepsSeen ? seen : seen + 1);
      assert.equal(index.compact(id, at, this.#out), left.length > 0, key);
      if (keepsSeen) assert.deepEqual({ ...this.#out }, revisions[seen]);
      else assert.equal(this.#out.main, 0);
      if (left.length > 0) model.set(key, left);
      else {
        model.delete(key);
        dead.push(id);
      }
      return true;
    });
    for (const id of dead) index.remove(id);
    for (let n = 0; index.tidy(100); n++) assert.ok(n < 1e5, "tidying comes to an end");
  }

  /** What a read sees; undefined for nothing. */
  #modelRead(key: string, main: number, sub: number): ModelRevision | undefined {
    const found = this.model.get(key)?.findLast((r) => r.main < main || (r.main === main && r.sub < sub));
    return found === undefined || found.version === 0 ? undefined : found;
  }

  compare(random: SeededRandom, keyOf: () => string): void {
    const { index, model } = this;
    const out = this.#out;
    const sorted = [...model.keys()].sort();
    const live = sorted.filter((key) => this.isLive(key));
    const liveBefore = this.before === null ? live : [...this.before].filter(([, is]) => is).map(([key]) => key);
    assert.equal(index.size, sorted.length);
    assert.equal(index.liveCount, liveBefore.length);
    const seen: string[] = [];
    index.visit(Buffer.alloc(0), null, (id) => seen.push(index.key(id)) > 0);
    assert.deepEqual(seen, sorted);
    for (let i = 0; i < 60; i++) {
      const some = (): string => (random.below(2) === 0 || sorted.length === 0 ? keyOf() : random.pick(sorted));
      const start = some();
      const end = random.below(5) === 0 ? null : some();
      const [startBytes, endBytes] = [fromByteString(start), end === null ? null : fromByteString(end)];
      const within = (key: string): boolean => key >= start && (end === null || key < end);
      const expected = sorted.filter(within);
      assert.equal(index.countLive(startBytes, endBytes), liveBefore.filter(within).length);
      assert.equal(index.countLiveInside(startBytes, endBytes), live.filter(within).length);
      const limit = 1 + random.below(300);
      const ascending: string[] = [];
      index.visit(startBytes, endBytes, (id) => ascending.push(index.key(id)) < limit);
      assert.deepEqual(ascending, expected.slice(0, limit));
      const descending: string[] = [];
      index.visitDescending(startBytes, endBytes, (id) => descending.push(index.key(id)) < limit);
      assert.deepEqual(descending, expected.toReversed().slice(0, limit));
      const existing: string[] = [];
      index.visitLive(startBytes, endBytes, (id) => existing.push(index.key(id)) < limit);
      assert.deepEqual(existing, live.filter(within).slice(0, limit));

      const key = some();
      const id = index.find(fromByteString(key));
      assert.equal(id !== 0, model.has(key));
      if (id === 0) continue;
      const at = 1 + random.below(this.main + 2);
      const sub = random.below(4);
      assert.deepEqual(index.readAt(id, at, out) ? { ...out } : undefined, this.#modelRead(key, at, 2 ** 32));
      assert.deepEqual(index.readBefore(id, at, sub, out) ? { ...out } : undefined, this.#modelRead(key, at, sub));
    }
  }
}

const LONG = "x".repeat(300);
const shapes: Record<string, (random: SeededRandom, i: number) => string> = {
  "random keys": (random) => String(random.below(20_000)),
  "ascending keys": (_random, i) => String(i).padStart(8, "0"),
  "runs of ascending keys": (_random, i) => `${(i >> 4) % 5}/${String(i).padStart(8, "0")}`,
  "descending keys": (_random, i) => String(1e8 - i),
  "keys of one long prefix": (random) => `/registry/pods/default/${random.below(20_000)}`,
  "arbitrary bytes": (random) =>
    String.fromCharCode(...Array.from({ length: random.below(5) }, () => random.below(256))),
  "keys of 250 to 300 bytes": (random) => LONG.slice(0, 250 + random.below(50)) + String(random.below(20)),
};

for (const [name, keyOf] of Object.entries(shapes)) {
  test(`the index is a sorted map of revisions for ${name}, through compactions`, () => {
    const random = new SeededRandom(name.length);
    const pair = new Pair(random.below(2 ** 32));
    const someKey = (): string => keyOf(random, 1 + random.below(pair.main));
    // Grows, shrinks to almost nothing, and grows again.
    for (const [steps, putPart] of [
      [5000, 85],
      [3000, 30],
      [2000, 85],
    ] as const) {
      for (let step = 0; step < steps; step++) {
        const main = ++pair.main;
        const key = keyOf(random, main);
        if (random.below(100) < putPart || !pair.isLive(key)) pair.put(key, main, random.below(3));
        else pair.tombstone(key, main, random.below(3));
        if (random.below(500) === 0) pair.deleteRun(random, someKey);
        if (random.below(2000) === 0) pair.compact(1 + random.below(main));
      }
      pair.compare(random, someKey);
      if (putPart >= 50) continue;
      // Removes nearly everything.
      for (const key of [...pair.model.keys()]) {
        if (pair.isLive(key) && random.below(50) > 0) pair.tombstone(key, ++pair.main, 0);
      }
      pair.compact(pair.main + 1);
      pair.compare(random, someKey);
    }
  });
}

test("a key with thousands of revisions is read and compacted like one with few", slow, () => {
  const random = new SeededRandom(8);
  const pair = new Pair(1);
  const keyOf = (): string => random.pick(["a", "b", "c"]);
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 4000; i++) {
      const key = keyOf();
      const main = pair.main + random.below(2);
      const last = pair.model.get(key)?.at(-1);
      const sub = last?.main === main ? last.sub + 1 : 0;
      pair.main = main;
      if (pair.isLive(key) && random.below(10) === 0) pair.tombstone(key, main, sub);
      else pair.put(key, main, sub);
    }
    for (let i = 0; i < 20; i++) pair.compare(random, keyOf);
    if (round < 3) pair.compact(Math.floor(pair.main * [0.3, 0.6, 1][round]!));
    for (let i = 0; i < 20; i++) pair.compare(random, keyOf);
  }
});

test("counts exclude a transaction of many turns until it ends, whatever it puts and deletes", slow, () => {
  const random = new SeededRandom(4);
  const pair = new Pair(9);
  const { index } = pair;
  const keyOf = (): string => `k${random.below(800)}`;
  for (let i = 0; i < 600; i++) pair.put(keyOf(), ++pair.main, 0);
  for (let round = 0; round < 5; round++) {
    const main = ++pair.main;
    pair.before = new Map([...pair.model.keys()].map((key) => [key, pair.isLive(key)]));
    const long = index.beginLong(main);
    const expected: [string, boolean][] = [];
    for (let sub = 0; sub < 500; sub++) {
      const key = keyOf();
      if (pair.isLive(key) && random.below(2) === 0) {
        long.addTombstone(pair.tombstone(key, main, sub));
        expected.push([key, true]);
      } else {
        const isBirth = !pair.isLive(key);
        long.addPut(pair.put(key, main, sub), { key, tombstone: false } as Change, isBirth);
        expected.push([key, false]);
      }
      if (sub % 100 === 0) pair.compare(random, keyOf);
    }
    assert.equal(index.tidy(100), false);
    pair.compare(random, keyOf);
    const changes = expected.map((_, i) => [long.at(i).key, long.at(i).tombstone]);
    assert.deepEqual(changes, expected);
    index.endLong();
    pair.before = null;
    pair.compare(random, keyOf);
    if (round === 2) pair.compact(pair.main);
  }
});

test("memory of removed keys and compacted revisions is given back", slow, () => {
  const index = new KeyIndex(1n);
  const out = revisionInfo();
  const bytesOf = (i: number): Buffer => Buffer.from(`/registry/events/${i}`);
  const compact = (at: number): void => {
    index.beginCompaction();
    const dead: number[] = [];
    index.visit(Buffer.alloc(0), null, (id) => {
      if (!index.compact(id, at, out)) dead.push(id);
      return true;
    });
    for (const id of dead) index.remove(id);
    while (index.tidy(1000));
  };
  const COUNT = 100_000;
  for (let i = 0; i < COUNT; i++) {
    assert.equal(index.find(bytesOf(i)), 0);
    index.insert(bytesOf(i), 0, bytesOf(i).length, 2 + i, 0, 1, 2 + i);
  }
  const full = index.allocatedBytes;
  let main = COUNT + 2;
  for (let i = 0; i < COUNT; i++) index.put(index.find(bytesOf(i)), ++main, 0);
  assert.ok(index.allocatedBytes > full + 24 * COUNT);
  compact(main);
  assert.ok(index.allocatedBytes <= full + 2 ** 20, "compacted revisions");
  // One key in ten stays, so that no chunk of memory becomes empty by itself.
  for (let i = 0; i < COUNT; i++) if (i % 10 > 0) index.tombstone(index.find(bytesOf(i)), ++main, 0);
  compact(main + 1);
  assert.equal(index.size, COUNT / 10);
  assert.ok(index.allocatedBytes < full / 5, `${index.allocatedBytes} bytes of ${full}`);
  for (let i = 0; i < COUNT; i++) assert.equal(index.find(bytesOf(i)) !== 0, i % 10 === 0);
});

test("a revision that is not above the last one, or a second tombstone, breaks an invariant", () => {
  const index = new KeyIndex(1n);
  assert.equal(index.find(Buffer.from("foo")), 0);
  const id = index.insert(Buffer.from("foo"), 0, 3, 14, 0, 1, 14);
  assert.throws(() => index.put(id, 14, 0), InvariantError);
  assert.throws(() => index.put(id, 13, 9), InvariantError);
  index.tombstone(id, 14, 1);
  assert.throws(() => index.tombstone(id, 15, 0), InvariantError);
});

test("byte strings order as bytes do", () => {
  const random = new SeededRandom(3);
  const keys = Array.from({ length: 500 }, () =>
    Buffer.from(Array.from({ length: random.below(6) }, () => random.below(256))),
  );
  const byBytes = [...keys].sort(Buffer.compare).map(toByteString);
  assert.deepEqual(keys.map(toByteString).sort(), byBytes);
  for (const key of keys) assert.ok(fromByteString(toByteString(key)).equals(key));
});
