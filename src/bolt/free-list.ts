/**
 * The free pages of a bbolt file, and those that become free once no reader needs them.
 *
 * A page that transaction T frees is pending: readers of the states before T still see it. `release` frees pending
 * pages, given the current readers. Only free pages are allocated, so a commit never overwrites pages of the previous
 * state or of a state being read: that makes a crash harmless.
 *
 * Memory: two bits per page of the file, and the ids of pending pages.
 */
import { BoltError } from "./format.ts";

interface Pending {
  readonly ids: number[];
  /** Transaction of each allocation; 0 where no earlier reader was possible. */
  readonly allocatedAt: number[];
}

export class FreeList {
  readonly #file: string;
  #free = new PageBits();
  #pendingBits = new PageBits();
  readonly #pending = new Map<number, Pending>();
  /** By first page, for runs of pages allocated while an older state was being read. */
  readonly #allocatedAt = new Map<number, number>();
  #isRead = false;
  /** By run length, where the next search continues: there is no such run below. */
  readonly #searchFrom = new Map<number, number>();

  constructor(file: string) {
    this.#file = file;
  }

  get freeCount(): number {
    return this.#free.count;
  }

  get pendingCount(): number {
    return this.#pendingBits.count;
  }

  has(id: number): boolean {
    return this.#free.has(id);
  }

  /** Marks a page as free, while a file is being opened. */
  add(id: number): void {
    this.#free.add(id);
  }

  /** Allocates `count` consecutive free pages and returns the first; 0 when there are none. */
  allocate(count: number, txid: number): number {
    const from = this.#searchFrom.get(count) ?? 2;
    const id = this.#free.findRun(count, from);
    this.#searchFrom.set(count, id === 0 ? Number.POSITIVE_INFINITY : id + count);
    if (id === 0) return 0;
    for (let page = id; page < id + count; page++) this.#free.remove(page);
    this.noteAllocation(id, txid);
    return id;
  }

  /** Records that `txid` allocated the run at `id`, here or at the end of the file. */
  noteAllocation(id: number, txid: number): void {
    if (this.#isRead) this.#allocatedAt.set(id, txid);
  }

  /** Transaction `txid` no longer needs the pages from `id` on. Throws BoltError when one of them was already free. */
  free(id: number, span: number, txid: number): void {
    let pending = this.#pending.get(txid);
    if (pending === undefined) this.#pending.set(txid, (pending = { ids: [], allocatedAt: [] }));
    const allocatedAt = this.#allocatedAt.get(id) ?? 0;
    this.#allocatedAt.delete(id);
    for (let page = id; page < id + span; page++) {
      if (page < 2 || this.#free.has(page) || this.#pendingBits.has(page)) {
        throw new BoltError(
          "damaged",
          this.#file,
          page,
          "is freed, though it is free: it belongs to two places at once",
        );
      }
      this.#pendingBits.add(page);
      pending.ids.push(page);
      pending.allocatedAt.push(allocatedAt);
    }
  }

  /**
   * Frees the pending pages that none of `readers` sees: transaction ids of the states being read, in any order. A
   * reader of state R sees the pages allocated at or before R and freed after it.
   */
  release(readers: readonly number[]): void {
    this.#isRead = readers.length > 0;
    if (!this.#isRead) this.#allocatedAt.clear();
    const ascending = [...readers].sort((a, b) => a - b);
    for (const [txid, pending] of this.#pending) {
      let kept = 0;
      const { ids, allocatedAt } = pending;
      for (let i = 0; i < ids.length; i++) {
        if (isSeen(ascending, allocatedAt[i]!, txid)) {
          ids[kept] = ids[i]!;
          allocatedAt[kept++] = allocatedAt[i]!;
          continue;
        }
        this.#pendingBits.remove(ids[i]!);
        this.#free.add(ids[i]!);
      }
      ids.length = kept;
      allocatedAt.length = kept;
      if (kept === 0) this.#pending.delete(txid);
    }
    this.#searchFrom.clear();
  }

  /** All free and pending pages, ascending: the list stored in a file, whose readers end with the process. */
  *ids(): Generator<number, void, void> {
    const end = Math.max(this.#free.end, this.#pendingBits.end);
    for (let id = 2; id < end; id++) if (this.#free.has(id) || this.#pendingBits.has(id)) yield id;
  }
}

/** Whether a reader is in [allocated, freed). */
function isSeen(ascending: readonly number[], allocated: number, freed: number): boolean {
  for (const reader of ascending) if (reader >= allocated) return reader < freed;
  return false;
}

/** A set of page ids, one bit each. */
class PageBits {
  #words = new Uint32Array(64);
  count = 0;

  /** No page at or above this is in the set. */
  get end(): number {
    return this.#words.length * 32;
  }

  has(id: number): boolean {
    const word = this.#words[Math.floor(id / 32)];
    return word !== undefined && (word & (1 << (id & 31))) !== 0;
  }

  add(id: number): void {
    const at = Math.floor(id / 32);
    if (at >= this.#words.length) {
      const grown = new Uint32Array(Math.max(at + 1, this.#words.length * 2));
      grown.set(this.#words);
      this.#words = grown;
    }
    if (this.has(id)) return;
    this.#words[at]! |= 1 << (id & 31);
    this.count++;
  }

  remove(id: number): void {
    if (!this.has(id)) return;
    this.#words[Math.floor(id / 32)]! &= ~(1 << (id & 31));
    this.count--;
  }

  /** The lowest run of `length` ids at or above `from`; 0 when there is none. */
  findRun(length: number, from: number): number {
    if (this.count < length) return 0;
    const words = this.#words;
    let start = 0;
    let found = 0;
    for (let id = from; id < this.end; ) {
      const word = words[id >>> 5]!;
      if ((id & 31) === 0 && (word === 0 || (word === 0xffff_ffff && length - found > 32))) {
        if (word === 0) found = 0;
        else {
          if (found === 0) start = id;
          found += 32;
        }
        id += 32;
        continue;
      }
      if ((word & (1 << (id & 31))) === 0) found = 0;
      else {
        if (found === 0) start = id;
        if (++found === length) return start;
      }
      id++;
    }
    return 0;
  }
}
