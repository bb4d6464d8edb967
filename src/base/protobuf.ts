/**
 * The run time of the generated messages in proto/: a reader and a writer of the protobuf wire format.
 *
 * The writer fills its buffer from the back to the front, so the length of a nested message is known when its prefix is
 * written and no size has to be computed first. 64-bit integers are `number` (exact below 2^53, rounded above, which
 * keeps their order) or, for ids, `bigint`.
 * Source: https://protobuf.dev/programming-guides/encoding/
 */

/** The bytes are not a well-formed message. Its text says what was wrong and at which offset. */
export class ProtobufError extends Error {
  override name = "ProtobufError";
}

export const EMPTY_BYTES: Uint8Array = Buffer.alloc(0);

/** Deepest nesting that a message may have. Only transactions nest; etcd's clients stay below three. */
export const NESTING_DEPTH_MAX = 256;

const TWO_32 = 4294967296;
const utf8 = new TextDecoder("utf-8", { fatal: true });

export class Reader {
  buf: Uint8Array = EMPTY_BYTES;
  pos = 0;
  end = 0;
  depth = 0;

  reset(buf: Uint8Array, start = 0, end = buf.length): this {
    this.buf = buf;
    this.pos = start;
    this.end = end;
    this.depth = 0;
    return this;
  }

  /** Varint below 2^32, the upper bits dropped. */
  uint32(): number {
    const { buf } = this;
    let pos = this.pos;
    let byte = buf[pos++]!;
    if (byte < 128) {
      if (pos > this.end) this.#truncated();
      this.pos = pos;
      return byte;
    }
    let value = byte & 127;
    for (let shift = 7; shift < 70; shift += 7) {
      if (pos >= this.end) this.#truncated();
      byte = buf[pos++]!;
      if (shift < 35) value |= (byte & 127) << shift;
      if (byte < 128) {
        this.pos = pos;
        return value >>> 0;
      }
    }
    throw new ProtobufError(`varint longer than 10 bytes at offset ${this.pos}`);
  }

  int32(): number {
    return this.uint32() | 0;
  }

  bool(): boolean {
    return this.#low() !== 0 || this.#hi !== 0;
  }

  /** Upper half of the 64-bit value that `#low` read last. */
  #hi = 0;

