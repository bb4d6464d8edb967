import { KvorumError } from "../base/errors.ts";
import { Reader } from "../base/protobuf.ts";
import type { Message } from "../proto/raftpb.ts";

/** The stream does not follow its codec's format. It must be closed: what follows cannot be read. */
export class StreamError extends KvorumError {
  override readonly name = "StreamError";
  readonly code = "ERR_PEER_STREAM";
}

/** Largest message, or list of entries, accepted from a stream; etcd's limit. */
export const MESSAGE_BYTES_MAX = 512 * 1024 * 1024;

/** A unit's buffer grows from this size as its bytes arrive, so that a length alone takes no memory. */
const PARTIAL_BYTES_MIN = 64 * 1024;

/** Receives decoded messages. */
export interface MessageSink {
  /** Byte fields of the message may be views of the bytes given to the decoder, which must not be written again. */
  message(message: Message): void;
}

/**
 * Splits a stream of bytes that arrives in pieces of any size into units of known length. A unit that arrives complete
 * is decoded in place. Subclasses define the units and the length of the next one.
 */
export abstract class FrameDecoder {
  protected readonly sink: MessageSink;
  protected readonly reader = new Reader();
  /** Bytes of the next unit. */
  #needed: number;
  /** The beginning of an incomplete unit. */
  #partial: Buffer | null = null;
  #filled = 0;

  protected constructor(sink: MessageSink, firstBytes: number) {
    this.sink = sink;
    this.#needed = firstBytes;
  }

  /** Consumes `buf[start .. end)`. Throws StreamError and ProtobufError; the decoder is unusable after that. */
  push(buf: Buffer, start: number, end: number): void {
    let at = start;
    for (;;) {
      const needed = this.#needed;
      if (this.#partial !== null) {
        at = this.#fill(this.#partial, buf, at, end);
        if (this.#filled < needed) return;
        const unit = this.#partial;
        this.#partial = null;
        this.#filled = 0;
        this.#needed = this.unit(unit, 0, needed);
      } else if (end - at >= needed) {
        at += needed;
        this.#needed = this.unit(buf, at - needed, at);
      } else {
        if (at === end) return;
        this.#partial = Buffer.allocUnsafeSlow(Math.min(needed, Math.max(2 * (end - at), PARTIAL_BYTES_MIN)));
      }
    }
  }

  /** Decodes the unit `buf[start .. end)` and returns the length of the next. */
  protected abstract unit(buf: Buffer, start: number, end: number): number;

  #fill(partial: Buffer, buf: Buffer, start: number, end: number): number {
    const count = Math.min(this.#needed - this.#filled, end - start);
    const filled = this.#filled + count;
    let target = partial;
    if (filled > partial.length) {
      target = Buffer.allocUnsafeSlow(Math.min(this.#needed, Math.max(filled, 2 * partial.length)));
      partial.copy(target, 0, 0, this.#filled);
      this.#partial = target;
    }
    buf.copy(target, this.#filled, start, start + count);
    this.#filled = filled;
    return start + count;
  }
}

/** A length of eight bytes, big-endian. Throws StreamError when it is larger than `max`. */
export function readLength(buf: Buffer, at: number, max: number): number {
  const length = readUint64(buf, at);
  if (length > max) throw new StreamError(`a length of ${length} exceeds the limit of ${max}`);
  return length;
}

export function readUint64(buf: Buffer, at: number): number {
  return buf.readUInt32BE(at) * 2 ** 32 + buf.readUInt32BE(at + 4);
}
