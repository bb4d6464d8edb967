import assert from "node:assert/strict";
import { test } from "node:test";
import { Allowance } from "../../src/base/allowance.ts";

test("what fits is granted at once, and the rest in the order of the claims", () => {
  const log: string[] = [];
  const allowance = new Allowance(10);
  const a = allowance.claim(6, () => log.push("a"));
  const b = allowance.claim(5, () => log.push("b"));
  const c = allowance.claim(1, () => log.push("c"));
  assert.deepEqual([a.granted, b.granted, c.granted], [true, false, false], "nobody overtakes who waits");
  a.release();
  a.release();
  assert.deepEqual(log, ["b", "c"]);
  assert.equal(allowance.taken, 6);
});

test("a claim larger than the total is granted alone", () => {
  const log: string[] = [];
  const allowance = new Allowance(10);
  const small = allowance.claim(1, () => {});
  const huge = allowance.claim(100, () => log.push("huge"));
  assert.equal(huge.granted, false);
  small.release();
  assert.deepEqual(log, ["huge"]);
  assert.equal(allowance.claim(1, () => {}).granted, false);
});

test("a claim that no longer waits is skipped, and makes room for those behind", () => {
  const log: string[] = [];
  const allowance = new Allowance(10);
  const first = allowance.claim(10, () => {});
  const waiting = allowance.claim(10, () => log.push("waiting"));
  allowance.claim(5, () => log.push("last"));
  waiting.release();
  first.release();
  assert.deepEqual(log, ["last"]);
});