  #low(): number {
    const { buf, end } = this;
    let pos = this.pos;
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (pos >= end) this.#truncated();
      const byte = buf[pos++]!;
      const bits = byte & 127;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high = bits >>> 4;
      } else if (shift < 63) high |= bits << (shift - 32);
      else high |= bits << 31;
      if (byte < 128) {
        this.pos = pos;
        this.#hi = high >>> 0;
        return low >>> 0;
      }
    }
    throw new ProtobufError(`varint longer than 10 bytes at offset ${this.pos}`);
  }

  uint64(): number {
    const low = this.#low();
    return this.#hi === 0 ? low : this.#hi * TWO_32 + low;
  }

  int64(): number {
    const low = this.#low();
    return this.#hi === 0 ? low : (this.#hi | 0) * TWO_32 + low;
  }

  uint64Big(): bigint {
    const low = this.#low();
    if (this.#hi === 0) return low === 0 ? 0n : BigInt(low);
    return (BigInt(this.#hi) << 32n) | BigInt(low);
  }

  int64Big(): bigint {
    return BigInt.asIntN(64, this.uint64Big());
  }

  double(): number {
    if (this.pos + 8 > this.end) this.#truncated();
    const view = new DataView(this.buf.buffer, this.buf.byteOffset + this.pos, 8);
    this.pos += 8;
    return view.getFloat64(0, true);
  }

  /** A view into the input, not a copy. */
  bytes(): Uint8Array {
    const length = this.uint32();
    if (length === 0) return EMPTY_BYTES;
    const start = this.pos;
    const stop = start + length;
    if (stop > this.end) this.#truncated();
    this.pos = stop;
    return this.buf.subarray(start, stop);
  }

  string(): string {
    const length = this.uint32();
    const start = this.pos;
    const stop = start + length;
    if (stop > this.end) this.#truncated();
    this.pos = stop;
    if (length === 0) return "";
    try {
      return utf8.decode(this.buf.subarray(start, stop));
    } catch {
      throw new ProtobufError(`string field at offset ${start} contains invalid UTF-8`);
    }
  }

  /** Reads a length and returns the offset where the nested message ends. */
  nested(): number {
    const length = this.uint32();
    const stop = this.pos + length;
    if (stop > this.end) this.#truncated();
    if (++this.depth > NESTING_DEPTH_MAX) {
      throw new ProtobufError(`messages nested deeper than ${NESTING_DEPTH_MAX} levels`);
    }
    return stop;
  }

  /** Checks that a nested message ended where its length said. */
  leave(stop: number): void {
    if (this.pos !== stop) this.overrun(stop);
    this.depth--;
  }

  skip(tag: number): void {
    if (tag >>> 3 === 0) throw new ProtobufError(`illegal field number 0 at offset ${this.pos}`);
    switch (tag & 7) {
      case 0:
        this.#low();
        return;
      case 1:
        this.pos += 8;
        break;
      case 2:
        this.pos += this.uint32();
        break;
      case 5:
        this.pos += 4;
        break;
      default:
        throw new ProtobufError(`unsupported wire type ${tag & 7} at offset ${this.pos}`);
    }
    if (this.pos > this.end) this.#truncated();
  }

  overrun(end: number): never {
    throw new ProtobufError(`message overruns its length at offset ${end}`);
  }

  #truncated(): never {
    throw new ProtobufError(`message ends inside a field at offset ${this.end}`);
  }
}

const CAPACITY_MIN = 64 * 1024;
/** A buffer that grew past this is dropped after the message that needed it. */
const CAPACITY_KEPT_MAX = 4 * 1024 * 1024;

export class Writer {
  buf: Buffer = Buffer.allocUnsafeSlow(CAPACITY_MIN);
  /** Offset of the first written byte; the message is `buf[pos .. buf.length)`. */
  pos = CAPACITY_MIN;

  reset(): this {
    if (this.buf.length > CAPACITY_KEPT_MAX) this.buf = Buffer.allocUnsafeSlow(CAPACITY_MIN);
    this.pos = this.buf.length;
    return this;
  }

  get length(): number {
    return this.buf.length - this.pos;
  }

  /** The message as a view that the next `reset` invalidates. */
  view(): Buffer {
    return this.buf.subarray(this.pos);
  }

  /** The message as bytes of its own. */
  finish(): Buffer {
    const out = Buffer.allocUnsafe(this.buf.length - this.pos);
    this.buf.copy(out, 0, this.pos);
    return out;
  }

  #reserve(size: number): number {
    if (this.pos < size) this.#grow(size);
    return (this.pos -= size);
  }

  #grow(size: number): void {
    const used = this.buf.length - this.pos;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.buf.length * 2, used + size + 1024));
    this.buf.copy(grown, grown.length - used, this.pos);
    this.buf = grown;
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

  /** Signed or not: a negative number becomes its two's complement. */
  int64(value: number): void {
    if (value >= 0 && value < TWO_32) this.uint32(value);
    else {
      const high = Math.floor(value / TWO_32);
      this.#split((value - high * TWO_32) >>> 0, high >>> 0);
    }
  }

  int64Big(value: bigint): void {
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

/** One codec of one message type, as the generator makes them. */
export interface Codec<T> {
  readonly typeName: string;
  /** A message with every field at its default but those given. */
  create(fields?: Partial<T>): T;
  /** Decodes `buf[start .. end)`. Byte fields are views into `buf`. Throws ProtobufError. */
  decode(buf: Uint8Array, start?: number, end?: number): T;
  encode(message: T): Buffer;
  /** Writes the fields in front of what the writer already holds. */
  write(writer: Writer, message: T): void;
  read(reader: Reader, end: number): T;
}

const sharedReader = new Reader();
const sharedWriter = new Writer();

/** Ties the generated read and write functions of one message to the shared reader and writer. */
export function codec<T>(
  typeName: string,
  create: (fields?: Partial<T>) => T,
  read: (reader: Reader, end: number) => T,
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
