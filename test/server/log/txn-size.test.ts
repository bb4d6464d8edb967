import assert from "node:assert/strict";
import { test } from "node:test";
import { Compare, PutRequest, RequestOp, TxnRequest } from "../../../src/proto/etcdserverpb.ts";
import { NESTED_OPS_MAX } from "../../../src/server/log/check.ts";
import { hasTooManyOps } from "../../../src/server/log/txn-size.ts";

const OPS_MAX = 128;
const put = (i: number): RequestOp =>
  RequestOp.create({ requestPut: PutRequest.create({ key: Buffer.from(`key ${i}`), value: Buffer.from("value") }) });
const puts = (count: number): RequestOp[] => Array.from({ length: count }, (_, i) => put(i));
const nested = (request: TxnRequest): RequestOp => RequestOp.create({ requestTxn: request });
const isTooMany = (request: TxnRequest): boolean => hasTooManyOps(TxnRequest.encode(request), OPS_MAX);

test("operations and comparisons of all levels count", () => {
  const half = NESTED_OPS_MAX / 2;
  assert.ok(!isTooMany(TxnRequest.create({ success: puts(NESTED_OPS_MAX) })));
  assert.ok(isTooMany(TxnRequest.create({ success: puts(NESTED_OPS_MAX + 1) })));
  assert.ok(isTooMany(TxnRequest.create({ success: puts(half), failure: puts(half + 1) })));
  const inner = TxnRequest.create({
    success: puts(half),
    compare: Array.from({ length: half }, () => Compare.create()),
  });
  assert.ok(isTooMany(TxnRequest.create({ success: [nested(inner)] })), "the nesting one counts, too");
  assert.ok(!isTooMany(TxnRequest.create({ success: [nested(TxnRequest.create({ success: puts(half) }))] })));
  const deep = TxnRequest.create({ failure: [nested(TxnRequest.create({ failure: [nested(inner)] }))] });
  assert.ok(isTooMany(deep));
});

test("a limit for one level that is larger allows more on all", () => {
  const bytes = TxnRequest.encode(TxnRequest.create({ success: puts(NESTED_OPS_MAX + 1) }));
  assert.ok(!hasTooManyOps(bytes, NESTED_OPS_MAX));
});

test("two megabytes of empty operations are detected without examining all of them", () => {
  assert.ok(hasTooManyOps(Buffer.alloc(2 * 1024 * 1024, Buffer.from([0x12, 0])), OPS_MAX));
});

test("malformed input is left to the decoder", () => {
  assert.ok(!hasTooManyOps(Buffer.alloc(100_000, 0xff), OPS_MAX));
  assert.ok(!hasTooManyOps(Buffer.alloc(0), OPS_MAX));
});
