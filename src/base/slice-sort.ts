/**
 * A stable sort in slices, for lists so long that sorting them at once would hold everybody up: runs are sorted one a step,
 * then merged a piece a step. Sorts positions, not elements: `order` at the end says which element comes first, second, …
 */
export class SliceSort {
  /** Positions in order, once `step` has said true. */
  order: Uint32Array;
  readonly #compare: (a: number, b: number) => number;
  readonly #runLength: number;
  readonly #pieceLength: number;
  #other: Uint32Array;
  /** Length of the runs that are sorted in themselves; 0 while the first are being made. */
  #run = 0;
  /** Where the next step goes on. */
  #at = 0;
  /** The two runs being merged: where each stands. */
  #left = 0;
  #right = 0;

  /** `compare` gets two positions, and may be 0 for equal ones: the earlier comes first. It is costly when it reads something. */
  constructor(length: number, compare: (a: number, b: number) => number, isCostly = false) {
    this.#runLength = isCostly ? COSTLY_RUN_LENGTH : RUN_LENGTH;
    this.#pieceLength = isCostly ? COSTLY_PIECE : MERGE_PIECE;
    this.order = new Uint32Array(length);
    for (let i = 0; i < length; i++) this.order[i] = i;
    this.#other = new Uint32Array(length > this.#runLength ? length : 0);
    this.#compare = (a, b) => compare(a, b) || a - b;
  }

  /** Goes on for about a millisecond. True when `order` is in order. */
  step(): boolean {
    return this.#run === 0 ? this.#sortRun() : this.#mergePiece();
  }

  #sortRun(): boolean {
    const { order } = this;
    const run = this.#runLength;
    order.subarray(this.#at, this.#at + run).sort(this.#compare);
    this.#at += run;
    if (this.#at < order.length) return false;
    return this.#nextRound(run);
  }

  #nextRound(run: number): boolean {
    this.#run = run;
    this.#at = 0;
    this.#beginPair();
    return run >= this.order.length;
  }

  #beginPair(): void {
    this.#left = this.#at;
    this.#right = Math.min(this.#at + this.#run, this.order.length);
  }

  #mergePiece(): boolean {
    const from = this.order;
    const to = this.#other;
    const compare = this.#compare;
    const { length } = from;
    const pieceEnd = Math.min(this.#at + this.#pieceLength, length);
    let at = this.#at;
    let left = this.#left;
    let right = this.#right;
    while (at < pieceEnd) {
      const pairStart = at - (at % (2 * this.#run));
      const leftEnd = Math.min(pairStart + this.#run, length);
      const rightEnd = Math.min(pairStart + 2 * this.#run, length);
      const end = Math.min(pieceEnd, rightEnd);
      while (at < end) {
        const takesLeft = left < leftEnd && (right >= rightEnd || compare(from[left]!, from[right]!) < 0);
        to[at++] = takesLeft ? from[left++]! : from[right++]!;
      }
      if (at === rightEnd) {
        left = at;
        right = Math.min(at + this.#run, length);
      }
    }
    this.#at = at;
    this.#left = left;
    this.#right = right;
    if (at < length) return false;
    this.order = to;
    this.#other = from;
    return this.#nextRound(this.#run * 2);
  }
}

const RUN_LENGTH = 1024;
const MERGE_PIECE = 8192;
const COSTLY_RUN_LENGTH = 8;
const COSTLY_PIECE = 16;
