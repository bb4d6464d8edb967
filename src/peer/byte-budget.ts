/** A shared limit on the bodies collected in memory. */
export class ByteBudget {
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Throws when there is no room. Give the bytes back in either case. */
  take(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > this.#bytesMax) throw new Error("too much is posted at one time");
  }

  giveBack(bytes: number): void {
    this.#bytes -= bytes;
  }
}
