/**
 * A run of consecutive entries that grows at its end and is trimmed at its start; used by the unstable log and the
 * memory storage. Trimming costs O(1) per dropped entry, amortised; at most half of the array is dead.
 */
import type { Entry } from "../proto/raftpb.ts";
import { entrySize, NO_LIMIT } from "./entry-size.ts";

/** With fewer dead slots, moving the rest is not worth it. */
const DEAD_MIN = 64;

export class EntryList {
  #entries: Entry[] = [];
  #head = 0;

  get length(): number {
    return this.#entries.length - this.#head;
  }

  /** The entry at a position in [0, length). */
  at(position: number): Entry {
    return this.#entries[this.#head + position]!;
  }

  /** A copy of [from, to). */
  slice(from: number, to: number): Entry[] {
    return this.#entries.slice(this.#head + from, this.#head + to);
  }

  /** A copy of the longest prefix of [from, to) within `bytesMax` wire bytes, but never less than one entry. */
  sliceLimited(from: number, to: number, bytesMax: number): Entry[] {
    if (bytesMax >= NO_LIMIT || to - from <= 1) return this.slice(from, to);
    let end = from + 1;
    let bytes = entrySize(this.at(from));
    while (end < to && (bytes += entrySize(this.at(end))) <= bytesMax) end++;
    return this.slice(from, end);
  }

  /** Appends entries[from ..]. */
  push(entries: readonly Entry[], from = 0): void {
    const list = this.#entries;
    for (let i = from; i < entries.length; i++) list.push(entries[i]!);
  }

  /** Keeps only the first `count`. */
  truncate(count: number): void {
    this.#entries.length = this.#head + count;
  }

  dropFirst(count: number): void {
    this.#head += count;
    const { length } = this.#entries;
    if (this.#head === length) this.clear();
    else if (this.#head > DEAD_MIN && this.#head * 2 > length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
  }

  clear(): void {
    this.#entries = [];
    this.#head = 0;
  }
}
