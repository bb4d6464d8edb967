/**
 * HPACK decoding (RFC 7541): one decoder per connection, its dynamic table shared by all header blocks in order.
 *
 * A block is always decoded to its end, because the next one depends on the resulting table. The cost that a hostile
 * peer can cause is bounded by the block's bytes (limited by the caller) and the table's 4096: fields beyond the
 * caller's list limit are counted but not kept.
 */
import { KvorumError } from "../../base/errors.ts";
import { HeaderField, STATIC_TABLE } from "./fields.ts";
import { huffmanDecode } from "./huffman.ts";

/** The block cannot be decoded, so the connection's table is unusable: COMPRESSION_ERROR. */
export class HpackError extends KvorumError {
  override name = "HpackError";
  readonly code = "ERR_HPACK";
}

/** SETTINGS_HEADER_TABLE_SIZE, left at its default. */
const HEADER_TABLE_SIZE = 4096;

/** Most entries that fit: each counts for at least 32 bytes. A power of two, so the ring can mask. */
const RING_SLOTS = HEADER_TABLE_SIZE / 32;
const RING_MASK = RING_SLOTS - 1;
const STATIC_COUNT = 61;

export class HpackDecoder {
  /** Incremented by every change of the dynamic table: equal bytes at an equal version give equal fields. */
  version = 0;
  /** Size of the last decoded list, by RFC 9113's measure; above the limit, fields were dropped. */
  listSize = 0;

  #ring: (HeaderField | undefined)[] = new Array(RING_SLOTS).fill(undefined);
  /** Slot of the newest entry. */
  #newest = 0;
  #count = 0;
  #size = 0;
  #sizeMax = HEADER_TABLE_SIZE;
  #pos = 0;

  get tableSize(): number {
    return this.#size;
  }

  /** Appends the fields of `buf[start .. end)` to `fields`, while their total size is at most `listSizeMax`. */
  decode(buf: Buffer, start: number, end: number, fields: HeaderField[], listSizeMax: number): void {
    this.#pos = start;
    let listSize = 0;
    let sizeUpdates = 0;
    while (this.#pos < end) {
      const first = buf[this.#pos]!;
      let field: HeaderField;
      if (first >= 0x80) {
        if (first === 0x80) throw new HpackError("index 0 in an indexed field");
        field = this.#at(this.#integer(buf, end, 7));
      } else if (first >= 0x40) {
        field = this.#literal(buf, end, 6);
        this.#insert(field);
      } else if (first >= 0x20) {
        if (listSize > 0 || ++sizeUpdates > 2) throw new HpackError("table size update after the start of a block");
        this.#resize(this.#integer(buf, end, 5));
        continue;
      } else field = this.#literal(buf, end, 4);
      listSize += field.size;
      if (listSize <= listSizeMax) fields.push(field);
    }
    this.listSize = listSize;
  }

  #at(index: number): HeaderField {
    const field =
      index <= STATIC_COUNT
        ? STATIC_TABLE[index]
        : index - STATIC_COUNT <= this.#count
          ? this.#ring[(this.#newest - (index - STATIC_COUNT - 1)) & RING_MASK]
          : undefined;
    if (field === undefined)
      throw new HpackError(`index ${index} is beyond the table of ${STATIC_COUNT + this.#count}`);
    return field;
  }

  #literal(buf: Buffer, end: number, prefixBits: number): HeaderField {
    const index = this.#integer(buf, end, prefixBits);
    if (index === 0) {
      const name = this.#string(buf, end);
      return new HeaderField(name, this.#string(buf, end));
    }
    const named = this.#at(index);
    return new HeaderField(named.name, this.#string(buf, end), named);
  }

  #integer(buf: Buffer, end: number, prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = buf[this.#pos++]! & mask;
    if (value < mask) return value;
    // Four more bytes reach 2^28, far above any valid size or index.
    for (let shift = 0; shift < 28; shift += 7) {
      if (this.#pos >= end) throw new HpackError("block ends inside an integer");
      const byte = buf[this.#pos++]!;
      value += (byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw new HpackError("integer above 2^28");
  }

  #string(buf: Buffer, end: number): string {
    if (this.#pos >= end) throw new HpackError("block ends before a string");
    const huffman = buf[this.#pos]! >= 0x80;
    const length = this.#integer(buf, end, 7);
    const start = this.#pos;
    const stop = start + length;
    if (stop > end) throw new HpackError("block ends inside a string");
    this.#pos = stop;
    if (!huffman) return buf.toString("latin1", start, stop);
    const text = huffmanDecode(buf, start, stop);
    if (text === undefined) throw new HpackError("invalid Huffman code");
    return text;
  }

  #insert(field: HeaderField): void {
    this.version++;
    this.#evict(this.#sizeMax - field.size);
    // A field larger than the table empties it and is not kept (RFC 7541, 4.4).
    if (field.size > this.#sizeMax) return;
    this.#newest = (this.#newest + 1) & RING_MASK;
    this.#ring[this.#newest] = field;
    this.#count++;
    this.#size += field.size;
  }

  #resize(sizeMax: number): void {
    if (sizeMax > HEADER_TABLE_SIZE) {
      throw new HpackError(`table size ${sizeMax} is above the ${HEADER_TABLE_SIZE} of our settings`);
    }
    this.version++;
    this.#sizeMax = sizeMax;
    this.#evict(sizeMax);
  }

  #evict(sizeMax: number): void {
    while (this.#size > sizeMax && this.#count > 0) {
      const oldest = (this.#newest - this.#count + 1) & RING_MASK;
      this.#size -= this.#ring[oldest]!.size;
      this.#ring[oldest] = undefined;
      this.#count--;
    }
  }
}
