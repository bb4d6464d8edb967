import assert from "node:assert/strict";
import { test } from "node:test";
import { goSort } from "../../src/base/go-sort.ts";
import { seeded } from "../harness/random.ts";

interface Item {
  readonly key: number;
  readonly id: number;
}

function sorted(keys: readonly number[]): Item[] {
  const items = keys.map((key, id) => ({ key, id }));
  goSort(items, (a, b) => a.key < b.key);
  return items;
}

const digest = (items: readonly Item[]): number => items.reduce((sum, { id }) => (Math.imul(sum, 31) + id) >>> 0, 17);

test("everything is there and in order, whatever the order before", () => {
  const random = seeded(3);
  for (let round = 0; round < 300; round++) {
    const length = random.below(300);
    const keys = Array.from({ length }, () => random.below(1 + random.below(2 * length)));
    if (round % 3 === 1) keys.sort((a, b) => a - b);
    if (round % 3 === 2) keys.sort((a, b) => b - a);
    const items = sorted(keys);
    assert.deepEqual(
      items.map(({ key }) => key),
      [...keys].sort((a, b) => a - b),
    );
    assert.equal(new Set(items.map(({ id }) => id)).size, length);
  }
});

test("equal elements are left in Go's order", () => {
  // The digests are those of Go 1.26's sort.Sort.
  const cases: [length: number, keyOf: (i: number) => number, digest: number][] = [
    [14, (i) => (i === 13 ? 0 : i >> 1), 121762124],
    [60, (i) => (i * 7) % 10, 2112711613],
    [200, (i) => (i % 2 === 1 ? i : 200 - i), 4046063917],
    [300, (i) => (i < 150 ? i : 300 - i), 144209909],
  ];
  for (const [length, keyOf, expected] of cases) {
    assert.equal(digest(sorted(Array.from({ length }, (_, i) => keyOf(i)))), expected);
  }
});
