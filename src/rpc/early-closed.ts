/**
 * Streams that we ended before the client did. What it had sent for them by then is no mistake of its own: as much as it
 * may have had on the way is ignored, the rest is charged like any frame without effect.
 */
import { STREAMS_MAX } from "./protocol.ts";

/** A frame with the least useful message is larger than so many bytes: bounds the frames that a window can hold. */
const FRAME_BYTES_LEAST = 16;
/** Frames to come that are forgiven at once, of all streams together. */
const FORGIVEN_MAX = 1_000_000;

export class EarlyClosed {
  /** In the order in which they were ended. */
  readonly #ids = new Set<number>();
  #forgiven = 0;

  /** `window`: bytes that the client might still send on the stream. */
  add(id: number, window: number): void {
    if (this.#ids.size >= STREAMS_MAX) {
      for (const oldest of this.#ids) {
        this.#ids.delete(oldest);
        break;
      }
    }
    this.#ids.add(id);
    const frames = 1 + Math.floor(Math.max(0, window) / FRAME_BYTES_LEAST);
    this.#forgiven = Math.min(FORGIVEN_MAX, this.#forgiven + frames);
  }

  has(id: number): boolean {
    return this.#ids.has(id);
  }

  /** The client has ended it too: nothing more may come. True when it was one of these. */
  delete(id: number): boolean {
    return this.#ids.delete(id);
  }

  /** A frame came for one of them; false when there are more of those than could have been on the way. */
  forgive(): boolean {
    if (this.#forgiven === 0) return false;
    this.#forgiven--;
    return true;
  }
}
