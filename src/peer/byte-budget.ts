/** What bodies that are gathered in memory may take, all together. */
export class ByteBudget {
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Throws when there is no room. What was taken must be given back either way. */
  take(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > this.#bytesMax) throw new Error("too much is posted at one time");
  }

  giveBack(bytes: number): void {
    this.#bytes -= bytes;
  }
}
