import assert from "node:assert/strict";
import { test } from "node:test";
import { ProtobufError } from "../../../src/base/protobuf.ts";
import { SliceBudget } from "../../../src/base/slice-budget.ts";
import { allSlices, type Slices } from "../../../src/base/slices.ts";
import { InternalRaftRequest, type RequestOp, TxnRequest } from "../../../src/proto/etcdserverpb.ts";
import { decodeInternalInSlices, decodeTxnInSlices } from "../../../src/server/log/txn-decode.ts";
import { holdsLongTxn, isLongTxn } from "../../../src/server/log/txn-size.ts";
import { type SeededRandom, seeded } from "../../harness/random.ts";
import { compare, put, putOp, range, rangeOp, removeOp, txn, txnOp } from "../requests.ts";

const smallBudget = (): SliceBudget => new SliceBudget(3, 1000);

function decoded<T>(decode: () => T): T | "refused" {
  try {
    return decode();
  } catch (error) {
    if (error instanceof ProtobufError) return "refused";
    throw error;
  }
}

const encodedAgain = (decode: () => TxnRequest): string => {
  const request = decoded(decode);
  return request === "refused" ? request : TxnRequest.encode(request).toString("latin1");
};

/** A transaction of all kinds of operations, some of them long. */
function anyTxn(random: SeededRandom, depth = 0): TxnRequest {
  const { below } = random;
  const anyOp = (): RequestOp => {
    const kind = below(depth < 4 ? 5 : 4);
    const key = `key ${below(100)}`;
    if (kind === 0) return putOp(key, "v".repeat(below(8) === 0 ? 3000 : 10));
    if (kind === 1) return rangeOp(key, "z");
    if (kind === 2) return removeOp(key);
    return kind === 3 ? rangeOp("k".repeat(below(4) === 0 ? 3000 : 1)) : txnOp(anyTxn(random, depth + 1));
  };
  const ops = (): RequestOp[] => Array.from({ length: below(depth === 0 ? 30 : 8) }, anyOp);
  const compares = Array.from({ length: below(5) }, (_, i) => compare(`key ${i}`, { version: i }));
  return txn(ops(), ops(), compares);
}

test("a transaction decoded in slices is what the generated decoder makes of it, malformed or not", () => {
  let refused = 0;
  for (let seed = 1; seed <= 100; seed++) {
    const random = seeded(seed);
    const bytes = TxnRequest.encode(anyTxn(random));
    for (let mistakes = 0; mistakes < 4; mistakes++) {
      const expected = encodedAgain(() => TxnRequest.decode(bytes));
      const actual = encodedAgain(() => allSlices(decodeTxnInSlices(bytes, smallBudget())));
      assert.equal(actual, expected, `seed ${seed}, ${mistakes} mistakes`);
      if (expected === "refused") refused++;
      if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
    }
  }
  assert.ok(refused > 10, `${refused} of 400`);
});

test("an operation that appears twice in a message is merged, and one of another kind replaces it, as generated", () => {
  const inner = TxnRequest.encode(txn(Array.from({ length: 300 }, (_, i) => putOp(`key ${i}`, "value"))));
  const field = (tag: number, bytes: Uint8Array): Buffer =>
    Buffer.concat([Buffer.from([tag, (bytes.length & 127) | 128, bytes.length >>> 7]), bytes]);
  const [nested, single] = [field(0x22, inner), field(0x12, Buffer.from([0x0a, 1, 0x61, ...Buffer.alloc(0)]))];
  for (const op of [
    [nested, nested],
    [nested, single],
    [single, nested],
    [single, single, nested, single],
  ]) {
    const message = field(0x12, Buffer.concat(op));
    assert.deepEqual(
      decoded(() => allSlices(decodeTxnInSlices(message, smallBudget()))),
      decoded(() => TxnRequest.decode(message)),
    );
  }
});

test("no slice of a long transaction reads more than its budget, however the operations nest", () => {
  const puts = Array.from({ length: 5000 }, (_, i) => putOp(`key ${i}`));
  for (const request of [txn(puts), txn([], puts), txn([txnOp(txn([txnOp(txn(puts))]))])]) {
    assert.ok(count(decodeTxnInSlices(TxnRequest.encode(request), new SliceBudget(100, 1000))) >= 50);
  }
});

test("an entry of the log with a long transaction is decoded like every entry", () => {
  const request = InternalRaftRequest.create({
    txn: txn(Array.from({ length: 600 }, (_, i) => putOp(`key ${i}`))),
    header: { id: 7n, username: "user", authRevision: 3 },
  });
  const bytes = InternalRaftRequest.encode(request);
  assert.ok(holdsLongTxn(bytes));
  assert.deepEqual(allSlices(decodeInternalInSlices(bytes, smallBudget())), InternalRaftRequest.decode(bytes));
});

test("only transactions with more operations than fit into one turn are long, whatever their size", () => {
  const ops = (length: number): TxnRequest => txn(Array.from({ length }, () => putOp("k", "v".repeat(100))));
  const holds = (fields: Partial<InternalRaftRequest>): boolean =>
    holdsLongTxn(InternalRaftRequest.encode(InternalRaftRequest.create(fields)));
  assert.ok(!isLongTxn(TxnRequest.encode(ops(512))));
  assert.ok(isLongTxn(TxnRequest.encode(ops(513))));
  assert.ok(!isLongTxn(Buffer.alloc(100_000, 0xff)));
  assert.ok(!holds({ txn: ops(512) }));
  assert.ok(holds({ txn: ops(513) }));
  assert.ok(!holds({ put: put("k", "v".repeat(100_000)) }));
  assert.ok(!holds({ range: range("k".repeat(100_000)) }));
});

function count(slices: Slices<unknown>): number {
  let slicesRun = 1;
  while (slices.next().done !== true) slicesRun++;
  return slicesRun;
}
