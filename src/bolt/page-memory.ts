/**
 * Memory for pages on their way to the file, used again by the next transaction: new memory of this size comes from the
 * kernel, which fills it with zeros first.
 */

/** Adjacent pages are written together, up to this many bytes. */
export const WRITE_BYTES_MAX = 1024 * 1024;

/** Pieces that are kept. */
const KEPT_MAX = 8;

export class PageMemory {
  readonly #free: Buffer[] = [];
  readonly #taken: Buffer[] = [];

  /** A piece of WRITE_BYTES_MAX with any content. */
  take(): Buffer {
    const piece = this.#free.pop() ?? Buffer.allocUnsafeSlow(WRITE_BYTES_MAX);
    this.#taken.push(piece);
    return piece;
  }

  /** What was taken is in the file. */
  release(): void {
    for (const piece of this.#taken) if (this.#free.length < KEPT_MAX) this.#free.push(piece);
    this.#taken.length = 0;
  }
}
