/**
 * Encodes records into one reused buffer and keeps the rolling checksum: every record carries the CRC-32C of all record
 * data since the log began, so a lost or altered record shows in every later one.
 *
 * Promises no allocation per entry. May not touch files: the owner writes `bytes()` and calls `clear()`.
 */
import { crc32c } from "../base/crc32c.ts";
import { type Entry, HardState } from "../proto/raftpb.ts";
import { Snapshot } from "../proto/walpb.ts";
import { FRAME_BYTES, padBytesOf, RecordType } from "./record.ts";

const CAPACITY_MIN = 256 * 1024;
/** A buffer grown beyond this by a huge entry is dropped afterwards. */
const CAPACITY_KEPT_MAX = 4 * 1024 * 1024;
/** Frame, record type, checksum, data length; rounded up. */
const RECORD_HEADER_BYTES_MAX = 40;
const TWO_32 = 4294967296;

export class Encoder {
  /** Rolling checksum after the last record. */
  crc: number;
  #buffer = Buffer.allocUnsafeSlow(CAPACITY_MIN);
  #length = 0;
  /** The fields of the current entry that precede its data. */
  readonly #prefix = Buffer.alloc(40);

  constructor(crc: number) {
    this.crc = crc;
  }

  get length(): number {
    return this.#length;
  }

  /** The bytes encoded since `clear`, as a view that the next call invalidates. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  clear(): void {
    this.#length = 0;
    if (this.#buffer.length > CAPACITY_KEPT_MAX) this.#buffer = Buffer.allocUnsafeSlow(CAPACITY_MIN);
  }

  entry(entry: Entry): void {
    const { data } = entry;
    const prefix = this.#prefix;
    let prefixLength = 0;
    prefix[prefixLength++] = 0x08;
    prefixLength = putVarint(prefix, prefixLength, entry.type);
    prefix[prefixLength++] = 0x10;
    prefixLength = putVarint(prefix, prefixLength, entry.term);
    prefix[prefixLength++] = 0x18;
    prefixLength = putVarint(prefix, prefixLength, entry.index);
    if (data.length > 0) {
      prefix[prefixLength++] = 0x22;
      prefixLength = putVarint(prefix, prefixLength, data.length);
    }
    this.crc = crc32c(prefix, this.crc, 0, prefixLength);
    if (data.length > 0) this.crc = crc32c(data, this.crc);

    const size = prefixLength + data.length;
    let at = this.#begin(RecordType.entry, size);
    const buffer = this.#buffer;
    for (let i = 0; i < prefixLength; i++) buffer[at++] = prefix[i]!;
    buffer.set(data, at);
    this.#finish(at + data.length);
  }

  state(state: HardState): void {
    this.#record(RecordType.state, HardState.encode(state));
  }

  snapshot(snapshot: Snapshot): void {
    this.#record(RecordType.snapshot, Snapshot.encode(snapshot));
  }

  /** The beginning of every segment: the checksum so far, and the log's owner. */
  segmentHeader(metadata: Uint8Array): void {
    this.#finish(this.#begin(RecordType.crc, 0));
    this.#record(RecordType.metadata, metadata);
  }

  #record(type: number, data: Uint8Array): void {
    this.crc = crc32c(data, this.crc);
    const at = this.#begin(type, data.length);
    this.#buffer.set(data, at);
    this.#finish(at + data.length);
  }

  /** Writes everything before the data of a record and returns the offset where the data goes. */
  #begin(type: number, dataBytes: number): number {
    const start = this.#length;
    if (start + dataBytes + RECORD_HEADER_BYTES_MAX > this.#buffer.length)
      this.#grow(dataBytes + RECORD_HEADER_BYTES_MAX);
    const buffer = this.#buffer;
    let at = start + FRAME_BYTES;
    buffer[at++] = 0x08;
    buffer[at++] = type;
    buffer[at++] = 0x10;
    at = putVarint(buffer, at, this.crc);
    if (dataBytes > 0) {
      buffer[at++] = 0x1a;
      at = putVarint(buffer, at, dataBytes);
    }
    const recordBytes = at + dataBytes - start - FRAME_BYTES;
    const padBytes = padBytesOf(recordBytes);
    buffer.writeUInt32LE(recordBytes, start);
    buffer.writeUInt32LE(padBytes === 0 ? 0 : ((0x80 | padBytes) << 24) >>> 0, start + 4);
    return at;
  }

  /** Pads the record that ends at `end`. Buffer and frames begin aligned, so the offset determines the padding. */
  #finish(end: number): void {
    const padded = end + padBytesOf(end);
    const buffer = this.#buffer;
    for (let at = end; at < padded; at++) buffer[at] = 0;
    this.#length = padded;
  }

  #grow(bytes: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#buffer.length * 2, this.#length + bytes));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}

/** Writes a non-negative integer below 2^53 and returns the offset after it. */
function putVarint(buffer: Uint8Array, at: number, value: number): number {
  while (value >= TWO_32) {
    buffer[at++] = (value % 128) | 128;
    value = Math.floor(value / 128);
  }
  while (value > 127) {
    buffer[at++] = (value & 127) | 128;
    value >>>= 7;
  }
  buffer[at++] = value;
  return at;
}
