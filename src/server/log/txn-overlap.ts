/**
 * Whether a transaction writes a key twice. In slices, because a transaction may have any number of operations. Source:
 * etcd `server/etcdserver/api/v3rpc/key.go`.
 */
import type { SliceBudget } from "../../base/slice-budget.ts";
import { SliceSort } from "../../base/slice-sort.ts";
import { nextSlice, type Slices } from "../../base/slices.ts";
import { type ByteString, toByteString } from "../../mvcc/model/types.ts";
import type { RequestOp, TxnRequest } from "../../proto/etcdserverpb.ts";
import { type EtcdError, errors } from "../contract/errors.ts";

/** Checks both branches. */
export function* checkOverlap({ success, failure }: TxnRequest, budget: SliceBudget): Slices<EtcdError | null> {
  if (!(yield* ascends(success, budget)) && (yield* writesOf(success, budget)) === null) return errors.duplicateKey;
  if (!(yield* ascends(failure, budget)) && (yield* writesOf(failure, budget)) === null) return errors.duplicateKey;
  return null;
}

/** The operations only put, each key above the one before, as loaders of data do: then no set of keys is needed. */
function* ascends(ops: readonly RequestOp[], budget: SliceBudget): Slices<boolean> {
  let last: Uint8Array | undefined;
  for (const { requestPut } of ops) {
    if (requestPut === undefined || (last !== undefined && !isBelow(last, requestPut.key))) return false;
    last = requestPut.key;
    budget.spend(1, last.length);
    if (budget.isSpent) yield* nextSlice(budget);
  }
  return true;
}

function isBelow(a: Uint8Array, b: Uint8Array): boolean {
  const length = Math.min(a.length, b.length, SHORT_BYTES);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! < b[i]!;
  return Buffer.compare(a, b) < 0;
}

/** Up to here comparing in JavaScript is faster. */
const SHORT_BYTES = 64;

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
function* writesOf(ops: readonly RequestOp[], budget: SliceBudget): Slices<Writes | null> {
  const deletes: Interval[] = [];
  for (const { requestDeleteRange: request } of ops) {
    if (request === undefined) continue;
    deletes.push(intervalOf(request.key, request.rangeEnd));
    budget.spend(1, request.key.length);
    if (budget.isSpent) yield* nextSlice(budget);
  }
  const deleted = new IntervalSet(yield* mergedInSlices(deletes, budget));
  const puts = new Set<ByteString>();
  for (const { requestTxn: request } of ops) {
    if (request === undefined) continue;
    const success: Writes | null = yield* writesOf(request.success, budget);
    const failure: Writes | null = yield* writesOf(request.failure, budget);
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
    budget.spend(1, key.length);
    if (budget.isSpent) yield* nextSlice(budget);
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

/** Disjoint intervals, ascending. Lists that are so already are only joined. */
function mergeIntervals(intervals: readonly Interval[]): Interval[] {
  return merge(intervals.filter(isNotEmpty).sort(byStart));
}

/** The same in slices. */
function* mergedInSlices(intervals: readonly Interval[], budget: SliceBudget): Slices<Interval[]> {
  if (intervals.length <= budget.rows) return mergeIntervals(intervals);
  const sort = new SliceSort(intervals.length, (a, b) => byStart(intervals[a]!, intervals[b]!));
  while (!sort.step()) yield* nextSlice(budget);
  const sorted = Array.from(sort.order, (position) => intervals[position]!);
  return merge(sorted.filter(isNotEmpty));
}

const isNotEmpty = ({ start, end }: Interval): boolean => start < end;
const byStart = (a: Interval, b: Interval): number => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0);

function merge(sorted: readonly Interval[]): Interval[] {
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
