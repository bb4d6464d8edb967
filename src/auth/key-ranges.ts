import type { ByteString } from "../mvcc/model/types.ts";

/**
 * A set of keys, given as ranges and stored as disjoint ascending ranges: a lookup is a binary search, and a range may
 * span several of those given. An end of "" means no end.
 */
export class KeyRanges {
  readonly #starts: ByteString[] = [];
  readonly #ends: ByteString[] = [];

  constructor(ranges: readonly KeyRange[]) {
    const sorted = ranges.filter(({ start, end }) => isBelow(start, end));
    sorted.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
    for (const { start, end } of sorted) {
      const last = this.#ends.length - 1;
      const lastEnd = this.#ends[last];
      if (lastEnd === undefined || (lastEnd !== "" && lastEnd < start)) {
        this.#starts.push(start);
        this.#ends.push(end);
      } else if (lastEnd !== "" && isBelow(lastEnd, end)) this.#ends[last] = end;
    }
  }

  hasKey(key: ByteString): boolean {
    const at = this.#find(key);
    return at >= 0 && isBelow(key, this.#ends[at]!);
  }

  /** True when every key in [`start`, `end`) is in the set. */
  hasRange(start: ByteString, end: ByteString): boolean {
    const at = this.#find(start);
    if (at < 0) return false;
    const mostEnd = this.#ends[at]!;
    return isBelow(start, mostEnd) && (mostEnd === "" || (end !== "" && end <= mostEnd));
  }

  /** The last range that does not start after the key, or -1. */
  #find(key: ByteString): number {
    const starts = this.#starts;
    let low = 0;
    let high = starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (starts[middle]! <= key) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

export interface KeyRange {
  readonly start: ByteString;
  readonly end: ByteString;
}

function isBelow(key: ByteString, end: ByteString): boolean {
  return end === "" || key < end;
}
