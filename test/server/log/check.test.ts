import assert from "node:assert/strict";
import { test } from "node:test";
import type { RequestOp, TxnRequest } from "../../../src/proto/etcdserverpb.ts";
import { RequestOp as RequestOpCodec } from "../../../src/proto/etcdserverpb.ts";
import { errors } from "../../../src/server/contract/errors.ts";
import { checkDeleteRange, checkPut, checkRange, checkTxn } from "../../../src/server/log/check.ts";
import { patience } from "../../harness/wait.ts";
import { compare, put, putOp, range, rangeOp, remove, removeOp, txn, txnOp } from "../requests.ts";

const MAX_OPS = 128;
const check = (success: RequestOp[], failure: RequestOp[] = []) => checkTxn(txn(success, failure), MAX_OPS);

test("a request without a key is refused", () => {
  assert.equal(checkRange(range("")), errors.emptyKey);
  assert.equal(checkPut(put("")), errors.emptyKey);
  assert.equal(checkDeleteRange(remove("")), errors.emptyKey);
  assert.equal(checkTxn(txn([], [], [compare("", {})]), MAX_OPS), errors.emptyKey);
});

test("an order or sort target that does not exist is refused", () => {
  assert.equal(checkRange(range("a", "", { sortOrder: 3 as never })), errors.invalidSortOption);
  assert.equal(checkRange(range("a", "", { sortTarget: 5 as never })), errors.invalidSortOption);
  assert.equal(checkRange(range("a", "", { sortTarget: -1 as never })), errors.invalidSortOption);
  assert.equal(checkRange(range("a", "", { sortOrder: 2, sortTarget: 4 })), null);
});

test("a put cannot both keep and give a value, nor a lease", () => {
  assert.equal(checkPut(put("a", "v", { ignoreValue: true })), errors.valueProvided);
  assert.equal(checkPut(put("a", "", { ignoreLease: true, lease: 1n })), errors.leaseProvided);
  assert.equal(checkPut(put("a", "", { ignoreValue: true, ignoreLease: true })), null);
});

test("an operation of no kind is refused", () => {
  assert.equal(check([RequestOpCodec.create()]), errors.keyNotFound);
});

test("each list of a transaction may have as many operations as allowed, and no more", () => {
  const puts = (count: number, prefix: string): RequestOp[] =>
    Array.from({ length: count }, (_, i) => putOp(`${prefix}${i}`));
  assert.equal(check(puts(MAX_OPS, "s"), puts(MAX_OPS, "f")), null);
  assert.equal(check(puts(MAX_OPS + 1, "s")), errors.tooManyOps);
  assert.equal(check([], puts(MAX_OPS + 1, "f")), errors.tooManyOps);
  const compares = Array.from({ length: MAX_OPS + 1 }, () => compare("a", {}));
  assert.equal(checkTxn(txn([], [], compares), MAX_OPS), errors.tooManyOps);
});

test("a nested transaction gets what its outer one leaves of the limit", () => {
  const nested = (count: number): RequestOp => txnOp(txn(Array.from({ length: count }, (_, i) => putOp(`n${i}`))));
  assert.equal(check([nested(127)]), null);
  assert.equal(check([nested(128)]), errors.tooManyOps);
});

test("all levels of nested transactions together have a limit, whatever each may have", () => {
  let next = 0;
  const tree = (depth: number, width: number): TxnRequest =>
    txn(Array.from({ length: width }, () => (depth === 0 ? removeOp(`k${next++}`) : txnOp(tree(depth - 1, width)))));
  assert.equal(check([...tree(2, 19).success]), null);
  assert.equal(check([...tree(2, 21).success]), errors.tooManyOps);
  assert.equal(check([...tree(2, 40).success]), errors.tooManyOps);
});

test("a wrong operation is found at any depth", () => {
  let request: TxnRequest = txn([putOp("")]);
  for (let depth = 0; depth < 20; depth++) request = txn([], [txnOp(request)]);
  assert.equal(checkTxn(request, MAX_OPS), errors.emptyKey);
});

