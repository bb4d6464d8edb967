import { type ByteString, toByteString } from "../../mvcc/model/types.ts";
import {
  type DeleteRangeRequest,
  type PutRequest,
  type RangeRequest,
  type RequestOp,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
  type TxnRequest,
} from "../../proto/etcdserverpb.ts";
import { type EtcdError, errors } from "../contract/errors.ts";

/**
 * The checks of a request before it is proposed. Every function returns the error, or null. Source: etcd
 * `server/etcdserver/api/v3rpc/key.go`.
 */
export function checkRange(request: RangeRequest): EtcdError | null {
  if (request.key.length === 0) return errors.emptyKey;
  const { sortOrder, sortTarget } = request;
  if (sortOrder < SortOrder.NONE || sortOrder > SortOrder.DESCEND) return errors.invalidSortOption;
  if (sortTarget < SortTarget.KEY || sortTarget > SortTarget.VALUE) return errors.invalidSortOption;
  return null;
}

export function checkPut(request: PutRequest): EtcdError | null {
  if (request.key.length === 0) return errors.emptyKey;
  if (request.ignoreValue && request.value.length !== 0) return errors.valueProvided;
  if (request.ignoreLease && request.lease !== 0n) return errors.leaseProvided;
  return null;
}

export function checkDeleteRange(request: DeleteRangeRequest): EtcdError | null {
  return request.key.length === 0 ? errors.emptyKey : null;
}

/**
 * The limit on operations shrinks by each level's own when transactions nest. That still permits 64,000 of them in one
 * request, which would block the event loop, so all levels together have a limit too.
 */
export function checkTxn(request: TxnRequest, maxTxnOps: number): EtcdError | null {
  const error = checkOps(request, maxTxnOps);
  if (error !== null) return error;
  if (countOps(request) > Math.max(NESTED_OPS_MAX, 2 * maxTxnOps)) return errors.tooManyOps;
  // A single operation cannot conflict with another in its branch: the case of all Kubernetes requests.
  if (request.success.length <= 1 && request.failure.length <= 1 && !hasNested(request)) return null;
  return checkOverlap(request.success) ?? checkOverlap(request.failure);
}

/**
 * Maximum comparisons and operations of a transaction including nested ones, unless `--max-txn-ops` allows more on one
 * level.
 */
export const NESTED_OPS_MAX = 8192;

function countOps({ compare, success, failure }: TxnRequest): number {
  let count = compare.length + success.length + failure.length;
  for (const { requestTxn } of success) if (requestTxn !== undefined) count += countOps(requestTxn);
  for (const { requestTxn } of failure) if (requestTxn !== undefined) count += countOps(requestTxn);
  return count;
}

function hasNested(request: TxnRequest): boolean {
  return request.success.some(isTxn) || request.failure.some(isTxn);
}

const isTxn = (op: RequestOp): boolean => op.requestTxn !== undefined;

function checkOps(request: TxnRequest, maxTxnOps: number): EtcdError | null {
  const count = Math.max(request.compare.length, request.success.length, request.failure.length);
  if (count > maxTxnOps) return errors.tooManyOps;
  for (const compare of request.compare) if (compare.key.length === 0) return errors.emptyKey;
  for (const op of request.success) {
    const error = checkOp(op, maxTxnOps - count);
    if (error !== null) return error;
  }
  for (const op of request.failure) {
    const error = checkOp(op, maxTxnOps - count);
    if (error !== null) return error;
  }
  return null;
}

function checkOp(op: RequestOp, maxTxnOps: number): EtcdError | null {
  if (op.requestRange !== undefined) return checkRange(op.requestRange);
  if (op.requestPut !== undefined) return checkPut(op.requestPut);
  if (op.requestDeleteRange !== undefined) return checkDeleteRange(op.requestDeleteRange);
  if (op.requestTxn !== undefined) return checkOps(op.requestTxn, maxTxnOps);
  return errors.keyNotFound;
}

