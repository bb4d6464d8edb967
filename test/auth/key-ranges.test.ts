import assert from "node:assert/strict";
import { test } from "node:test";
import { KeyRanges } from "../../src/auth/key-ranges.ts";
import { seeded } from "../harness/random.ts";

test("a range is in the set when ranges that touch cover it together", () => {
  const ranges = new KeyRanges([
    { start: "c", end: "e" },
    { start: "a", end: "c" },
    { start: "x", end: "" },
  ]);
  assert.equal(ranges.hasRange("a", "e"), true);
  assert.equal(ranges.hasRange("b", "d"), true);
  assert.equal(ranges.hasRange("a", "f"), false);
  assert.equal(ranges.hasRange("d", "y"), false);
  assert.equal(ranges.hasRange("y", ""), true);
  assert.equal(ranges.hasRange("a", ""), false);
  assert.equal(ranges.hasKey("e"), false);
  assert.equal(ranges.hasKey("zzz"), true);
});

test("an empty set contains nothing, and a range that ends before it starts adds nothing", () => {
  assert.equal(new KeyRanges([]).hasKey("a"), false);
  assert.equal(new KeyRanges([{ start: "b", end: "a" }]).hasKey("b"), false);
});

test("a lookup gives the same as checking each range", () => {
  const random = seeded(7);
  const key = (): string => String.fromCharCode(97 + random.below(8)) + "ab".slice(random.below(3));
  for (let round = 0; round < 300; round++) {
    const given = Array.from({ length: random.below(6) }, () => ({
      start: key(),
      end: random.chance(0.1) ? "" : key(),
    }));
    const ranges = new KeyRanges(given);
    const has = (k: string): boolean => given.some(({ start, end }) => start <= k && (end === "" || k < end));
    for (let i = 0; i < 20; i++) {
      const asked = key();
      assert.equal(ranges.hasKey(asked), has(asked), `${asked} in ${JSON.stringify(given)}`);
      const end = key();
      if (asked >= end) continue;
      // If all points of possible change are covered, so is everything between them.
      const points = [asked, ...given.flatMap(({ start, end: e }) => [start, e])].filter((p) => p >= asked && p < end);
      assert.equal(ranges.hasRange(asked, end), points.every(has), `${asked}..${end} in ${JSON.stringify(given)}`);
    }
  }
});
