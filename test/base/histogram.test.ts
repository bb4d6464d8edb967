import assert from "node:assert/strict";
import test from "node:test";
import { Histogram } from "../../src/base/histogram.ts";

test("a value counts in the first bucket whose bound it does not exceed", () => {
  const histogram = new Histogram([1, 2, 4]);
  for (const value of [0.5, 1, 1.5, 2, 4, 4.1, 100]) histogram.observe(value);
  assert.deepEqual(histogram.counts, [2, 2, 1, 2]);
  assert.equal(histogram.count, 7);
  assert.equal(histogram.sum, 113.1);
});

test("a histogram without bounds counts everything in its one bucket", () => {
  const histogram = new Histogram([]);
  histogram.observe(3);
  histogram.observe(-3);
  assert.deepEqual([histogram.counts, histogram.count, histogram.sum], [[2], 2, 0]);
});
