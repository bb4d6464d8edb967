/**
 * How much one slice of long work may still do, in rows and bytes. A count, not a time, so that every member, and the
 * simulation (where no time passes during a turn), cuts the same slices.
 */
export class SliceBudget {
  rows: number;
  bytes: number;
  readonly #rowsMax: number;
  readonly #bytesMax: number;

  constructor(rowsMax: number, bytesMax: number) {
    this.#rowsMax = rowsMax;
    this.#bytesMax = bytesMax;
    this.rows = rowsMax;
    this.bytes = bytesMax;
  }

  get isSpent(): boolean {
    return this.rows <= 0 || this.bytes <= 0;
  }

  spend(rows: number, bytes: number): void {
    this.rows -= rows;
    this.bytes -= bytes;
  }

  /** Restores the budget for the next slice. */
  refill(): void {
    this.rows = this.#rowsMax;
    this.bytes = this.#bytesMax;
  }
}
