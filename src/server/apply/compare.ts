import { EMPTY_BYTES } from "../../base/protobuf.ts";
import type { SliceBudget } from "../../base/slice-budget.ts";
import { nextSlice, type Slices } from "../../base/slices.ts";
import type { RawSlot } from "../../mvcc/backend/backend.ts";
import type { ReadView } from "../../mvcc/model/types.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import {
  type Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  type RequestOp,
  type TxnRequest,
} from "../../proto/etcdserverpb.ts";
import { KeyValue } from "../../proto/mvccpb.ts";
import { rangeEndOf } from "./range.ts";
import type { PointedView } from "./response-reads.ts";

/**
 * The comparisons of a transaction: they decide, before any write, which branches are executed. Source: etcd
 * `server/etcdserver/txn/`.
 */

/** The branch of each transaction, in order of execution. */
export interface Path {
  readonly taken: boolean[];
  next: number;
}

/** Evaluates all comparisons, including those of nested transactions, on the state before any write, synchronously. */
export function decidePath(view: ReadView, request: TxnRequest): Path {
  const taken: boolean[] = [];
  decide(view, request, taken);
  return { taken, next: 0 };
}

function decide(view: ReadView, request: TxnRequest, taken: boolean[]): void {
  const succeeded = allHold(view, request.compare);
  taken.push(succeeded);
  for (const { requestTxn } of succeeded ? request.success : request.failure) {
    if (requestTxn !== undefined) decide(view, requestTxn, taken);
  }
}

function allHold(view: ReadView, compares: readonly Compare[]): boolean {
  for (const compare of compares) if (!holds(view, compare)) return false;
  return true;
}

const everything = { revision: 0, limit: 0, countOnly: false };

function holds(view: ReadView, compare: Compare): boolean {
  const { target, key } = compare;
  const end = rangeEndOf(compare.rangeEnd);
  let held = true;
  if (target === CompareTarget.VALUE || target === CompareTarget.LEASE) {
    const { kvs } = view.rangeDecoded(key, end, everything);
    if (kvs.length === 0) return holdsWithoutKeys(compare);
    for (const { value, lease } of kvs) {
      const order =
        target === CompareTarget.VALUE
          ? Buffer.compare(value, compare.value ?? EMPTY_BYTES)
          : orderOfLeases(lease, compare.lease);
      held &&= agrees(compare, order);
    }
    return held;
  }
  // The index has everything else, so values need not be read.
  const { count } = view.rangeKeys(key, end, everything, (_key, modRevision, createRevision, version) => {
    held &&= agrees(compare, orderOf(compare, modRevision, createRevision, version));
  });
  return count === 0 ? holdsWithoutKeys(compare) : held;
}

/**
 * The same in slices, for many comparisons, or comparisons of ranges. `view` must not change meanwhile: the store is not written, or it is
 * the store at a revision.
 */
export function* decideInSlices(
  store: MvccStore,
  request: TxnRequest,
  budget: SliceBudget,
  view: PointedView,
): Slices<Path> {
  const taken: boolean[] = [];
  yield* decideSlices({ store, view, budget, taken }, request);
  return { taken, next: 0 };
}

interface Deciding {
  readonly store: MvccStore;
  readonly view: PointedView;
  readonly budget: SliceBudget;
  readonly taken: boolean[];
}

function* decideSlices(deciding: Deciding, request: TxnRequest): Slices<void> {
  const { view, budget, taken } = deciding;
  let succeeded = true;
  for (const compare of request.compare) {
    succeeded = compare.rangeEnd.length === 0 ? holds(view, compare) : yield* holdsInSlices(deciding, compare);
    budget.spend(1, 0);
    if (budget.isSpent) yield* nextSlice(budget);
    if (!succeeded) break;
  }
  taken.push(succeeded);
  for (const { requestTxn } of succeeded ? request.success : request.failure) {
    if (requestTxn !== undefined) yield* decideSlices(deciding, requestTxn);
  }
}

/** Examines the keys of the range up to the first that decides. */
function* holdsInSlices({ store, view, budget }: Deciding, compare: Compare): Slices<boolean> {
  const { target } = compare;
  const readsRows = target === CompareTarget.VALUE || target === CompareTarget.LEASE;
  const cursor = store.cursor(view.point, compare.key, compare.rangeEnd, false);
  let isEmpty = true;
  let held = true;
  while (held && !cursor.done) {
    if (budget.isSpent) yield* nextSlice(budget);
    const passed = cursor.advance(budget.rows, (_key, main, sub, createRevision, version) => {
      isEmpty = false;
      if (readsRows) {
        store.readRow(main, sub, row);
        budget.spend(0, row.end - row.start);
        held = agrees(compare, orderOfRow(compare, row));
      } else held = agrees(compare, orderOf(compare, main, createRevision, version));
      return held && budget.bytes > 0;
    });
    budget.spend(passed, 0);
  }
  return isEmpty ? holdsWithoutKeys(compare) : held;
}

const row: RawSlot = { bytes: EMPTY_BYTES, start: 0, end: 0 };

function orderOfRow(compare: Compare, { bytes, start, end }: RawSlot): number {
  const { value, lease } = KeyValue.decode(bytes, start, end);
  return compare.target === CompareTarget.VALUE
    ? Buffer.compare(value, compare.value ?? EMPTY_BYTES)
    : orderOfLeases(lease, compare.lease);
}

/** A missing key has no value to compare, but its revisions, version and lease are 0. */
function holdsWithoutKeys(compare: Compare): boolean {
  if (compare.target === CompareTarget.VALUE) return false;
  return agrees(
    compare,
    compare.target === CompareTarget.LEASE ? orderOfLeases(0n, compare.lease) : orderOf(compare, 0, 0, 0),
  );
}

function agrees(compare: Compare, order: number): boolean {
  switch (compare.result) {
    case CompareResult.EQUAL:
      return order === 0;
    case CompareResult.NOT_EQUAL:
      return order !== 0;
    case CompareResult.GREATER:
      return order > 0;
    case CompareResult.LESS:
      return order < 0;
    default:
      return true;
  }
}

function orderOf(compare: Compare, modRevision: number, createRevision: number, version: number): number {
  switch (compare.target) {
    case CompareTarget.CREATE:
      return createRevision - (compare.createRevision ?? 0);
    case CompareTarget.MOD:
      return modRevision - (compare.modRevision ?? 0);
    case CompareTarget.VERSION:
      return version - (compare.version ?? 0);
    default:
      return 0;
  }
}

function orderOfLeases(lease: bigint, other = 0n): number {
  return lease < other ? -1 : lease > other ? 1 : 0;
}

/** True when it compares ranges, that is, any number of keys. */
export function comparesRanges(request: TxnRequest): boolean {
  for (const { rangeEnd } of request.compare) if (rangeEnd.length > 0) return true;
  const isNested = ({ requestTxn }: RequestOp): boolean => requestTxn !== undefined && comparesRanges(requestTxn);
  return request.success.some(isNested) || request.failure.some(isNested);
}
