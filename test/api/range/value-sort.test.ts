import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { digitsOf, sortByValue } from "../../../src/api/range/value-sort.ts";
import { SliceBudget } from "../../../src/base/slice-budget.ts";
import { seeded } from "../../harness/random.ts";

interface Sorted {
  readonly order: readonly number[];
  readonly reads: number;
  readonly slices: number;
  /** Maximum number of reads between two slices. */
  readonly longest: number;
}

function sorted(values: readonly Buffer[], sign: 1 | -1): Sorted {
  let reads = 0;
  let before = 0;
  let longest = 0;
  let slices = 0;
  // One view for all, as in the store.
  const view = Buffer.alloc(Math.max(...values.map(({ length }) => length)));
  const rows = {
    length: values.length,
    by: Float64Array.from(values, (value) => digitsOf(value, 0)),
    value(row: number): Uint8Array {
      reads++;
      return view.subarray(0, values[row]!.copy(view));
    },
  };
  const sort = sortByValue(rows, sign, new SliceBudget(100, 1_000_000));
  for (;;) {
    const { done, value } = sort.next();
    longest = Math.max(longest, reads - before);
    before = reads;
    slices++;
    if (done === true) return { order: [...value], reads, slices, longest };
  }
}

const expected = (values: readonly Buffer[], sign: 1 | -1): number[] =>
  values.map((_, i) => i).sort((a, b) => sign * Buffer.compare(values[a]!, values[b]!) || a - b);

function agrees(values: readonly Buffer[]): void {
  for (const sign of [1, -1] as const) assert.deepEqual(sorted(values, sign).order, expected(values, sign));
}

describe("rows sorted by their values", () => {
  test("are in byte order, whatever their beginning, and equal ones stay in place", () => {
    const random = seeded(7);
    const pick = (most: number): number => random.below(most);
    for (let round = 0; round < 300; round++) {
      const bytes = 1 + pick(3);
      const beginning = Buffer.alloc(pick(20), pick(2));
      const values = Array.from({ length: 1 + pick(400) }, () =>
        Buffer.concat([beginning, Buffer.from(Array.from({ length: pick(14) }, () => pick(bytes)))]),
      );
      agrees(values);
    }
  });

  test("are compared to their ends: one that ends comes before one that continues with zeros", () => {
    agrees([3, 0, 8, 7, 6, 5, 12, 13, 1, 6, 8].map((length) => Buffer.alloc(length)));
  });

  test("are read at most three times where they share a prefix, equal or not", () => {
    const alike = Array.from({ length: 5000 }, (_, i) => Buffer.from(`${"x".repeat(300)}${(i * 7919) % 5000}`));
    const { order, reads, longest } = sorted(alike, 1);
    assert.deepEqual(order, expected(alike, 1));
    assert.ok(reads <= 3 * alike.length, `${reads} reads`);
    assert.ok(longest <= 110, `${longest} reads in one slice`);
    const equal = Array.from({ length: 5000 }, () => Buffer.alloc(300, "x"));
    assert.ok(sorted(equal, 1).reads <= 5000);
  });

  test("take no longer than comparing them, where each read distinguishes only one of them", () => {
    const values = Array.from({ length: 600 }, (_, i) => Buffer.alloc(7 * (600 - i), "x"));
    const { order, reads, longest } = sorted(values, -1);
    assert.deepEqual(order, expected(values, -1));
    assert.ok(reads <= 8 * 2 * 600 + 2 * 600 * Math.log2(600), `${reads} reads`);
    assert.ok(longest <= 130, `${longest} reads in one slice`);
  });

  test("are in order with a longer common prefix than is held of one", () => {
    const values = Array.from({ length: 12 }, (_, i) => Buffer.alloc(70_000 + ((i * 5) % 12), "y"));
    agrees(values);
  });
});
