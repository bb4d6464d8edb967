/**
 * Bytes written piece by piece and joined once, at the end: long pieces are kept by reference and not copied until
 * then. All ropes of one message share a limit. Beyond it, bytes are only counted, not kept.
 */

export class RopeLimit {
  readonly bytesMax: number;
  /** Bytes written into all ropes. */
  bytes = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get isExceeded(): boolean {
    return this.bytes > this.bytesMax;
  }
}

const CHUNK_BYTES_MIN = 64;
const CHUNK_BYTES_MAX = 64 * 1024;
/** Up to this length, bytes are copied in a loop. */
const SHORT_BYTES = 32;
/** Shorter bytes are copied when one rope is added to another. */
const ADOPTED_BYTES_MIN = 1024;

export class Rope {
  length = 0;
  readonly #limit: RopeLimit;
  #chunks: Buffer[] | null = null;
  /** The chunk that is being filled. */
  #last: Buffer = NOTHING;
  #used = 0;

  constructor(limit: RopeLimit) {
    this.#limit = limit;
  }

  byte(value: number): void {
    const at = this.#room(1);
    if (at >= 0) this.#last[at] = value;
  }

  bytes(buf: Uint8Array, start: number, end: number): void {
    const at = this.#room(end - start);
    if (at < 0) return;
    const last = this.#last;
    if (end - start > SHORT_BYTES) last.set(start === 0 && end === buf.length ? buf : buf.subarray(start, end), at);
    else for (let from = start, to = at; from < end; from++, to++) last[to] = buf[from]!;
  }

  /** A varint of up to 53 bits. */
  varint(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.byte((rest % 128) | 128);
      rest = Math.floor(rest / 128);
    }
    this.byte(rest);
  }

  /** A 64-bit varint; negative values in two's complement. */
  varintBig(value: bigint): void {
    let rest = BigInt.asUintN(64, value);
    while (rest >= 128n) {
      this.byte(Number(rest & 127n) | 128);
      rest >>= 7n;
    }
    this.byte(Number(rest));
  }

  /**
   * Takes over the content of another rope of the same message. True when it was copied: the other rope is then empty
   * and may be reused. Otherwise it must not be written again.
   */
  adopt(other: Rope): boolean {
    if (other.length < ADOPTED_BYTES_MIN && other.#chunks === null) {
      // They were counted when they were written.
      this.#limit.bytes -= other.length;
      if (other.length > 0) this.bytes(other.#last, 0, other.length);
      other.length = 0;
      other.#used = 0;
      return true;
    }
    this.length += other.length;
    if (this.#limit.isExceeded) return false;
    this.#seal();
    other.#seal();
    const chunks = (this.#chunks ??= []);
    for (const chunk of other.#chunks ?? []) chunks.push(chunk);
    return false;
  }

  /** All bytes. They are not written to again. */
  finish(): Buffer {
    if (this.#chunks === null) return this.#last.subarray(0, this.#used);
    this.#seal();
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks, this.length)];
    return this.#chunks[0]!;
  }

  /** Drops the bytes but keeps their count. */
  drop(): void {
    this.#chunks = null;
    this.#last = NOTHING;
    this.#used = 0;
  }

  /** Offset for `size` bytes in the last chunk; -1 when they are only counted. */
  #room(size: number): number {
    this.length += size;
    this.#limit.bytes += size;
    if (this.#limit.isExceeded) {
      this.drop();
      return -1;
    }
    if (this.#used + size > this.#last.length) this.#grow(size);
    const at = this.#used;
    this.#used += size;
    return at;
  }

  #grow(size: number): void {
    const used = this.#used;
    if (used + size <= CHUNK_BYTES_MAX) {
      const grown = Buffer.allocUnsafe(Math.min(CHUNK_BYTES_MAX, Math.max(CHUNK_BYTES_MIN, (used + size) * 2)));
      this.#last.copy(grown, 0, 0, used);
      this.#last = grown;
      return;
    }
    this.#seal();
    this.#last = Buffer.allocUnsafeSlow(Math.max(size, CHUNK_BYTES_MAX));
  }

  #seal(): void {
    if (this.#used === 0) return;
    this.#chunks ??= [];
    this.#chunks.push(this.#last.subarray(0, this.#used));
    this.#last = NOTHING;
    this.#used = 0;
  }
}

const NOTHING = Buffer.alloc(0);
