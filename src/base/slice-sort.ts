/**
 * A stable sort in slices, for lists too long to sort in one turn: each step sorts one run, then merges one piece.
 * Sorts positions, not elements: at the end `order` says which element comes first, second, …
 */
export class SliceSort {
  /** Positions in order, once `step` has returned true. */
  order: Uint32Array;
  readonly #compare: (a: number, b: number) => number;
  readonly #runLength: number;
  readonly #pieceLength: number;
  #other: Uint32Array;
  /** Length of the sorted runs; 0 while the first runs are being sorted. */
  #run = 0;
  /** Where the next step continues. */
  #at = 0;
  /** Positions in the two runs being merged. */
  #left = 0;
  #right = 0;

  /**
   * `compare` gets two positions; 0 means equal, and the earlier comes first. It is expensive when it reads something.
   */
  constructor(length: number, compare: (a: number, b: number) => number, isCostly = false) {
    this.#runLength = isCostly ? COSTLY_RUN_LENGTH : RUN_LENGTH;
    this.#pieceLength = isCostly ? COSTLY_PIECE : MERGE_PIECE;
    this.order = new Uint32Array(length);
    for (let i = 0; i < length; i++) this.order[i] = i;
    this.#other = new Uint32Array(length > this.#runLength ? length : 0);
    this.#compare = (a, b) => compare(a, b) || a - b;
  }

  /** Works for about a millisecond. True when `order` is complete. */
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
