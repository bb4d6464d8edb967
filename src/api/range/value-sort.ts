/**
 * Sorts rows by value in slices, without holding the values: a row is sorted by a few bytes of its value, and rows
 * equal in them are read again, for the first bytes in which they differ. So values with a long common prefix cost two
 * more reads each, not one per comparison. Values crafted to defeat this are finally compared directly.
 */
import type { SliceBudget } from "../../base/slice-budget.ts";
import { SliceSort } from "../../base/slice-sort.ts";

/** The rows to sort. */
export interface ValueRows {
  readonly length: number;
  /** Their current sort keys: `digitsOf` their values. It is overwritten. */
  readonly by: Float64Array;
  /** Value of a row: a view valid until the next call. */
  value(row: number): Uint8Array;
}

/** Bytes of a value that fit into a number. */
const DIGITS = 6;
/** A digit is a byte, or its absence. */
const BASE = 257;
/** After this many reads of the same rows they are compared instead. */
const LOOKS_MAX = 8;
/** Up to this many are compared directly. */
const FEW = 3;
/** Cost of sorting a row by its number, relative to reading one. */
const SORTED_ROW = 0.1;
/** Bytes held at a time of a value that others are compared with. */
const REMEMBERED_BYTES = 64 * 1024;

/**
 * Bytes of a value from `depth` on, as a number with the same order; a value that ends comes before one that continues.
 */
export function digitsOf(value: Uint8Array, depth: number): number {
  const { length } = value;
  let digits = 0;
  for (let at = depth; at < depth + DIGITS; at++) digits = digits * BASE + (at < length ? value[at]! + 1 : 0);
  return digits;
}

/** Rows equal up to `depth`. */
interface Group {
  readonly start: number;
  readonly end: number;
  readonly depth: number;
  readonly looks: number;
}

/** The rows in order, as positions; `sign` -1: greatest first. Equal rows stay in order of position. */
export function* sortByValue(rows: ValueRows, sign: 1 | -1, budget: SliceBudget): Generator<void, Uint32Array, void> {
  const { by } = rows;
  const order = new Uint32Array(rows.length);
  for (let i = 0; i < order.length; i++) order[i] = i;
  const sort = new Sorting(order, rows, sign);
  const groups: Group[] = [];
  yield* sort.byDigits(0, order.length, budget);
  yield* addAlike(order, by, { start: 0, end: order.length, depth: 0, looks: 0 }, groups, budget);
  for (let group = groups.pop(); group !== undefined; group = groups.pop()) {
    const { start, end, looks } = group;
    if (end - start <= FEW || looks >= LOOKS_MAX) {
      yield* sort.byComparing(start, end, budget);
      continue;
    }
    const depth = yield* commonLength(rows, order, group, budget);
    if (depth < 0) continue;
    for (let at = start; at < end; at++) {
      const row = order[at]!;
      const value = rows.value(row);
      by[row] = digitsOf(value, depth);
      budget.spend(1, value.length);
      if (budget.isSpent) yield budget.refill();
    }
    yield* sort.byDigits(start, end, budget);
    yield* addAlike(order, by, { start, end, depth, looks }, groups, budget);
  }
  return order;
}

/** Adds the groups of rows with equal digits in a sorted group, if their values continue after them. */
function* addAlike(
  order: Uint32Array,
  by: Float64Array,
  { start, end, depth, looks }: Group,
  groups: Group[],
  budget: SliceBudget,
): Generator<void, void, void> {
  for (let from = start; from < end; ) {
    const digits = by[order[from]!]!;
    let to = from + 1;
    while (to < end && by[order[to]!] === digits) to++;
    if (to - from > 1 && digits % BASE !== 0)
      groups.push({ start: from, end: to, depth: depth + DIGITS, looks: looks + 1 });
    budget.spend((to - from) * SORTED_ROW, 0);
    from = to;
    if (budget.isSpent) yield budget.refill();
  }
}

/** Length of the common prefix of a group's values; -1: all are equal. */
function* commonLength(
  rows: ValueRows,
  order: Uint32Array,
  { start, end, depth }: Group,
  budget: SliceBudget,
): Generator<void, number, void> {
  const first = rows.value(order[start]!);
  const { length } = first;
  const known = Buffer.from(first.subarray(depth, depth + REMEMBERED_BYTES));
  let common = known.length;
  let areEqual = depth + common === length;
  for (let at = start + 1; at < end; at++) {
    const value = rows.value(order[at]!);
    areEqual &&= value.length === length;
    const most = Math.min(common, value.length - depth);
    const isCommon = most === common && known.compare(value, depth, depth + most, 0, most) === 0;
    if (!isCommon) {
      areEqual = false;
      common = 0;
      while (common < most && known[common] === value[depth + common]) common++;
      if (common === 0) break;
    }
    budget.spend(1, value.length);
    if (budget.isSpent) yield budget.refill();
  }
  return areEqual ? -1 : depth + common;
}

/** Sorts parts of an order. */
class Sorting {
  readonly #order: Uint32Array;
  readonly #rows: ValueRows;
  readonly #sign: 1 | -1;

  constructor(order: Uint32Array, rows: ValueRows, sign: 1 | -1) {
    this.#order = order;
    this.#rows = rows;
    this.#sign = sign;
  }

  *byDigits(start: number, end: number, budget: SliceBudget): Generator<void, void, void> {
    const { by } = this.#rows;
    const part = this.#order.subarray(start, end);
    const sign = this.#sign;
    if (part.length <= AT_ONCE) {
      part.sort((a, b) => sign * (by[a]! - by[b]!) || a - b);
      budget.spend(part.length * SORTED_ROW, 0);
      if (budget.isSpent) yield budget.refill();
      return;
    }
    yield* inSlices(part, (a, b) => sign * (by[a]! - by[b]!), false);
  }

  *byComparing(start: number, end: number, budget: SliceBudget): Generator<void, void, void> {
    const rows = this.#rows;
    const sign = this.#sign;
    const compare = (a: number, b: number): number => {
      const value = Buffer.from(rows.value(a));
      budget.spend(1, value.length);
      return sign * Buffer.compare(value, rows.value(b));
    };
    const part = this.#order.subarray(start, end);
    if (part.length > FEW) return yield* inSlices(part, compare, true);
    part.sort((a, b) => compare(a, b) || a - b);
    if (budget.isSpent) yield budget.refill();
  }
}

/** Up to this many are sorted without a slice of their own. */
const AT_ONCE = 256;
/** Positions written in one slice. */
const PLACES = 64 * 1024;

/** Sorts a part that is in row order. */
function* inSlices(
  part: Uint32Array,
  compare: (a: number, b: number) => number,
  isCostly: boolean,
): Generator<void, void, void> {
  const rows = part.slice();
  const sort = new SliceSort(rows.length, (a, b) => compare(rows[a]!, rows[b]!), isCostly);
  while (!sort.step()) yield;
  for (let i = 0; i < rows.length; i++) {
    part[i] = rows[sort.order[i]!]!;
    if (i % PLACES === PLACES - 1) yield;
  }
}
