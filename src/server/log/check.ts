import { SliceBudget } from "../../base/slice-budget.ts";
import { allSlices, nextSlice, type Slices } from "../../base/slices.ts";
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
import { checkOverlap } from "./txn-overlap.ts";

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
  const error = checkEach(request, maxTxnOps);
  if (error !== null) return error;
  // A single operation cannot conflict with another in its branch: the case of all Kubernetes requests.
  if (request.success.length <= 1 && request.failure.length <= 1 && !hasNested(request)) return null;
  return allSlices(checkOverlap(request, UNLIMITED));
}

/** The same in slices, for long transactions. */
export function* checkTxnInSlices(
  request: TxnRequest,
  maxTxnOps: number,
  budget: SliceBudget,
): Slices<EtcdError | null> {
  const error = checkEach(request, maxTxnOps);
  if (error !== null) return error;
  yield* nextSlice(budget);
  return yield* checkOverlap(request, budget);
}

const UNLIMITED = new SliceBudget(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);

/** Everything but conflicts: some nanoseconds for each operation. */
function checkEach(request: TxnRequest, maxTxnOps: number): EtcdError | null {
  const error = checkOps(request, maxTxnOps);
  if (error !== null) return error;
  return countOps(request) > Math.max(NESTED_OPS_MAX, 2 * maxTxnOps) ? errors.tooManyOps : null;
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
