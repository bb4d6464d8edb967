import assert from "node:assert/strict";
import { test } from "node:test";
import { SliceSort } from "../../src/base/slice-sort.ts";

function sorted(keys: readonly number[]): number[] {
  const sort = new SliceSort(keys.length, (a, b) => keys[a]! - keys[b]!);
  for (let steps = 0; !sort.step(); steps++) assert.ok(steps < 10_000);
  return [...sort.order];
}

test("lists of every length around the runs are sorted as by a stable sort", () => {
  for (const length of [0, 1, 2, 1023, 1024, 1025, 2048, 2049, 3000, 5000, 8192, 8193, 20_000]) {
    const keys = Array.from({ length }, (_, i) => (i * 7919) % 101);
    const expected = keys.map((_, i) => i).sort((a, b) => keys[a]! - keys[b]! || a - b);
    assert.deepEqual(sorted(keys), expected, `length ${length}`);
  }
});

test("no step compares more than a bounded number of elements", () => {
  let comparisons = 0;
  let most = 0;
  const sort = new SliceSort(100_000, (a, b) => {
    comparisons++;
    return ((a * 7919) % 99_991) - ((b * 7919) % 99_991);
  });
  while (!sort.step()) {
    most = Math.max(most, comparisons);
    comparisons = 0;
  }
  assert.ok(most < 20_000, `${most} comparisons in one step`);
});
