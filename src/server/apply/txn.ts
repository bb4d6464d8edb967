import { EMPTY_BYTES } from "../../base/protobuf.ts";
import type { SliceBudget } from "../../base/slice-budget.ts";
import { nextSlice, type Slices } from "../../base/slices.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { ReadView } from "../../mvcc/model/types.ts";
import type { WriteTxn } from "../../mvcc/store/store.ts";
import {
  type DeleteRangeRequest,
  DeleteRangeResponse,
  type PutRequest,
  PutResponse,
  type RequestOp,
  ResponseHeader,
  ResponseOp,
  type TxnRequest,
  TxnResponse,
} from "../../proto/etcdserverpb.ts";
import type { KeyValue } from "../../proto/mvccpb.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import type { Path } from "./compare.ts";
import { rangeEndOf } from "./range.ts";
import type { PointedView, ResponseReads } from "./response-reads.ts";

/**
 * The key-value operations inside one store transaction. Everything that can fail is checked before the first write, so
 * a transaction is applied completely or not at all. Source: etcd `server/etcdserver/txn/`.
 */

const everything = { revision: 0, limit: 0, countOnly: false };

/** A view that knows which revisions it can read. */
type CheckedView = ReadView & { readonly currentRevision: number; readonly compactRevision: number };

/** Finds, before any write, what would make the chosen branches fail. */
export function checkPath(view: CheckedView, lessor: Lessor, request: TxnRequest, path: Path): EtcdError | null {
  path.next = 0;
  return checkBranch(view, lessor, request, path);
}

function checkBranch(view: CheckedView, lessor: Lessor, request: TxnRequest, path: Path): EtcdError | null {
  for (const op of path.taken[path.next++] ? request.success : request.failure) {
    const error =
      op.requestTxn === undefined ? checkOp(view, lessor, op) : checkBranch(view, lessor, op.requestTxn, path);
    if (error !== null) return error;
  }
  return null;
}

/** The same in slices, for many operations. `view` must not change meanwhile. */
export function* checkPathInSlices(
  view: CheckedView,
  lessor: Lessor,
  request: TxnRequest,
  path: Path,
  budget: SliceBudget,
): Slices<EtcdError | null> {
  path.next = 0;
  return yield* checkBranchInSlices({ view, lessor, path, budget }, request);
}

interface Checking {
  readonly view: CheckedView;
  readonly lessor: Lessor;
  readonly path: Path;
  readonly budget: SliceBudget;
}

function* checkBranchInSlices(checking: Checking, request: TxnRequest): Slices<EtcdError | null> {
  const { view, lessor, path, budget } = checking;
  for (const op of path.taken[path.next++] ? request.success : request.failure) {
    budget.spend(1, 0);
    if (budget.isSpent) yield* nextSlice(budget);
    const error: EtcdError | null =
      op.requestTxn === undefined ? checkOp(view, lessor, op) : yield* checkBranchInSlices(checking, op.requestTxn);
    if (error !== null) return error;
  }
  return null;
}

/** One operation, except a nested transaction. */
function checkOp(view: CheckedView, lessor: Lessor, op: RequestOp): EtcdError | null {
  if (op.requestPut !== undefined) return checkPutPossible(view, lessor, op.requestPut);
  if (op.requestRange === undefined) return null;
  const { revision } = op.requestRange;
  if (revision > view.currentRevision) return errors.futureRevision;
  return revision !== 0 && revision < view.compactRevision ? errors.compacted : null;
}

/** A put needs its lease to exist, and its key when it keeps the old value or lease. */
export function checkPutPossible(view: ReadView, lessor: Lessor, request: PutRequest): EtcdError | null {
  if (request.lease !== 0n && lessor.lookup(request.lease) === undefined) return errors.leaseNotFound;
  if (request.ignoreValue || request.ignoreLease) {
    if (view.range(request.key, null, { revision: 0, limit: 0, countOnly: true }, () => {}).count === 0) {
      return errors.keyNotFound;
    }
  }
  return null;
}

/**
 * Executes the chosen branches of a checked transaction. The caller ends `txn`. Without `reads` no response is needed:
 * only writes are executed, and the result is not an answer for a client.
 */
export function executeTxn(txn: WriteTxn, request: TxnRequest, path: Path, reads: ResponseReads | null): TxnResponse {
  path.next = 0;
  const response = executeBranch(txn, txn, request, path, reads);
  response.header!.revision = txn.revision;
  return response;
}

/** Executes the chosen branches of a read-only transaction. */
export function executeReadOnlyTxn(
  view: PointedView,
  request: TxnRequest,
  path: Path,
  reads: ResponseReads,
): TxnResponse {
  path.next = 0;
  const response = executeBranch(view, null, request, path, reads);
  response.header!.revision = view.point.main;
  return response;
}

