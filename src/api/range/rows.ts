import { SliceBudget } from "../../base/slice-budget.ts";
import { SliceSort } from "../../base/slice-sort.ts";
import { writeVarint } from "../../base/varint.ts";
import type { RawSlot } from "../../mvcc/backend/backend.ts";
import { kvHeader, readKvHeader } from "../../mvcc/model/kv-header.ts";
import type { KeyInPlace, RawVisitor } from "../../mvcc/model/types.ts";
import type { RangeCursor, ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import {
  type RangeRequest,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from "../../proto/etcdserverpb.ts";
import { hasRevisionFilters, passesFilters, rangeEndOf } from "../../server/apply/range.ts";
import type { ReadSlice } from "../../server/contract/options.ts";
import { digitsOf, sortByValue, type ValueRows } from "./value-sort.ts";

/** When sorting with a limit up to this, only that many rows are held. */
const TOP_ROWS_MAX = 8192;

/** The rows of a range's answer, in order, in slices. */
export interface RangeRows {
  /**
   * Visits the next rows, encoded as KeyValue, until they have `bytesMax` or the slice's limit is reached. True when
   * there are no more. Throws CompactedError.
   */
  slice(visit: RawVisitor, bytesMax?: number): boolean;
  /** The same rows from here on, for a second pass. */
  copy(): RangeRows;
  /** Keys in the range, regardless of limit and filters; known after the last row. */
  readonly count: number;
  /** The limit cut off rows; known after the last row. */
  readonly more: boolean;
}

/** `count`: the keys in the range if already known, else undefined. */
export function rangeRows(
  store: MvccStore,
  request: RangeRequest,
  point: ReadPoint,
  count: number | undefined,
  limits: ReadSlice,
): RangeRows {
  const isSorted = !request.countOnly && request.sortTarget !== SortTarget.KEY;
  return new (isSorted ? SortedRows : KeyOrderRows)(store, request, point, count, limits);
}

/** Rows that must be held to sort them as requested. */
export function rowsRemembered(store: MvccStore, request: RangeRequest, count: number | undefined): number {
  const { limit, sortTarget } = request;
  if (request.countOnly || sortTarget === SortTarget.KEY || (limit > 0 && limit <= TOP_ROWS_MAX)) return 0;
  const rows = count ?? store.keyCount;
  const limitsFirst = limit > 0 && request.sortOrder === SortOrder.NONE && !hasRevisionFilters(request);
  return limitsFirst ? Math.min(rows, limit + 1) : rows;
}

/** True when the result is in key order. */
const isDescending = (request: RangeRequest): boolean =>
  request.sortTarget === SortTarget.KEY && request.sortOrder === SortOrder.DESCEND;

function openCursor(store: MvccStore, request: RangeRequest, point: ReadPoint): RangeCursor {
  const { key, rangeEnd } = request;
  // A single key is a range of one: from it up to its successor.
  const end = rangeEndOf(rangeEnd) ?? Buffer.concat([key, ZERO]);
  return store.cursor(point, key, end, isDescending(request));
}

const ZERO = Buffer.from([0]);

class KeyOrderRows implements RangeRows {
  count: number;
  more = false;
  readonly #store: MvccStore;
  readonly #request: RangeRequest;
  readonly #limits: ReadSlice;
  readonly #point: ReadPoint;
  readonly #countIsKnown: boolean;
  readonly #filters: boolean;
  readonly #limit: number;
  #cursor: RangeCursor;
  #taken = 0;

  constructor(store: MvccStore, request: RangeRequest, point: ReadPoint, count: number | undefined, limits: ReadSlice) {
    this.#store = store;
    this.#request = request;
    this.#limits = limits;
    this.#point = point;
    this.count = count ?? 0;
    this.#countIsKnown = count !== undefined;
    this.#filters = hasRevisionFilters(request);
    this.#limit = request.countOnly ? 0 : request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    this.#cursor = openCursor(store, request, point);
  }

  copy(): RangeRows {
    const count = this.#countIsKnown ? this.count : undefined;
    const copy = new KeyOrderRows(this.#store, this.#request, this.#point, count, this.#limits);
    copy.#cursor = this.#cursor.copy();
    copy.#taken = this.#taken;
    copy.count = this.count;
    return copy;
  }

  slice(visit: RawVisitor, bytesMax = this.#limits.bytes): boolean {
    if (this.#isComplete()) return true;
    const { entries, rows: rowsMax } = this.#limits;
    const request = this.#request;
    let rows = 0;
    let bytes = 0;
    this.#cursor.advance(entries, (key, main, sub, createRevision, version) => {
      if (!this.#countIsKnown) this.count++;
      if (this.#filters && !passesFilters(request, main, createRevision)) return true;
      if (this.#taken === this.#limit) {
        this.more = !request.countOnly;
        return !this.#countIsKnown;
      }
      this.#taken++;
      if (request.keysOnly) encodeKey(key, createRevision, main, version, slot);
      else this.#store.readRow(main, sub, slot);
      visit(slot.bytes, slot.start, slot.end);
      bytes += slot.end - slot.start;
      return ++rows < rowsMax && bytes < bytesMax && !this.#isComplete();
    });
    return this.#cursor.done || this.#isComplete();
  }

  /** No row can follow, and the facts about the rest are known. */
  #isComplete(): boolean {
    if (this.#taken < this.#limit || !this.#countIsKnown) return false;
    if (this.#request.countOnly) return true;
    if (!this.#filters) this.more = this.count > this.#taken;
    return this.more || !this.#filters;
  }
}

/** A row held for sorting: its sort key and its position. */
interface Found {
  readonly by: number;
  readonly main: number;
  readonly sub: number;
  /** Position in key order. */
  readonly place: number;
}

/**
 * Rows in another order than key order: collected from the index, sorted, then read individually. With a small limit
 * only the first ones are held; otherwise all, at 20 bytes each.
 */
class SortedRows implements RangeRows {
  count: number;
  more = false;
  readonly #store: MvccStore;
  readonly #request: RangeRequest;
  readonly #limits: ReadSlice;
  readonly #countIsKnown: boolean;
  readonly #filters: boolean;
  /** Maximum rows of the answer. */
  readonly #limit: number;
  /** Without an order the limit selects the first keys, and only those (and one more) are sorted. */
  readonly #collectMax: number;
  readonly #cursor: RangeCursor;
  readonly #sign: 1 | -1;
  /** Only for the first rows. */
  readonly #compare: (a: Found, b: Found) => number;
  #matches = 0;
  #isCollected = false;
  #top: TopRows | null;
  #all: FoundRows;
  #sort: Generator<void, Uint32Array, void> | null = null;
  /** Positions in `#all`, in order. */
  #order: Uint32Array | null = null;
  #next = 0;

  constructor(store: MvccStore, request: RangeRequest, point: ReadPoint, count: number | undefined, limits: ReadSlice) {
    this.#store = store;
    this.#request = request;
    this.#limits = limits;
    this.count = count ?? 0;
    this.#countIsKnown = count !== undefined;
    this.#filters = hasRevisionFilters(request);
    this.#limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    const limitsFirst = request.sortOrder === SortOrder.NONE && !this.#filters;
    this.#collectMax = limitsFirst ? this.#limit + 1 : Number.POSITIVE_INFINITY;
    this.#cursor = openCursor(store, request, point);
    const sign = request.sortOrder === SortOrder.DESCEND ? -1 : 1;
    this.#sign = sign;
    const compareTies =
      request.sortTarget === SortTarget.VALUE ? (a: Found, b: Found) => this.#compareValues(a, b) : none;
    this.#compare = (a, b) => sign * (a.by - b.by || compareTies(a, b)) || a.place - b.place;
    this.#all = new FoundRows();
    this.#top = this.#limit <= TOP_ROWS_MAX ? new TopRows(this.#limit, this.#compare) : null;
  }

  /** Shares the collected rows. */
  copy(): RangeRows {
    return new SortedAgain(this, this.#next);
  }

  slice(visit: RawVisitor, bytesMax = this.#limits.bytes): boolean {
    if (!this.#isCollected) this.#collect();
    else if (this.#order === null) this.#sortSlice();
    else {
      this.#next = this.emit(this.#next, visit, bytesMax);
      return this.#next === this.length;
    }
    return false;
  }

  /** Rows of the answer; known once sorted. */
  get length(): number {
    return this.#order === null ? Number.POSITIVE_INFINITY : Math.min(this.#order.length, this.#limit);
  }

  /** Maximum bytes read by one slice. */
  get bytesMax(): number {
    return this.#limits.bytes;
  }

  /** Visits rows from a position of the answer on, and returns the next position. */
  emit(from: number, visit: RawVisitor, bytesMax: number): number {
    const order = this.#order!;
    const { length } = this;
    let bytes = 0;
    let at = from;
    for (let rows = 0; at < length && rows < this.#limits.rows && bytes < bytesMax; rows++) {
      const position = order[at++]!;
      this.#store.readRow(this.#all.mainAt(position), this.#all.subAt(position), slot);
      if (this.#request.keysOnly) encodeKeyOf(slot, this.#all.mainAt(position), this.#request.sortTarget, slot);
      visit(slot.bytes, slot.start, slot.end);
      bytes += slot.end - slot.start;
    }
    return at;
  }

  #collect(): void {
    const request = this.#request;
    const { sortTarget } = request;
    const readsValues = sortTarget === SortTarget.VALUE;
    const limits = this.#limits;
    let bytes = 0;
    let rows = 0;
    this.#cursor.advance(limits.entries, (_key, main, sub, createRevision, version) => {
      if (!this.#countIsKnown) this.count++;
      if (this.#filters && !passesFilters(request, main, createRevision)) return true;
      if (this.#matches >= this.#collectMax) return !this.#countIsKnown;
      let by = version;
      if (sortTarget === SortTarget.CREATE) by = createRevision;
      else if (sortTarget === SortTarget.MOD) by = main;
      else if (readsValues) {
        this.#store.readRow(main, sub, slot);
        by = digitsOf(valueIn(slot), 0);
        bytes += slot.end - slot.start;
      }
      const place = this.#matches++;
      if (this.#top !== null) this.#top.add({ by, main, sub, place });
      else this.#all.push(by, main, sub);
      return !readsValues || (++rows < limits.rows && bytes < limits.bytes);
    });
    const enough = this.#countIsKnown && this.#matches >= this.#collectMax;
    if (!this.#cursor.done && !enough) return;
    this.#isCollected = true;
    this.more = this.#matches > this.#limit;
    if (this.#top === null) return;
    const rowsInOrder = this.#top.sorted();
    this.#top = null;
    for (const { by, main, sub } of rowsInOrder) this.#all.push(by, main, sub);
    this.#order = Uint32Array.from(rowsInOrder, (_, i) => i);
  }

  #sortSlice(): void {
    this.#sort ??= this.#sortAll();
    const { done, value } = this.#sort.next();
    if (done !== true) return;
    this.#order = value;
    this.#sort = null;
  }

  *#sortAll(): Generator<void, Uint32Array, void> {
    const all = this.#all;
    const by = yield* all.takeBy();
    const sign = this.#sign;
    if (this.#request.sortTarget === SortTarget.VALUE) {
      const value = (row: number): Uint8Array => {
        this.#store.readRow(all.mainAt(row), all.subAt(row), slot);
        return valueIn(slot);
      };
      const rows: ValueRows = { length: all.length, by, value };
      return yield* sortByValue(rows, sign, new SliceBudget(this.#limits.rows, this.#limits.bytes));
    }
    const sort = new SliceSort(all.length, (a, b) => sign * (by[a]! - by[b]!));
    while (!sort.step()) yield;
    return sort.order;
  }

  /** Values with a common beginning. */
  #compareValues(a: Found, b: Found): number {
    this.#store.readRow(a.main, a.sub, slot);
    const value = Buffer.from(valueIn(slot));
    this.#store.readRow(b.main, b.sub, slot);
    return Buffer.compare(value, valueIn(slot));
  }
}

/** A second pass over sorted rows. */
class SortedAgain implements RangeRows {
  readonly #rows: SortedRows;
  #next: number;

  constructor(rows: SortedRows, next: number) {
    this.#rows = rows;
    this.#next = next;
  }

  get count(): number {
    return this.#rows.count;
  }

  get more(): boolean {
    return this.#rows.more;
  }

  copy(): RangeRows {
    return new SortedAgain(this.#rows, this.#next);
  }

  slice(visit: RawVisitor, bytesMax = this.#rows.bytesMax): boolean {
    this.#next = this.#rows.emit(this.#next, visit, bytesMax);
    return this.#next === this.#rows.length;
  }
}

const none = (): number => 0;

/** The first `limit` of all added rows: a heap with the last of them at its root. */
class TopRows {
  readonly #limit: number;
  readonly #compare: (a: Found, b: Found) => number;
  readonly #heap: Found[] = [];

  constructor(limit: number, compare: (a: Found, b: Found) => number) {
    this.#limit = limit;
    this.#compare = compare;
  }

  add(row: Found): void {
    const heap = this.#heap;
    if (heap.length < this.#limit) {
      heap.push(row);
      this.#up(heap.length - 1);
    } else if (this.#compare(row, heap[0]!) < 0) {
      heap[0] = row;
      this.#down();
    }
  }

  sorted(): Found[] {
    return this.#heap.sort(this.#compare);
  }

  #up(from: number): void {
    const heap = this.#heap;
    const row = heap[from]!;
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#compare(heap[parent]!, row) >= 0) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = row;
  }

  #down(): void {
    const heap = this.#heap;
    const row = heap[0]!;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#compare(heap[child + 1]!, heap[child]!) > 0) child++;
      if (this.#compare(row, heap[child]!) >= 0) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = row;
  }
}

const CHUNK_ROWS = 8192;

/** Any number of rows, in chunks so that growing copies none. */
class FoundRows {
  length = 0;
  readonly #by: Float64Array[] = [];
  readonly #main: Float64Array[] = [];
  readonly #sub: Uint32Array[] = [];

  push(by: number, main: number, sub: number): void {
    const at = this.length % CHUNK_ROWS;
    if (at === 0) {
      this.#by.push(new Float64Array(CHUNK_ROWS));
      this.#main.push(new Float64Array(CHUNK_ROWS));
      this.#sub.push(new Uint32Array(CHUNK_ROWS));
    }
    const chunk = this.#by.length - 1;
    this.#by[chunk]![at] = by;
    this.#main[chunk]![at] = main;
    this.#sub[chunk]![at] = sub;
    this.length++;
  }

  mainAt(i: number): number {
    return this.#main[Math.floor(i / CHUNK_ROWS)]![i % CHUNK_ROWS]!;
  }

  subAt(i: number): number {
    return this.#sub[Math.floor(i / CHUNK_ROWS)]![i % CHUNK_ROWS]!;
  }

  /** The sort keys in one array, which is no longer held here. */
  *takeBy(): Generator<void, Float64Array, void> {
    const by = new Float64Array(this.length);
    for (let at = 0; this.#by.length > 0; at += CHUNK_ROWS) {
      by.set(this.#by.shift()!.subarray(0, this.length - at), at);
      if (at % (32 * CHUNK_ROWS) === 0) yield;
    }
    return by;
  }
}

// ---- rows as bytes

/** Position of the visited row. One for all: this code is not reentrant. */
const slot: RawSlot = { bytes: Buffer.alloc(0), start: 0, end: 0 };
let scratch = Buffer.allocUnsafeSlow(4096);
/** Tags and numbers of a KeyValue besides its key. */
const KEY_VALUE_FIELDS_MAX = 64;

/** A KeyValue without value and lease, as in a keys-only answer. */
function encodeKey(key: KeyInPlace, createRevision: number, modRevision: number, version: number, out: RawSlot): void {
  const length = key.keyEnd - key.keyStart;
  if (scratch.length < length + KEY_VALUE_FIELDS_MAX) {
    scratch = Buffer.allocUnsafeSlow(2 * (length + KEY_VALUE_FIELDS_MAX));
  }
  let pos = 0;
  if (length > 0) {
    scratch[pos++] = 0x0a;
    pos = writeVarint(scratch, pos, length);
    scratch.set(key.bytes.subarray(key.keyStart, key.keyEnd), pos);
    pos += length;
  }
  pos = writeField(0x10, createRevision, pos);
  pos = writeField(0x18, modRevision, pos);
  pos = writeField(0x20, version, pos);
  out.bytes = scratch;
  out.start = 0;
  out.end = pos;
}

function writeField(tag: number, value: number, pos: number): number {
  if (value === 0) return pos;
  scratch[pos] = tag;
  return writeVarint(scratch, pos + 1, value);
}

const header = kvHeader();

/** The same for a stored row. etcd keeps the lease when it has read the value to sort by it. */
function encodeKeyOf(row: RawSlot, modRevision: number, sortTarget: SortTarget, out: RawSlot): void {
  readKvHeader(row.bytes, row.start, row.end, header);
  const { lease, keyStart, keyEnd } = header;
  encodeKey({ bytes: row.bytes, keyStart, keyEnd }, header.createRevision, modRevision, header.version, out);
  if (lease === 0n || sortTarget !== SortTarget.VALUE) return;
  scratch[out.end++] = 0x30;
  for (let left = BigInt.asUintN(64, lease); ; left >>= 7n) {
    const low = Number(left & 127n);
    scratch[out.end++] = left > 127n ? low | 128 : low;
    if (left <= 127n) break;
  }
}

const NO_VALUE = Buffer.alloc(0);

/** The value of an encoded KeyValue: a view. */
function valueIn({ bytes, start, end }: RawSlot): Uint8Array {
  let pos = start;
  while (pos < end) {
    const tag = bytes[pos++]!;
    let field = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[pos++]!;
      field += (byte & 127) * factor;
      if (byte < 128) break;
    }
    if (tag === 0x2a) return bytes.subarray(pos, pos + field);
    if (tag === 0x0a) pos += field;
  }
  return NO_VALUE;
}
