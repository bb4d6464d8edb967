import type { ByteString } from "../mvcc/model/types.ts";

/**
 * The keys of a lease that has, or had, more than one. It also reports recent additions: a caller that has checked all
 * keys once (may this user write them?) need not check a hundred thousand again for each new one.
 */
export class KeySet {
  readonly keys: Set<ByteString>;
  /** No key was ever below `low` or above `high`. */
  low: ByteString;
  high: ByteString;
  /** Keys that were ever added: the version of this set. */
  added = 0;
  /** The most recent additions. */
  #recent: ByteString[] = [];

  constructor(first: ByteString, second: ByteString) {
    this.keys = new Set([first]);
    this.low = first;
    this.high = first;
    this.add(second);
  }

  add(key: ByteString): void {
    if (this.keys.has(key)) return;
    this.keys.add(key);
    if (key < this.low) this.low = key;
    if (key > this.high) this.high = key;
    this.added++;
    this.#recent.push(key);
    if (this.#recent.length >= 2 * RECENT_MAX) this.#recent = this.#recent.slice(-RECENT_MAX);
  }

  /** Keys added since this version of the set; undefined when that is too long ago. */
  addedSince(version: number): readonly ByteString[] | undefined {
    const count = this.added - version;
    if (count === 0) return [];
    return count > this.#recent.length ? undefined : this.#recent.slice(-count);
  }
}

const RECENT_MAX = 512;
