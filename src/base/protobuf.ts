/**
 * The runtime of the generated messages in proto/: a reader and a writer of the protobuf wire format.
 *
 * The writer fills its buffer from the back to the front, so the length of a nested message is known when its prefix is
 * written and no size has to be computed first. 64-bit integers are `number` (exact below 2^53, rounded above, which
 * keeps their order) or, for ids, `bigint`. Source: https://protobuf.dev/programming-guides/encoding/
 */
import { KvorumError } from "./errors.ts";

/** The bytes are not a well-formed message. The text says what is wrong and at which offset. */
export class ProtobufError extends KvorumError {
  override name = "ProtobufError";
  readonly code = "ERR_PROTOBUF";
}

export const EMPTY_BYTES: Buffer = Buffer.alloc(0);

/** Deepest nesting that a message may have. Only transactions nest; etcd's clients stay below three. */
export const NESTING_DEPTH_MAX = 256;

const TWO_32 = 2 ** 32;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Rejects what Go's decoder rejects, because a stock etcd member stops at a log entry that it cannot decode, and the
 * log carries a request as the client sent it.
 */
export class Reader {
  buf: Uint8Array = EMPTY_BYTES;
  pos = 0;
  end = 0;
  depth = 0;
  /** Signed upper half of the varint that `#low` read last. */
  #high = 0;

  reset(buf: Uint8Array, start = 0, end = buf.length): this {
    this.buf = buf;
    this.pos = start;
    this.end = end;
    this.depth = 0;
    return this;
  }

  /** Field number and wire type. */
  tag(): number {
    const tag = this.#low();
    if (this.#high !== 0) throw new ProtobufError(`illegal field number at offset ${this.pos}`);
    return tag;
  }

  /** Varint below 2^32, the upper bits dropped. */
  uint32(): number {
    return this.#low();
  }

  int32(): number {
    return this.#low() | 0;
  }

  bool(): boolean {
    return this.#low() !== 0 || this.#high !== 0;
  }

  /** Reads a varint: returns the lower half of its 64 bits and leaves the upper in `#high`. */
  #low(): number {
    const { buf, end } = this;
    let pos = this.pos;
    let low = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      if (pos >= end) this.#truncated();
      const byte = buf[pos++]!;
      low |= (byte & 127) << shift;
      if (byte < 128) {
        this.pos = pos;
        this.#high = 0;
        return low;
      }
    }
    return this.#lowOfLong(low, pos);
  }

  /** Continues after the first four bytes. */
  #lowOfLong(first: number, start: number): number {
    const { buf, end } = this;
    let pos = start;
    let low = first;
    let high = 0;
    for (let shift = 28; shift < 70; shift += 7) {
      if (pos >= end) this.#truncated();
      const byte = buf[pos++]!;
      if (shift === 28) {
        low |= byte << 28;
        high = (byte & 127) >>> 4;
      } else high |= (byte & 127) << (shift - 32);
      if (byte < 128) {
        if (shift === 63 && byte > 1) break;
        this.pos = pos;
        this.#high = high;
        return low >>> 0;
      }
    }
    throw new ProtobufError(`varint longer than 64 bits at offset ${this.pos}`);
  }

  uint64(): number {
    const low = this.#low();
    return this.#high === 0 ? low : (this.#high >>> 0) * TWO_32 + low;
  }

  int64(): number {
    const low = this.#low();
    return this.#high === 0 ? low : this.#high * TWO_32 + low;
  }

  uint64Big(): bigint {
    return BigInt.asUintN(64, this.int64Big());
  }

  int64Big(): bigint {
    const low = this.#low();
    if (this.#high === 0) return low === 0 ? 0n : BigInt(low);
    return (BigInt(this.#high) << 32n) | BigInt(low);
  }

  double(): number {
    const start = this.#take(8);
    return new DataView(this.buf.buffer, this.buf.byteOffset + start, 8).getFloat64(0, true);
  }

  /** A view into the input, not a copy. */
  bytes(): Uint8Array {
    const start = this.#take(this.#length());
    return start === this.pos ? EMPTY_BYTES : this.buf.subarray(start, this.pos);
  }

  /** Skips a length and the bytes it covers, and returns where those start; they end at `pos`. */
  span(): number {
    return this.#take(this.#length());
  }

  string(): string {
    const start = this.#take(this.#length());
    if (start === this.pos) return "";
    try {
      return utf8.decode(this.buf.subarray(start, this.pos));
    } catch {
      throw new ProtobufError(`string field at offset ${start} contains invalid UTF-8`);
    }
  }

  #length(): number {
    const length = this.#low();
    return this.#high === 0 ? length : this.#truncated();
  }

  /** Skips `length` bytes and returns where they start. */
  #take(length: number): number {
    const start = this.pos;
    if (length > this.end - start) this.#truncated();
    this.pos = start + length;
    return start;
  }

  /** Reads a length and returns the offset where the nested message ends. */
  nested(): number {
    const length = this.#length();
    const stop = this.pos + length;
    if (stop > this.end) this.#truncated();
    this.#descend();
    return stop;
  }

  #descend(): void {
    if (++this.depth > NESTING_DEPTH_MAX) {
      throw new ProtobufError(`messages nested deeper than ${NESTING_DEPTH_MAX} levels`);
    }
  }

  /** Checks that a nested message ended where its length said. */
  leave(stop: number): void {
    if (this.pos !== stop) this.overrun(stop);
    this.depth--;
  }

  /** Skips the field of this tag, which the message's reader does not know. */
  skip(tag: number): void {
    if (tag >>> 3 === 0) throw new ProtobufError(`illegal field number 0 at offset ${this.pos}`);
    switch (tag & 7) {
      case 0:
        this.#low();
        return;
      case 1:
        this.#take(8);
        return;
      case 2:
        this.#take(this.#length());
        return;
      case 3:
        this.#skipGroup(tag);
        return;
      case 5:
        this.#take(4);
        return;
      default:
        throw new ProtobufError(`unexpected wire type ${tag & 7} at offset ${this.pos}`);
    }
  }

  #skipGroup(startTag: number): void {
    this.#descend();
    // The end's wire type is the start's plus one.
    for (let tag = this.tag(); tag !== startTag + 1; tag = this.tag()) this.skip(tag);
    this.depth--;
  }

  overrun(end: number): never {
    throw new ProtobufError(`message overruns its length at offset ${end}`);
  }

  #truncated(): never {
    throw new ProtobufError(`message ends inside a field at offset ${this.end}`);
  }
}

