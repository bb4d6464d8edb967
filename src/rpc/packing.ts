/**
 * The compressed messages of one call on their way to the sender, in order, although large ones take a thread and small
 * ones do not. Waiting bytes count as waiting in the stream, so that back-pressure covers them too.
 */
import { COMPRESS_BYTES_MAX } from "./compression.ts";
import { STREAM_QUEUE_HIGH } from "./protocol.ts";
import type { Stream, Trailers } from "./stream.ts";

export class Packing {
  readonly #stream: Stream;
  /** Waiting messages; a thread works on the first. */
  #waiting: Buffer[] = [];
  #trailers: Trailers | null = null;

  constructor(stream: Stream) {
    this.#stream = stream;
  }

  /** Earlier messages must be sent before this one. */
  get isBusy(): boolean {
    return this.#waiting.length > 0;
  }

  /** Sends a message, or keeps a copy of it. */
  message(bytes: Uint8Array): void {
    const stream = this.#stream;
    if (this.#waiting.length === 0 && this.#sendNow(bytes)) return;
    this.#waiting.push(Buffer.from(bytes));
    stream.connection.sender.hold(stream, bytes.length);
    if (this.#waiting.length === 1) this.#next();
  }

  /** Ends the stream after the waiting messages. */
  trailers(trailers: Trailers): void {
    if (this.isBusy) this.#trailers = trailers;
    else this.#stream.connection.sender.trailers(this.#stream, trailers);
  }

  /** Sends the waiting messages uncompressed: what comes next cannot wait. */
  sendAll(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const bytes of waiting) {
      this.#stream.connection.sender.release(this.#stream, bytes.length);
      this.#stream.connection.sender.message(this.#stream, false, bytes, 0, bytes.length);
    }
  }

  /** Drops the waiting messages; the sender has dropped the stream. */
  drop(): void {
    this.#waiting = [];
    this.#trailers = null;
  }

  #sendNow(bytes: Uint8Array): boolean {
    const { sender, core } = this.#stream.connection;
    if (bytes.length > COMPRESS_BYTES_MAX) {
      sender.message(this.#stream, false, bytes, 0, bytes.length);
      return true;
    }
    const packed = core.compression.compressNow(bytes);
    if (packed === undefined) return false;
    sender.message(this.#stream, true, packed, 0, packed.length);
    return true;
  }

  /** Continues with the first waiting message. Called when no thread is working. */
  #next(): void {
    const { connection } = this.#stream;
    while (this.#waiting.length > 0) {
      const first = this.#waiting[0]!;
      if (!this.#sendNow(first)) {
        const wanted = (): boolean => this.#waiting[0] === first && !this.#stream.localClosed;
        const done = (packed: Buffer | undefined): void => {
          if (wanted()) this.#packed(first, packed);
        };
        if (connection.core.compression.compress(connection, first, wanted, done)) return;
        connection.sender.message(this.#stream, false, first, 0, first.length);
      }
      this.#left(first);
    }
    if (this.#trailers !== null) connection.sender.trailers(this.#stream, this.#trailers);
  }

  #packed(first: Buffer, packed: Buffer | undefined): void {
    const stream = this.#stream;
    const out = packed ?? first;
    stream.connection.sender.message(stream, packed !== undefined, out, 0, out.length);
    this.#left(first);
    this.#next();
    if (!stream.localClosed && stream.queueBytes <= STREAM_QUEUE_HIGH / 2) stream.onQueueDrained();
  }

  /** The sender has the first message. It stays first until then, so that messages sent meanwhile come after it. */
  #left(first: Buffer): void {
    if (this.#waiting[0] !== first) return;
    this.#waiting.shift();
    this.#stream.connection.sender.release(this.#stream, first.length);
  }
}
