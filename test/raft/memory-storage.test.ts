import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantError } from "../../src/base/fatal.ts";
import { ConfState, type Entry, type Snapshot } from "../../src/proto/raftpb.ts";
import { entrySize, NO_LIMIT } from "../../src/raft/entry-size.ts";
import { ErrCompacted, ErrSnapOutOfDate, ErrUnavailable } from "../../src/raft/errors.ts";
import { MemoryStorage } from "../../src/raft/memory-storage.ts";

function entry(index: number, term: number): Entry {
  return { type: 0, term, index, data: Buffer.from(`entry ${index}`) };
}

function snapshot(index: number, term: number): Snapshot {
  return { data: Buffer.alloc(0), metadata: { confState: ConfState.create({ voters: [1n] }), index, term } };
}

/** Entries 4 to 6 after a snapshot at 3, of terms 3 to 6. */
function newStorage(): MemoryStorage {
  const storage = new MemoryStorage();
  storage.applySnapshot(snapshot(3, 3));
  storage.append([entry(4, 4), entry(5, 5), entry(6, 6)]);
  return storage;
}

function terms(storage: MemoryStorage): number[] {
  const [first, last] = [storage.firstIndex(), storage.lastIndex()];
  return last < first ? [] : storage.entries(first, last + 1, NO_LIMIT).map(({ term }) => term);
}

test("terms are known from the entry before the first one on", () => {
  const storage = newStorage();
  assert.throws(() => storage.term(2), ErrCompacted);
  assert.deepEqual(
    [3, 4, 5, 6].map((index) => storage.term(index)),
    [3, 4, 5, 6],
  );
  assert.throws(() => storage.term(7), ErrUnavailable);
});

test("entries are cut at the limit in bytes, but there is always one", () => {
  const storage = newStorage();
  const size = entrySize(entry(4, 4));
  const count = (bytesMax: number) => storage.entries(4, 7, bytesMax).length;
  assert.deepEqual(
    [0, size, 2 * size - 1, 2 * size, 3 * size - 1, 3 * size, NO_LIMIT].map(count),
    [1, 1, 1, 2, 2, 3, 3],
  );
  assert.throws(() => storage.entries(3, 5, NO_LIMIT), ErrCompacted);
  assert.throws(() => storage.entries(4, 8, NO_LIMIT), InvariantError);
});

test("appending replaces what follows, skips compacted entries, and leaves no gap", () => {
  const storage = newStorage();
  storage.append([entry(5, 7)]);
  assert.deepEqual(terms(storage), [4, 7]);
  storage.append([entry(2, 1), entry(3, 3), entry(4, 8)]);
  assert.deepEqual(terms(storage), [8]);
  storage.append([entry(1, 1)]);
  assert.deepEqual(terms(storage), [8]);
  storage.append([entry(5, 9), entry(6, 9)]);
  assert.deepEqual(terms(storage), [8, 9, 9]);
  assert.throws(() => storage.append([entry(8, 9)]), InvariantError);
});

test("the result of entries() does not change when the log changes", () => {
  const storage = newStorage();
  const held = storage.entries(4, 7, NO_LIMIT);
  storage.append([entry(5, 7)]);
  storage.compact(4);
  assert.deepEqual(
    held.map(({ term }) => term),
    [4, 5, 6],
  );
});

test("compaction drops entries up to an index and keeps its term", () => {
  const storage = newStorage();
  storage.compact(5);
  assert.equal(storage.firstIndex(), 6);
  assert.equal(storage.term(5), 5);
  assert.deepEqual(terms(storage), [6]);
  assert.throws(() => storage.compact(5), ErrCompacted);
  assert.throws(() => storage.compact(7), InvariantError);
  storage.compact(6);
  assert.deepEqual([storage.firstIndex(), storage.lastIndex()], [7, 6]);
});

test("a snapshot is made at any index held, and only forward", () => {
  const storage = newStorage();
  const confState = ConfState.create({ voters: [1n, 2n] });
  const made = storage.createSnapshot(5, confState, Buffer.from("state"));
  assert.deepEqual(made.metadata, { confState, index: 5, term: 5 });
  assert.equal(storage.firstIndex(), 4, "the log is not compacted by it");
  assert.throws(() => storage.createSnapshot(5, undefined, Buffer.alloc(0)), ErrSnapOutOfDate);
  assert.deepEqual(storage.createSnapshot(6, undefined, Buffer.alloc(0)).metadata!.confState, confState);
  assert.equal(made.metadata!.index, 5, "a snapshot handed out does not change");
});

test("an older snapshot is not applied; a newer one replaces the log", () => {
  const storage = newStorage();
  assert.throws(() => storage.applySnapshot(snapshot(3, 3)), ErrSnapOutOfDate);
  storage.applySnapshot(snapshot(9, 8));
  assert.deepEqual([storage.firstIndex(), storage.lastIndex(), storage.term(9)], [10, 9, 8]);
  assert.deepEqual(storage.initialState().confState.voters, [1n]);
});

test("a long log that is trimmed continuously stays correct", () => {
  const storage = new MemoryStorage();
  for (let index = 1; index <= 5000; index++) {
    storage.append([entry(index, index)]);
    if (index > 100) storage.compact(index - 100);
    assert.equal(storage.term(index), index);
    assert.equal(storage.term(Math.max(0, index - 100)), Math.max(0, index - 100));
  }
  assert.equal(storage.entries(4901, 5001, NO_LIMIT).length, 100);
});