function executeBranch(
  view: PointedView,
  txn: WriteTxn | null,
  request: TxnRequest,
  path: Path,
  reads: ResponseReads | null,
): TxnResponse {
  const succeeded = path.taken[path.next++]!;
  const responses: ResponseOp[] = [];
  for (const op of succeeded ? request.success : request.failure) {
    if (op.requestTxn !== undefined) {
      responses.push(ResponseOp.create({ responseTxn: executeBranch(view, txn, op.requestTxn, path, reads) }));
    } else executeOp(view, txn, op, reads, responses);
  }
  return TxnResponse.create({ header: ResponseHeader.create(), succeeded, responses });
}

/** Executes one operation, except a nested transaction. */
export function executeOp(
  view: PointedView,
  txn: WriteTxn | null,
  op: RequestOp,
  reads: ResponseReads | null,
  responses: ResponseOp[],
): void {
  if (op.requestRange !== undefined) {
    if (reads !== null) responses.push(ResponseOp.create({ responseRange: reads.range(view, op.requestRange) }));
  } else if (txn !== null && op.requestPut !== undefined) {
    responses.push(executePutOp(txn, op.requestPut, reads));
  } else if (txn !== null && op.requestDeleteRange !== undefined) {
    responses.push(ResponseOp.create({ responseDeleteRange: executeDeleteRange(txn, op.requestDeleteRange, reads) }));
  } else if (op.requestPut === undefined && op.requestDeleteRange === undefined) {
    // An empty operation: the checks before the log refuse it, and etcd skips it.
    responses.push(ResponseOp.create());
  } else throw new Error("a transaction that writes among those that only read");
}

function executePutOp(txn: WriteTxn, request: PutRequest, reads: ResponseReads | null): ResponseOp {
  if (request.prevKv) return ResponseOp.create({ responsePut: executePut(txn, request, reads) });
  put(txn, request);
  return plainPut.at(txn.revision);
}

export function executePut(txn: WriteTxn, request: PutRequest, reads: ResponseReads | null): PutResponse {
  const previous = request.prevKv ? reads?.previous(txn, request.key, EMPTY_BYTES) : undefined;
  put(txn, request);
  const response = putResponse(txn.revision, previous?.kvs[0]);
  previous?.defer(response);
  return response;
}

function put(txn: WriteTxn, request: PutRequest): void {
  let { value, lease } = request;
  if (request.ignoreValue || request.ignoreLease) {
    const old = txn.rangeDecoded(request.key, null, everything).kvs[0];
    // The checks before the log refuse a transaction that deletes the key first; anything they miss must still
    // terminate.
    if (request.ignoreValue) value = old?.value ?? EMPTY_BYTES;
    if (request.ignoreLease) lease = old?.lease ?? 0n;
  }
  txn.put(request.key, value, lease);
}

const putResponse = (revision: number, prevKv: KeyValue | undefined): PutResponse =>
  PutResponse.create({ header: ResponseHeader.create({ revision }), prevKv });

/**
 * The response of a put without its previous value, in a transaction: the same for all puts of it, so they share one
 * object, which nothing may change.
 */
class PlainPut {
  #revision = -1;
  #op = ResponseOp.create();

  at(revision: number): ResponseOp {
    if (revision !== this.#revision) {
      this.#revision = revision;
      this.#op = ResponseOp.create({ responsePut: putResponse(revision, undefined) });
    }
    return this.#op;
  }
}

const plainPut = new PlainPut();

export function executeDeleteRange(
  txn: WriteTxn,
  request: DeleteRangeRequest,
  reads: ResponseReads | null,
): DeleteRangeResponse {
  const previous = request.prevKv ? reads?.previous(txn, request.key, request.rangeEnd) : undefined;
  const deleted = txn.deleteRange(request.key, rangeEndOf(request.rangeEnd));
  const header = ResponseHeader.create({ revision: txn.revision });
  const response = DeleteRangeResponse.create({ header, deleted, prevKvs: previous?.kvs ?? [] });
  previous?.defer(response);
  return response;
}

export function isReadOnly(request: TxnRequest): boolean {
  return request.success.every(isRange) && request.failure.every(isRange);
}

/** True when no read in it is linearizable. Comparisons alone are not. */
export function isSerializable(request: TxnRequest): boolean {
  return request.success.every(isSerializableRange) && request.failure.every(isSerializableRange);
}

const isRange = (op: RequestOp): boolean => op.requestRange !== undefined;
const isSerializableRange = (op: RequestOp): boolean => op.requestRange?.serializable === true;
