/** The streams of one connection, and what is remembered of those that have ended. */
import { EarlyClosed } from "./early-closed.ts";
import type { Stream } from "./stream.ts";

export class StreamTable {
  /** The largest id that the client has used. */
  lastId = 0;
  /** Those that this side ended first. */
  readonly earlyClosed = new EarlyClosed();
  readonly #open = new Map<number, Stream>();
  /** The stream of the last frame; the next frame usually belongs to it too. */
  #recent: Stream | undefined;

  get open(): ReadonlyMap<number, Stream> {
    return this.#open;
  }

  get size(): number {
    return this.#open.size;
  }

  get(id: number): Stream | undefined {
    const recent = this.#recent;
    if (recent !== undefined && recent.id === id) return recent;
    const stream = this.#open.get(id);
    if (stream !== undefined) this.#recent = stream;
    return stream;
  }

  add(stream: Stream): void {
    this.#open.set(stream.id, stream);
    this.#recent = stream;
  }

  delete(stream: Stream): void {
    this.#open.delete(stream.id);
    if (this.#recent === stream) this.#recent = undefined;
  }

  /** The client could not have used this id yet, or may not. */
  isIdle(id: number): boolean {
    return id === 0 || id > this.lastId || (id & 1) === 0;
  }
}
