import { InvariantError } from "../../base/fatal.ts";
import { REVISION_BYTES, TOMBSTONE_BYTES } from "../model/revision.ts";
import type { RevisionVisitor } from "../model/types.ts";
import type { RawSlot } from "./backend.ts";

/** Rows of the bucket key in memory, in columns, ascending by (main, sub). Fast at appending and finding. */
export class RevisionRows {
  readonly #mains: number[] = [];
  readonly #subs: number[] = [];
  readonly #tombstones: boolean[] = [];
  /** Undefined for a deleted row. */
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  #deletedCount = 0;
  #byteCount = 0;

  /** Number of rows that are not deleted. */
  get size(): number {
    return this.#mains.length - this.#deletedCount;
  }

  /** Total bytes of keys and values of the rows that are not deleted. */
  get byteCount(): number {
    return this.#byteCount;
  }

  /** Main revision of the first row, deleted or not; Infinity without rows. */
  get firstMain(): number {
    return this.#mains.length === 0 ? Number.POSITIVE_INFINITY : this.#mains[0]!;
  }

  /** Its sub revision; 0 without rows. */
  get firstSub(): number {
    return this.#mains.length === 0 ? 0 : this.#subs[0]!;
  }

  append(main: number, sub: number, tombstone: boolean, bytes: Uint8Array, start: number, end: number): void {
    const last = this.#mains.length - 1;
    if (last >= 0 && (main < this.#mains[last]! || (main === this.#mains[last]! && sub <= this.#subs[last]!))) {
      throw new InvariantError(`revision ${main}.${sub} is not above ${this.#mains[last]}.${this.#subs[last]}`);
    }
    this.#mains.push(main);
    this.#subs.push(sub);
    this.#tombstones.push(tombstone);
    this.#bytes.push(bytes);
    this.#starts.push(start);
    this.#ends.push(end);
    this.#byteCount += rowBytes(tombstone, start, end);
  }

  /** Finds a row that is not a tombstone. */
  find(main: number, sub: number, out: RawSlot): boolean {
    const at = this.#position(main, sub);
    if (this.#mains[at] !== main || this.#subs[at] !== sub || this.#tombstones[at]) return false;
    const bytes = this.#bytes[at];
    if (bytes === undefined) return false;
    out.bytes = bytes;
    out.start = this.#starts[at]!;
    out.end = this.#ends[at]!;
    return true;
  }

  /** Returns whether the row was there. */
  delete(main: number, sub: number, tombstone: boolean): boolean {
    const at = this.#position(main, sub);
    if (this.#mains[at] !== main || this.#subs[at] !== sub || this.#tombstones[at] !== tombstone) return false;
    if (this.#bytes[at] === undefined) return false;
    this.#bytes[at] = undefined;
    this.#deletedCount++;
    this.#byteCount -= rowBytes(tombstone, this.#starts[at]!, this.#ends[at]!);
    if (at === this.#mains.length - 1) this.#cutTail();
    else if (this.#deletedCount > 1024 && this.#deletedCount * 2 > this.#mains.length) this.#squeeze();
    return true;
  }

  /** Returns false when the visitor stopped it. */
  forEach(fromMain: number, fromSub: number, toMain: number, visit: RevisionVisitor): boolean {
    for (let i = this.#position(fromMain, fromSub); i < this.#mains.length; i++) {
      const main = this.#mains[i]!;
      if (main >= toMain) return true;
      const bytes = this.#bytes[i];
      if (bytes === undefined) continue;
      if (!visit(main, this.#subs[i]!, this.#tombstones[i]!, bytes, this.#starts[i]!, this.#ends[i]!)) return false;
    }
    return true;
  }

  /** First position at or after (main, sub). */
  #position(main: number, sub: number): number {
    let low = 0;
    let high = this.#mains.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const m = this.#mains[middle]!;
      if (m < main || (m === main && this.#subs[middle]! < sub)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Deleted rows at the end are removed at once: others may take their place. */
  #cutTail(): void {
    let length = this.#mains.length;
    while (length > 0 && this.#bytes[length - 1] === undefined) length--;
    this.#deletedCount -= this.#mains.length - length;
    this.#setLength(length);
  }

  #setLength(length: number): void {
    for (const column of [this.#mains, this.#subs, this.#tombstones, this.#bytes, this.#starts, this.#ends]) {
      column.length = length;
    }
  }

  #squeeze(): void {
    let to = 0;
    for (let i = 0; i < this.#mains.length; i++) {
      if (this.#bytes[i] === undefined) continue;
      this.#mains[to] = this.#mains[i]!;
      this.#subs[to] = this.#subs[i]!;
      this.#tombstones[to] = this.#tombstones[i]!;
      this.#bytes[to] = this.#bytes[i];
      this.#starts[to] = this.#starts[i]!;
      this.#ends[to] = this.#ends[i]!;
      to++;
    }
    this.#setLength(to);
    this.#deletedCount = 0;
  }
}

function rowBytes(tombstone: boolean, start: number, end: number): number {
  return (tombstone ? TOMBSTONE_BYTES : REVISION_BYTES) + end - start;
}
