/**
 * Streams that this side ended before the client did. Frames the client had already sent for them are not its error: as
 * many as could have been in flight are ignored, the rest is charged like any frame without effect.
 */
import { STREAMS_MAX } from "./protocol.ts";

/** The smallest useful message makes a frame larger than this, which bounds the frames a window can hold. */
const FRAME_BYTES_LEAST = 16;
/** Limit on forgiven frames, for all streams together. */
const FORGIVEN_MAX = 1_000_000;

export class EarlyClosed {
  /** In the order in which they ended. */
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

  /** The client has ended the stream too: no more frames may come. True when the stream was listed. */
  delete(id: number): boolean {
    return this.#ids.delete(id);
  }

  /** A frame arrived for a listed stream; false when there are more than could have been in flight. */
  forgive(): boolean {
    if (this.#forgiven === 0) return false;
    this.#forgiven--;
    return true;
  }
}
