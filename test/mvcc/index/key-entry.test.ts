import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantError } from "../../../src/base/fatal.ts";
import { KeyEntry, revisionInfo } from "../../../src/mvcc/index/key-entry.ts";

/** put(2) put(4) tombstone(6) put(8.1) put(10) tombstone(12) put(14) */
function history(): KeyEntry {
  const entry = new KeyEntry("foo", 2, 0, 1, 2);
  entry.put(4, 0);
  entry.tombstone(6, 0);
  entry.put(8, 1);
  entry.put(10, 0);
  entry.tombstone(12, 0);
  entry.put(14, 0);
  return entry;
}

function read(entry: KeyEntry, at: number): string | undefined {
  const out = revisionInfo();
  return entry.readAt(at, out) ? `${out.main}.${out.sub} v${out.version} since ${out.created}` : undefined;
}

test("a read sees the latest revision at or below it, and nothing while the key is deleted", () => {
  const entry = history();
  assert.deepEqual(
    Array.from({ length: 16 }, (_, at) => read(entry, at)),
    [
      undefined,
      undefined,
      "2.0 v1 since 2",
      "2.0 v1 since 2",
      "4.0 v2 since 2",
      "4.0 v2 since 2",
      undefined,
      undefined,
      "8.1 v1 since 8",
      "8.1 v1 since 8",
      "10.0 v2 since 8",
      "10.0 v2 since 8",
      undefined,
      undefined,
      "14.0 v1 since 14",
      "14.0 v1 since 14",
    ],
  );
});

test("compaction keeps what a read at the revision sees, a tombstone only exactly there, and everything above", () => {
  for (const [at, kept] of [
    [1, undefined],
    [2, "2.0"],
    [3, "2.0"],
    [5, "4.0"],
    [6, "6.0"],
    [7, undefined],
    [8, "8.1"],
    [11, "10.0"],
    [12, "12.0"],
    [13, undefined],
    [20, "14.0"],
  ] as const) {
    const entry = history();
    const before = Array.from({ length: 16 }, (_, i) => read(entry, i));
    const out = revisionInfo();
    assert.equal(entry.compact(at, out) ? `${out.main}.${out.sub}` : undefined, kept, `compact at ${at}`);
    for (let i = at; i < 16; i++) assert.equal(read(entry, i), before[i], `compact at ${at}, read at ${i}`);
  }
});

test("compaction above the last tombstone leaves nothing of the key", () => {
  const entry = new KeyEntry("foo", 2, 0, 1, 2);
  entry.tombstone(5, 0);
  const out = revisionInfo();
  assert.equal(entry.compact(5, out), true);
  assert.equal(entry.main, 5);
  assert.equal(entry.compact(6, out), false);
  assert.equal(entry.main, 0);
});

test("a revision that is not above the last one, or a second tombstone, breaks an invariant", () => {
  const entry = history();
  assert.throws(() => entry.put(14, 0), InvariantError);
  assert.throws(() => entry.put(13, 9), InvariantError);
  entry.tombstone(14, 1);
  assert.throws(() => entry.tombstone(15, 0), InvariantError);
});