/** Messages are written into chunks of this size, back to front, each byte once, so that none is copied. */
const CHUNK_BYTES = 64 * 1024;

export class Writer {
  buf: Buffer = EMPTY_BYTES;
  /** Offset of the first written byte; the message is `buf[pos .. end)`. */
  pos = 0;
  /** Finished messages follow it. */
  #end = 0;

  reset(): this {
    this.pos = this.#end;
    return this;
  }

  get length(): number {
    return this.#end - this.pos;
  }

  /** Returns the message. Its bytes are not written to again. */
  finish(): Buffer {
    const out = this.buf.subarray(this.pos, this.#end);
    // A message larger than a chunk keeps the memory it needed.
    if (this.buf.length > CHUNK_BYTES) {
      this.buf = EMPTY_BYTES;
      this.pos = 0;
    }
    this.#end = this.pos;
    return out;
  }

  #reserve(size: number): number {
    if (this.pos < size) this.#grow(size);
    return (this.pos -= size);
  }

  /** Continues in a new chunk, with what is already written of this message. */
  #grow(size: number): void {
    const used = this.#end - this.pos;
    const needed = used + size;
    const grown = Buffer.allocUnsafeSlow(needed <= CHUNK_BYTES / 2 ? CHUNK_BYTES : needed * 2);
    this.buf.copy(grown, grown.length - used, this.pos, this.#end);
    this.buf = grown;
    this.#end = grown.length;
    this.pos = grown.length - used;
  }

  /** A one-byte tag, as every field number below 16 has, or a longer one. */
  tag(tag: number): void {
    if (tag < 128) {
      const pos = this.#reserve(1);
      this.buf[pos] = tag;
    } else this.uint32(tag);
  }

