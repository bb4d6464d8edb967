import type { SliceBudget } from "../../base/slice-budget.ts";
import { SliceSort } from "../../base/slice-sort.ts";
import { nextSlice, type Slices } from "../../base/slices.ts";
import type { Lease } from "../../lease/lease.ts";
import type { Lessor } from "../../lease/lessor.ts";
import { type ByteString, FROM_KEY, fromByteString } from "../../mvcc/model/types.ts";
import type { MvccStore, WriteTxn } from "../../mvcc/store/store.ts";
import type { LeasedKeys } from "../../mvcc/store/write-txn.ts";
import {
  type DeleteRangeRequest,
  DeleteRangeResponse,
  ResponseHeader,
  ResponseOp,
  type TxnRequest,
  TxnResponse,
} from "../../proto/etcdserverpb.ts";
import { OPS_AT_ONCE } from "../log/txn-size.ts";
import type { Path } from "./compare.ts";
import { rangeEndOf } from "./range.ts";
import type { PointedView, ResponseReads } from "./response-reads.ts";
import { executeDeleteRange, executeOp } from "./txn.ts";

/**
 * A request too large for one turn, applied in many. Its owner applies nothing else meanwhile; all readers see the
 * state before it.
 */
export class LongApply<T> {
  /** For a longer request of which it is a part. */
  readonly slices: Slices<T>;

  constructor(slices: Slices<T>) {
    this.slices = slices;
  }

  /** Runs one slice. Returns the result once there is one; the state then changes all at once. */
  step(): T | undefined {
    const { done, value } = this.slices.next();
    return done === true ? value : undefined;
  }
}

/** Begins work that may be long: most is done after the first slice. */
export function begin<T>(slices: Slices<T>): T | LongApply<T> {
  const { done, value } = slices.next();
  return done === true ? value : new LongApply(slices);
}

/** True if it may change or examine any number of keys. */
export function mayBeLong(request: TxnRequest): boolean {
  return countOf(request, 0) > OPS_AT_ONCE;
}

/** Counts operations; a range counts as very many. */
function countOf(request: TxnRequest, before: number): number {
  let count = before + request.compare.length;
  for (const { rangeEnd } of request.compare) if (rangeEnd.length > 0) return MANY;
  for (const ops of [request.success, request.failure]) {
    count += ops.length;
    for (const { requestDeleteRange, requestTxn } of ops) {
      if (requestDeleteRange !== undefined && requestDeleteRange.rangeEnd.length > 0) return MANY;
      if (requestTxn !== undefined) count = countOf(requestTxn, count);
    }
  }
  return count;
}

/** A read, in rows of the budget. */
const READ_COST = 2;
const MANY = Number.POSITIVE_INFINITY;

/** True if encoding it takes more than one turn. */
export function isLongResponse(response: TxnResponse): boolean {
  return responsesOf(response, 0) > OPS_AT_ONCE;
}

function responsesOf({ responses }: TxnResponse, before: number): number {
  let count = before + responses.length;
  for (const { responseTxn } of responses) if (responseTxn !== undefined) count = responsesOf(responseTxn, count);
  return count;
}

/** executeTxn in slices. */
export function* executeTxnInSlices(
  txn: WriteTxn,
  request: TxnRequest,
  path: Path,
  reads: ResponseReads | null,
  budget: SliceBudget,
): Slices<TxnResponse> {
  path.next = 0;
  reads?.beginSlices();
  const response = yield* branchInSlices({ view: txn, txn, path, reads, budget }, request);
  response.header!.revision = txn.revision;
  return response;
}

/** executeReadOnlyTxn in slices. `view` must not change meanwhile. */
export function* executeReadOnlyInSlices(
  view: PointedView,
  request: TxnRequest,
  path: Path,
  reads: ResponseReads,
  budget: SliceBudget,
): Slices<TxnResponse> {
  path.next = 0;
  reads.beginSlices();
  const response = yield* branchInSlices({ view, txn: null, path, reads, budget }, request);
  response.header!.revision = view.point.main;
  return response;
}

interface Run {
  readonly view: PointedView;
  /** Null when it only reads. */
  readonly txn: WriteTxn | null;
  readonly path: Path;
  readonly reads: ResponseReads | null;
  readonly budget: SliceBudget;
}

function* branchInSlices(run: Run, request: TxnRequest): Slices<TxnResponse> {
  const succeeded = run.path.taken[run.path.next++]!;
  const responses: ResponseOp[] = [];
  const { view, txn, reads, budget } = run;
  for (const op of succeeded ? request.success : request.failure) {
    if (budget.isSpent) yield* txn === null ? nextSlice(budget) : nextPart(txn, budget);
    const bytesBefore = reads?.bytes ?? 0;
    if (op.requestTxn !== undefined) {
      responses.push(ResponseOp.create({ responseTxn: yield* branchInSlices(run, op.requestTxn) }));
    } else if (txn !== null && op.requestDeleteRange !== undefined) {
      const responseDeleteRange = yield* deleteRangeInSlices(txn, op.requestDeleteRange, reads, budget);
      responses.push(ResponseOp.create({ responseDeleteRange }));
    } else executeOp(view, txn, op, reads, responses);
    if (op.requestPut !== undefined) budget.spend(1, op.requestPut.value.length);
    else budget.spend(READ_COST, (reads?.bytes ?? 0) - bytesBefore);
  }
  return TxnResponse.create({ header: ResponseHeader.create(), succeeded, responses });
}

