/**
 * Assembles the messages of one call from data frames, which may split them anywhere. Created only when needed: most
 * calls have one message in one frame.
 *
 * A body's memory is allocated as it arrives, not when its prefix announces it.
 */
export interface MessageSink {
  /** The call is over: no more input is wanted. */
  readonly isOver: boolean;
  /** The largest message accepted. */
  readonly messageBytesMax: number;
  /** Charges held bytes to the call. False when the limit is exceeded and the call has failed. */
  holdRequest(bytes: number): boolean;
  releaseRequest(bytes: number): void;
  onMessageBytes(flag: number, bytes: Uint8Array): void;
  onMessageTooLarge(bytes: number): void;
}

const PREFIX_BYTES = 5;
const BODY_BYTES_FIRST = 16 * 1024;
/** Beyond this a body's buffer more than doubles, to copy less. */
const BODY_BYTES_GROWN = 1024 * 1024;

export class Assembly {
  readonly #sink: MessageSink;
  /** Bytes of the current message's prefix so far, and their content. */
  #prefixBytes = 0;
  #flag = 0;
  #length = 0;
  #body: Buffer | null = null;
  #bodyBytes = 0;

  constructor(sink: MessageSink) {
    this.#sink = sink;
  }

  /** A message has begun and is incomplete. */
  get isInside(): boolean {
    return this.#prefixBytes > 0;
  }

  /** Its prefix is complete too. */
  get isInsideBody(): boolean {
    return this.#prefixBytes === PREFIX_BYTES;
  }

  /** Returns how many messages were completed. */
  take(buf: Buffer, start: number, end: number): number {
    const sink = this.#sink;
    let completed = 0;
    let pos = start;
    while (pos < end && !sink.isOver) {
      if (this.#prefixBytes < PREFIX_BYTES) {
        const byte = buf[pos++]!;
        if (this.#prefixBytes === 0) this.#flag = byte;
        else this.#length = this.#length * 256 + byte;
        if (++this.#prefixBytes < PREFIX_BYTES) continue;
        if (this.#length > sink.messageBytesMax) {
          sink.onMessageTooLarge(this.#length);
          return completed;
        }
      }
      const length = this.#length;
      const bytes = Math.min(length - this.#bodyBytes, end - pos);
      if (this.#body === null && bytes === length) {
        const message = buf.subarray(pos, pos + length);
        pos += length;
        completed++;
        this.#complete(message);
        continue;
      }
      if (bytes === 0 || !this.#grow(this.#bodyBytes + bytes)) return completed;
      buf.copy(this.#body!, this.#bodyBytes, pos, pos + bytes);
      this.#bodyBytes += bytes;
      pos += bytes;
      if (this.#bodyBytes === length) {
        const message = this.#body!.subarray(0, length);
        this.drop();
        completed++;
        this.#complete(message);
      }
    }
    return completed;
  }

  /** Drops an incomplete message. */
  drop(): void {
    if (this.#body === null) return;
    this.#sink.releaseRequest(this.#body.length);
    this.#body = null;
  }

  #complete(message: Uint8Array): void {
    const flag = this.#flag;
    this.#prefixBytes = 0;
    this.#length = 0;
    this.#bodyBytes = 0;
    this.#sink.onMessageBytes(flag, message);
  }

  #grow(bytes: number): boolean {
    const have = this.#body === null ? 0 : this.#body.length;
    if (bytes <= have) return true;
    const grown = have * (have < BODY_BYTES_GROWN ? 2 : 4);
    const size = Math.min(this.#length, Math.max(BODY_BYTES_FIRST, bytes, grown));
    if (!this.#sink.holdRequest(size - have)) return false;
    const body = Buffer.allocUnsafeSlow(size);
    this.#body?.copy(body, 0, 0, this.#bodyBytes);
    this.#body = body;
    return true;
  }
}
