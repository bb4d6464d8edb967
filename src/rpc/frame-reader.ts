/**
 * Splits the socket's input into frames. A frame that is complete in a chunk is passed on in place; a frame that spans
 * chunks is first joined in a buffer of its size, so no byte is copied more than once.
 */
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES } from "./protocol.ts";

export interface FrameSink {
  /** The payload is `buf[start .. end)`, which does not change afterwards. False: stop reading for now. */
  onFrame(buf: Buffer, start: number, end: number, type: number, flags: number, id: number): boolean;
  /** The peer announces a frame above FRAME_BYTES_MAX. Reading stops. */
  onFrameTooLarge(type: number, length: number): void;
}

export class FrameReader {
  readonly #sink: FrameSink;
  /** The start of an incomplete frame. */
  #rest: Buffer | undefined;
  #restLength = 0;
  #stopped = false;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** Returns how much of the chunk was read: all, unless the sink stopped. */
  read(chunk: Buffer): number {
    this.#stopped = false;
    const pos = this.#rest === undefined ? 0 : this.#completeRest(chunk);
    const end = this.#stopped ? pos : this.#frames(chunk, pos, chunk.length);
    if (this.#stopped) return end;
    if (end < chunk.length) this.#keepRest(chunk, end);
    return chunk.length;
  }

  /** Passes on all complete frames. Returns the start of the first incomplete or unwanted one. */
  #frames(buf: Buffer, pos: number, end: number): number {
    while (end - pos >= FRAME_HEADER_BYTES) {
      const length = (buf[pos]! << 16) | (buf[pos + 1]! << 8) | buf[pos + 2]!;
      const type = buf[pos + 3]!;
      if (length > FRAME_BYTES_MAX) return this.#tooLarge(type, length, pos);
      const start = pos + FRAME_HEADER_BYTES;
      const stop = start + length;
      if (stop > end) return pos;
      const flags = buf[pos + 4]!;
      const id = ((buf[pos + 5]! & 0x7f) << 24) | (buf[pos + 6]! << 16) | (buf[pos + 7]! << 8) | buf[pos + 8]!;
      pos = stop;
      if (this.#sink.onFrame(buf, start, stop, type, flags, id)) continue;
      this.#stopped = true;
      return pos;
    }
    return pos;
  }

  #keepRest(chunk: Buffer, pos: number): void {
    const have = chunk.length - pos;
    const need = have < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + chunk.readUIntBE(pos, 3);
    this.#rest = Buffer.allocUnsafeSlow(need);
    this.#restLength = chunk.copy(this.#rest, 0, pos);
  }

  /** Completes the frame that the last chunk began, as far as the chunk reaches. Returns the start of the next. */
  #completeRest(chunk: Buffer): number {
    let pos = 0;
    let rest = this.#rest!;
    if (this.#restLength < FRAME_HEADER_BYTES) {
      pos = Math.min(FRAME_HEADER_BYTES - this.#restLength, chunk.length);
      chunk.copy(rest, this.#restLength, 0, pos);
      this.#restLength += pos;
      if (this.#restLength < FRAME_HEADER_BYTES) return pos;
    }
    const length = rest.readUIntBE(0, 3);
    if (length > FRAME_BYTES_MAX) return this.#tooLarge(rest[3]!, length, pos);
    const need = FRAME_HEADER_BYTES + length;
    if (rest.length < need) {
      const grown = Buffer.allocUnsafeSlow(need);
      rest.copy(grown, 0, 0, this.#restLength);
      this.#rest = rest = grown;
    }
    const take = Math.min(need - this.#restLength, chunk.length - pos);
    chunk.copy(rest, this.#restLength, pos, pos + take);
    this.#restLength += take;
    if (this.#restLength < need) return pos + take;
    this.#rest = undefined;
    this.#restLength = 0;
    this.#frames(rest, 0, need);
    return pos + take;
  }

  #tooLarge(type: number, length: number, pos: number): number {
    this.#stopped = true;
    this.#sink.onFrameTooLarge(type, length);
    return pos;
  }
}