  uint32(value: number): void {
    if (value < 128) {
      const pos = this.#reserve(1);
      this.buf[pos] = value;
      return;
    }
    const size = value < 16384 ? 2 : value < 2097152 ? 3 : value < 268435456 ? 4 : 5;
    let pos = this.#reserve(size);
    const { buf } = this;
    while (value >= 128) {
      buf[pos++] = (value & 127) | 128;
      value >>>= 7;
    }
    buf[pos] = value;
  }

  int32(value: number): void {
    if (value >= 0) this.uint32(value);
    else this.#split(value >>> 0, 0xffffffff);
  }

  bool(value: boolean): void {
    const pos = this.#reserve(1);
    this.buf[pos] = value ? 1 : 0;
  }

  /** Reading rounds the largest values up to 2^63, which must stay positive. */
  int64(value: number): void {
    if (value >= 0 && value < TWO_32) this.uint32(value);
    else if (value >= 2 ** 63) this.#split(0xffffffff, 0x7fffffff);
    else this.#halves(value);
  }

  uint64(value: number): void {
    if (value >= 0 && value < TWO_32) this.uint32(value);
    else if (value >= 2 ** 64) this.#split(0xffffffff, 0xffffffff);
    else this.#halves(value);
  }

  /** A negative number becomes its two's complement. */
  #halves(value: number): void {
    const high = Math.floor(value / TWO_32);
    this.#split((value - high * TWO_32) >>> 0, high >>> 0);
  }

  int64Big(value: bigint): void {
    if (value === 0n) return this.uint32(0);
    const unsigned = BigInt.asUintN(64, value);
    this.#split(Number(unsigned & 0xffffffffn), Number(unsigned >> 32n));
  }

  #split(low: number, high: number): void {
    if (high === 0) {
      this.uint32(low);
      return;
    }
    let size = 5;
    for (let rest = high >>> 3; rest > 0; rest >>>= 7) size++;
    let pos = this.#reserve(size);
    const { buf } = this;
    for (let i = 1; i < size; i++) {
      buf[pos++] = (low & 127) | 128;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    buf[pos] = low;
  }

  double(value: number): void {
    const pos = this.#reserve(8);
    this.buf.writeDoubleLE(value, pos);
  }

  /** Raw bytes without a length. */
  raw(value: Uint8Array): void {
    const { length } = value;
    const pos = this.#reserve(length);
    const { buf } = this;
    if (length < 24) for (let i = 0; i < length; i++) buf[pos + i] = value[i]!;
    else buf.set(value, pos);
  }

  bytes(value: Uint8Array): void {
    this.raw(value);
    this.uint32(value.length);
  }

  string(value: string): void {
    const length = Buffer.byteLength(value);
    const pos = this.#reserve(length);
    this.buf.write(value, pos, "utf8");
    this.uint32(length);
  }
}

/** The codec of one message type, as the generator emits it. */
export interface Codec<T> {
  readonly typeName: string;
  /** A message with defaults in every field that is not given. */
  create(fields?: Partial<T>): T;
  /** Decodes `buf[start .. end)`. Byte fields are views into `buf`. Throws ProtobufError. */
  decode(buf: Uint8Array, start?: number, end?: number): T;
  encode(message: T): Buffer;
  /** Writes the fields in front of what the writer already holds. */
  write(writer: Writer, message: T): void;
  /** Reads up to `end`, into a partly read message or a new one. */
  read(reader: Reader, end: number, into?: T): T;
}

const sharedReader = new Reader();
const sharedWriter = new Writer();

/** Combines the generated read and write functions of one message with the shared reader and writer. */
export function codec<T>(
  typeName: string,
  create: (fields?: Partial<T>) => T,
  read: (reader: Reader, end: number, into?: T) => T,
  write: (writer: Writer, message: T) => void,
): Codec<T> {
  return {
    typeName,
    create,
    read,
    write,
    decode(buf, start = 0, end = buf.length) {
      return read(sharedReader.reset(buf, start, end), end);
    },
    encode(message) {
      write(sharedWriter.reset(), message);
      return sharedWriter.finish();
    },
  };
}

/** One RPC of a service: its path and its codecs. */
export interface MethodType<I = unknown, O = unknown> {
  readonly name: string;
  readonly path: string;
  readonly request: Codec<I>;
  readonly response: Codec<O>;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  /** Paths of the JSON gateway. */
  readonly httpPaths: readonly string[];
}