function checkOverlap(ops: readonly RequestOp[]): EtcdError | null {
  return writesOf(ops) === null ? errors.duplicateKey : null;
}

/** Keys and ranges written by a list of operations. */
interface Writes {
  readonly puts: Set<ByteString>;
  readonly deletes: Interval[];
}

/** Keys from `start` up to, but excluding, `end`. */
interface Interval {
  readonly start: ByteString;
  readonly end: ByteString;
}

/**
 * The writes of the operations, or null when they write a key twice: a put must not overlap another put, or a deletion
 * of the same or an outer level. The two branches of one nested transaction may put the same key, because only one is
 * executed.
 */
function writesOf(ops: readonly RequestOp[]): Writes | null {
  const deletes: Interval[] = [];
  for (const { requestDeleteRange: request } of ops) {
    if (request !== undefined) deletes.push(intervalOf(request.key, request.rangeEnd));
  }
  const deleted = new IntervalSet(mergeIntervals(deletes));
  const puts = new Set<ByteString>();
  for (const { requestTxn: request } of ops) {
    if (request === undefined) continue;
    const success = writesOf(request.success);
    const failure = writesOf(request.failure);
    if (success === null || failure === null) return null;
    for (const key of success.puts) if (puts.has(key) || deleted.covers(key)) return null;
    for (const key of failure.puts) {
      if ((puts.has(key) && !success.puts.has(key)) || deleted.covers(key)) return null;
    }
    for (const key of success.puts) puts.add(key);
    for (const key of failure.puts) puts.add(key);
    deleted.add(success.deletes);
    deleted.add(failure.deletes);
  }
  for (const { requestPut: request } of ops) {
    if (request === undefined) continue;
    const key = toByteString(request.key);
    if (puts.has(key) || deleted.covers(key)) return null;
    puts.add(key);
  }
  return { puts, deletes: deleted.all() };
}

/**
 * Intervals added as lists. They are kept in few lists of growing size, so that adding one and looking up a point cost
 * at most the logarithm of all, whatever a client sends.
 */
class IntervalSet {
  /** Each ascending and disjoint, and at least twice as long as the next. */
  readonly #lists: Interval[][] = [];

  constructor(first: Interval[]) {
    this.add(first);
  }

  /** Adds disjoint intervals, ascending. */
  add(list: Interval[]): void {
    if (list.length === 0) return;
    let added = list;
    while (this.#lists.length > 0 && this.#lists.at(-1)!.length < 2 * added.length) {
      added = mergeIntervals([...this.#lists.pop()!, ...added]);
    }
    this.#lists.push(added);
  }

  covers(key: ByteString): boolean {
    for (const list of this.#lists) if (covers(list, key)) return true;
    return false;
  }

  all(): Interval[] {
    return this.#lists.length <= 1 ? (this.#lists[0] ?? []) : mergeIntervals(this.#lists.flat());
  }
}

function intervalOf(key: Uint8Array, rangeEnd: Uint8Array): Interval {
  const start = toByteString(key);
  // etcd does not treat the end "\0" as the end of all keys here, so such a deletion overlaps nothing.
  return { start, end: rangeEnd.length === 0 ? `${start}\0` : toByteString(rangeEnd) };
}

/** Disjoint intervals, ascending. */
function mergeIntervals(intervals: readonly Interval[]): Interval[] {
  const sorted = intervals
    .filter(({ start, end }) => start < end)
    .sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const merged: Interval[] = [];
  for (const next of sorted) {
    const last = merged.at(-1);
    if (last === undefined || last.end < next.start) merged.push(next);
    else if (next.end > last.end) {
      merged[merged.length - 1] = { start: last.start, end: next.end };
    }
  }
  return merged;
}

function covers(merged: readonly Interval[], key: ByteString): boolean {
  let low = 0;
  let high = merged.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (merged[middle]!.start <= key) low = middle + 1;
    else high = middle;
  }
  return low > 0 && key < merged[low - 1]!.end;
}