test("the same key cannot be put twice", () => {
  assert.equal(check([putOp("a"), putOp("b"), putOp("a")]), errors.duplicateKey);
  assert.equal(check([], [putOp("a"), putOp("a")]), errors.duplicateKey);
  assert.equal(check([putOp("a")], [putOp("a")]), null, "only one branch is taken");
});

test("a key cannot be put and deleted, in any order", () => {
  assert.equal(check([putOp("a"), removeOp("a")]), errors.duplicateKey);
  assert.equal(check([removeOp("a"), putOp("a")]), errors.duplicateKey);
  assert.equal(check([removeOp("a"), putOp("a\0")]), null, "the next key is another one");
});

test("a deleted range covers its start and not its end", () => {
  const overlap = (key: string): unknown => check([removeOp("b", "d"), putOp(key)]);
  assert.equal(overlap("a"), null);
  assert.equal(overlap("b"), errors.duplicateKey);
  assert.equal(overlap("c\xff"), errors.duplicateKey);
  assert.equal(overlap("d"), null);
});

test("deletions may overlap each other, and reads anything", () => {
  assert.equal(check([removeOp("a", "c"), removeOp("b", "d"), removeOp("b")]), null);
  assert.equal(check([putOp("a"), rangeOp("a"), rangeOp("a", "z")]), null);
});

test("deletions that touch or contain each other still cover all of their keys", () => {
  const ops = [removeOp("c", "e"), removeOp("a", "c"), removeOp("a", "z"), removeOp("x", "y")];
  for (const key of ["a", "b", "c", "d", "e", "y"]) assert.equal(check([...ops, putOp(key)]), errors.duplicateKey, key);
  assert.equal(check([...ops, putOp("z")]), null);
});

test("a range that is empty deletes nothing", () => {
  assert.equal(check([removeOp("c", "a"), putOp("b"), putOp("c")]), null);
});

test("the two branches of a nested transaction may put the same key", () => {
  assert.equal(check([txnOp(txn([putOp("a")], [putOp("a")]))]), null);
});

test("a branch of a nested transaction may not put what its outer one puts or deletes", () => {
  for (const nested of [txn([putOp("a")]), txn([], [putOp("a")])]) {
    assert.equal(check([txnOp(nested), putOp("a")]), errors.duplicateKey);
    assert.equal(check([putOp("a"), txnOp(nested)]), errors.duplicateKey);
    assert.equal(check([txnOp(nested), removeOp("a", "b")]), errors.duplicateKey);
  }
});

test("a nested deletion conflicts with the puts of the outer transaction, and of later ones beside it", () => {
  const nested = txnOp(txn([], [removeOp("a", "c")]));
  assert.equal(check([nested, putOp("b")]), errors.duplicateKey);
  assert.equal(check([nested, txnOp(txn([putOp("b")]))]), errors.duplicateKey);
});

test("two nested transactions beside each other may not put the same key", () => {
  assert.equal(check([txnOp(txn([putOp("a")])), txnOp(txn([], [putOp("a")]))]), errors.duplicateKey);
});

test("a put conflicts with the deletions of every nested transaction before it, however many there are", () => {
  const nested = Array.from({ length: 60 }, (_, i) =>
    txnOp(txn(Array.from({ length: 1 + (i % 7) }, (_, j) => removeOp(`d${i}-${j}`, `d${i}-${j}x`)))),
  );
  for (let i = 0; i < 60; i++) {
    assert.equal(check([...nested, putOp(`d${i}-${i % 7}a`)]), errors.duplicateKey, `${i}`);
    assert.equal(check([...nested, txnOp(txn([putOp(`d${i}-0a`)]))]), errors.duplicateKey, `${i}`);
  }
  assert.equal(check([...nested, putOp("d60-0a")]), null);
});

test("many deletions and puts are checked in less than the square of their number", () => {
  const count = 20_000;
  const ops: RequestOp[] = [];
  for (let i = 0; i < count; i++) ops.push(removeOp(`d${i}`), putOp(`p${i}`));
  const start = performance.now();
  assert.equal(checkTxn(txn(ops), ops.length), null);
  assert.ok(performance.now() - start < patience(2000));
});
