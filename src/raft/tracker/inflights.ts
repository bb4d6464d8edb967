/**
 * The window of MsgApp in flight to one follower: a ring of (last index, bytes), limited by count and by bytes. The
 * byte limit is soft: one message may cross it.
 */
import { broken } from "../../base/fatal.ts";

export class Inflights {
  readonly countMax: number;
  readonly bytesMax: number;
  /** Rings of equal length, grown together. */
  #indexes: number[] = [];
  #bytes: number[] = [];
  #start = 0;
  #count = 0;
  #bytesTotal = 0;

  constructor(countMax: number, bytesMax: number) {
    this.countMax = countMax;
    this.bytesMax = bytesMax;
  }

  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytesTotal;
  }

  get full(): boolean {
    return this.#count === this.countMax || this.#bytesTotal >= this.bytesMax;
  }

  /** Records a message that ends at `index`. Indexes must rise, and the window must not be full. */
  add(index: number, bytes: number): void {
    if (this.full) broken("cannot add into a Full inflights");
    if (this.#count === this.#indexes.length) this.#grow();
    let at = this.#start + this.#count;
    if (at >= this.#indexes.length) at -= this.#indexes.length;
    this.#indexes[at] = index;
    this.#bytes[at] = bytes;
    this.#count++;
    this.#bytesTotal += bytes;
  }

  /** Frees all messages that end at or before `index`. */
  freeTo(index: number): void {
    while (this.#count > 0 && this.#indexes[this.#start]! <= index) {
      this.#bytesTotal -= this.#bytes[this.#start]!;
      this.#count--;
      if (++this.#start === this.#indexes.length) this.#start = 0;
    }
    if (this.#count === 0) this.#start = 0;
  }

  reset(): void {
    this.#start = 0;
    this.#count = 0;
    this.#bytesTotal = 0;
  }

  /** Doubles the rings, unrolled to start at 0. Grown on demand: most followers never fill their window. */
  #grow(): void {
    const length = this.#indexes.length;
    const grown = Math.min(Math.max(4, length * 2), this.countMax);
    const indexes = new Array<number>(grown).fill(0);
    const bytes = new Array<number>(grown).fill(0);
    for (let i = 0; i < this.#count; i++) {
      const at = (this.#start + i) % length;
      indexes[i] = this.#indexes[at]!;
      bytes[i] = this.#bytes[at]!;
    }
    this.#indexes = indexes;
    this.#bytes = bytes;
    this.#start = 0;
  }
}
