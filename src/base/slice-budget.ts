/**
 * How much one slice of long work may still do: so many rows and so many bytes. A count, not a time: what is cut in slices on
 * one member is cut alike on all, and in simulation, where no time passes during a turn.
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

  /** For the next slice. */
  refill(): void {
    this.rows = this.#rowsMax;
    this.bytes = this.#bytesMax;
  }
}