/** executeDeleteRange in slices. */
export function* deleteRangeInSlices(
  txn: WriteTxn,
  request: DeleteRangeRequest,
  reads: ResponseReads | null,
  budget: SliceBudget,
): Slices<DeleteRangeResponse> {
  const rangeEnd = rangeEndOf(request.rangeEnd);
  if (rangeEnd === null) return executeDeleteRange(txn, request, reads);
  const previous = request.prevKv ? reads?.previous(txn, request.key, request.rangeEnd) : undefined;
  const before = txn.changeCount;
  const end = rangeEnd === FROM_KEY ? null : rangeEnd;
  yield* deleteInSlices(txn, request.key, end, budget, ANY_LEASE);
  const header = ResponseHeader.create({ revision: txn.revision });
  const deleted = txn.changeCount - before;
  const response = DeleteRangeResponse.create({ header, deleted, prevKvs: previous?.kvs ?? [] });
  previous?.defer(response);
  return response;
}

/** Deletes the existing keys of [start, end), or those of them that `which` says. */
function* deleteInSlices(
  txn: WriteTxn,
  start: Uint8Array,
  end: Uint8Array | null,
  budget: SliceBudget,
  which: LeasedKeys,
): Slices<void> {
  // Work beyond one slice is marked as partial from the start: marking it later would need a lookup of all its changes.
  if (txn.countLive(start, end) > budget.rows) txn.becomeLong();
  let next: Uint8Array | null = start;
  for (;;) {
    next = txn.deleteSlice(next, end, budget, which);
    if (next === null) return;
    yield* nextPart(txn, budget);
  }
}

/**
 * Revokes a lease with many keys: deletes them in the order common to all members, ascending. Nothing else changes the
 * lease meanwhile; it exists, with the remaining keys, until the end.
 */
export function* revokeInSlices(store: MvccStore, lessor: Lessor, id: bigint, budget: SliceBudget): Slices<void> {
  const lease = lessor.lookup(id)!;
  const { low, high } = lease.keySet!;
  const start = fromByteString(low);
  const end = fromByteString(`${high}\0`);
  // If there are few other keys between its lowest and highest, the index provides them in order. If there are none, no
  // key need be looked up to know whose it is.
  const between = store.countLive(start, end);
  const isDense = between <= DENSE_FACTOR * lease.keyCount;
  const which: LeasedKeys = between === lease.keyCount ? { detached: true } : { attachedTo: id };
  const keys = isDense ? NO_KEYS : yield* sortedKeys(lease, budget);
  const txn = store.begin();
  if (isDense) yield* deleteInSlices(txn, start, end, budget, which);
  if (which.detached) for (const _ of lessor.forgetKeys(id, budget)) yield* nextPart(txn, budget);
  for (const position of keys.order) {
    if (budget.isSpent) yield* nextPart(txn, budget);
    const key = keys.all[position]!;
    budget.spend(1, key.length);
    txn.deleteKey(key);
  }
  // The record is deleted with the last keys, so that no backend batch has only one of the two.
  lessor.revoke(id, () => {});
  txn.end();
}

/** Whatever lease they are attached to. */
const ANY_LEASE: LeasedKeys = {};

interface SortedKeys {
  readonly all: readonly ByteString[];
  /** Positions in `all`. */
  readonly order: Uint32Array;
}

const NO_KEYS: SortedKeys = { all: [], order: new Uint32Array() };

function* sortedKeys(lease: Lease, budget: SliceBudget): Slices<SortedKeys> {
  const all: ByteString[] = [];
  for (const key of lease.keys()) {
    all.push(key);
    budget.spend(SPENT_FOR_A_COPY, 0);
    if (budget.isSpent) yield* nextSlice(budget);
  }
  const sort = new SliceSort(all.length, (a, b) => (all[a]! < all[b]! ? -1 : 1));
  while (!sort.step()) yield* nextSlice(budget);
  return { all, order: sort.order };
}

/** Keys examined per deleted key. */
const DENSE_FACTOR = 3;
/** Relative to the cost of a deletion. */
const SPENT_FOR_A_COPY = 0.1;

/** Other work runs between two slices, so the rows written so far must be marked as partial. */
function* nextPart(txn: WriteTxn, budget: SliceBudget): Slices<void> {
  txn.becomeLong();
  yield* nextSlice(budget);
}
