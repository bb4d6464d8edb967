import assert from "node:assert/strict";
import { test } from "node:test";
import { SliceBudget } from "../../../src/base/slice-budget.ts";
import { allSlices } from "../../../src/base/slices.ts";
import { PutRequest, RequestOp, TxnRequest } from "../../../src/proto/etcdserverpb.ts";
import { checkOverlap } from "../../../src/server/log/txn-overlap.ts";
import { seeded } from "../../harness/random.ts";

const put = (key: string): RequestOp => RequestOp.create({ requestPut: PutRequest.create({ key: Buffer.from(key) }) });
const isRefused = (success: RequestOp[], failure: RequestOp[] = []): boolean =>
  allSlices(checkOverlap(TxnRequest.create({ success, failure }), new SliceBudget(1000, 1e6))) !== null;

test("keys that ascend are taken, and one that comes twice is not, wherever it stands", () => {
  const long = "x".repeat(100);
  for (const [keys, expected] of [
    [["a", "b", "c"], false],
    [["c", "b", "a"], false],
    [["a", "a"], true],
    [["a", "b", "a"], true],
    [["a", "aa", "aaa"], false],
    [[`${long}a`, `${long}b`, long], false],
    [[long, `${long}a`, `${long}a`], true],
    [["b", "c", "a", "d", "c"], true],
    [["ÿ", "a", "ÿ"], true],
  ] as const) {
    assert.equal(isRefused(keys.map(put)), expected, keys.join());
    assert.equal(isRefused([put("z")], keys.map(put)), expected, `${keys.join()} as the other branch`);
  }
});

test("puts in any order are refused exactly when a key repeats", () => {
  const random = seeded(1);
  let refused = 0;
  for (let round = 0; round < 2000; round++) {
    const keys = Array.from({ length: 1 + random.below(6) }, () => `k${random.below(12)}`);
    if (random.chance(0.5)) keys.sort();
    const expected = new Set(keys).size < keys.length;
    assert.equal(isRefused(keys.map(put)), expected, keys.join());
    if (expected) refused++;
  }
  assert.ok(refused > 300 && refused < 1700, `${refused}`);
});
