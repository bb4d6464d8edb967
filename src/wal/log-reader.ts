/**
 * Reads the records of consecutive segments in order, checking frames, checksums, the chain between segments and that all
 * segments belong to one member.
 *
 * Promises: it ends, or throws a WalError that names file and offset; it never hands out a record whose checksum is wrong,
 * and never allocates for a length that the file does not back. A tail that a crash tore (WAL_TORN_TAIL) is told apart from
 * damage: only in the last segment, only past its header, and only if a sector of the record was never written or the file
 * ends inside it.
 */
import { crc32c } from "../base/crc32c.ts";
import type { Disk, DiskFile } from "../base/disk.ts";
import { ProtobufError } from "../base/protobuf.ts";
import { Record } from "../proto/walpb.ts";
import { RECOVER_MEMBER, WalError, type WalErrorCode, walFileError } from "./errors.ts";
import type { SegmentName } from "./names.ts";
import { FRAME_BYTES, padBytesOf, RecordType, SECTOR_BYTES } from "./record.ts";

const WINDOW_BYTES = 1024 * 1024;
/** No entry comes near this; larger is damage even if the file is that large. */
const RECORD_BYTES_MAX = 1024 * 1024 * 1024;
const TWO_32 = 4294967296;

export class LogReader {
  /** Type of the record that `next` read. */
  type = 0;
  /** Its data: a view that the next call of `next` invalidates. */
  data: Uint8Array = Buffer.alloc(0);
  /** Where its frame begins. */
  recordOffset = 0;
  /** Rolling checksum after it. */
  crc = 0;
  /** Whose log this is: the metadata record, which every segment repeats. */
  metadata: Uint8Array | undefined;
  /** Offset in the current segment after the last valid record. */
  validEnd = 0;

  readonly #disk: Disk;
  readonly #dir: string;
  readonly #segments: readonly SegmentName[];
  #next = 0;
  #file: DiskFile | undefined;
  #fileSize = 0;
  #recordsInSegment = 0;
  #started = false;
  /** The part of the file in memory: `#window[0 .. #windowLength)` begins at file offset `#windowStart`. */
  #window = Buffer.alloc(0);
  #windowStart = 0;
  #windowLength = 0;

  constructor(disk: Disk, dir: string, segments: readonly SegmentName[]) {
    this.#disk = disk;
    this.#dir = dir;
    this.#segments = segments;
  }

  /** Path of the segment that the last record came from. */
  get file(): string {
    return `${this.#dir}/${this.#segments[Math.max(0, this.#next - 1)]!.name}`;
  }

  /** Advances to the next record; false after the last. Throws WalError. */
  next(): boolean {
    if (this.#file === undefined && !this.#openNext()) return false;
    while (!this.#readRecord()) {
      if (this.#recordsInSegment < 2) throw this.#shortHeader("it ends");
      if (!this.#openNext()) return false;
    }
    return true;
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
    this.#next = this.#segments.length;
  }

  /** An error about the record in hand, for readers of its data. */
  damaged(code: WalErrorCode, what: string, cause?: unknown): WalError {
    return new WalError(
      code,
      `wal: ${what} in ${this.file} at offset ${this.recordOffset}. Records before it are intact, those from it on cannot be ` +
        `trusted, and some may have been acknowledged. ${RECOVER_MEMBER}`,
      { file: this.file, offset: this.recordOffset, cause },
    );
  }

  #openNext(): boolean {
    const segment = this.#segments[this.#next];
    if (segment === undefined) return false;
    this.#file?.close();
    this.#file = undefined;
    this.#next++;
    try {
      this.#file = this.#disk.open(this.file, "r");
      this.#fileSize = this.#file.size();
    } catch (cause) {
      throw walFileError("open", this.file, cause);
    }
    this.#windowStart = 0;
    this.#windowLength = 0;
    this.validEnd = 0;
    this.recordOffset = 0;
    this.#recordsInSegment = 0;
    return true;
  }

  /** False at the end of the segment: the file's end, or the zeros that space for it was reserved with. */
  #readRecord(): boolean {
    const start = this.validEnd;
    this.recordOffset = start;
    const left = this.#fileSize - start;
    if (left === 0) return false;
    if (left < FRAME_BYTES) throw this.#torn("a length field is cut off");
    let at = this.#load(start, FRAME_BYTES);
    const low = this.#window.readUInt32LE(at);
    const high = this.#window.readUInt32LE(at + 4);
    if (low === 0 && high === 0) return false;

    const recordBytes = low + (high & 0x00ffffff) * TWO_32;
    const padBytes = padBytesOf(recordBytes);
    if (high >>> 24 !== (padBytes === 0 ? 0 : 0x80 | padBytes) || recordBytes === 0 || recordBytes > RECORD_BYTES_MAX) {
      throw this.damaged("WAL_CORRUPT", `impossible record length field ${hex(high)}${hex(low)}`);
    }
    const wanted = recordBytes + padBytes;
    if (wanted > left - FRAME_BYTES) {
      // A file that was being extended may end inside its last record. Then the part that is there still agrees on the length.
      const present = Math.min(left - FRAME_BYTES, SECTOR_BYTES);
      at = this.#load(start + FRAME_BYTES, present);
      const what = `record of ${recordBytes} bytes, but only ${left - FRAME_BYTES} are left of the file`;
      if (agreesOnLength(this.#window, at, at + present, recordBytes)) throw this.#torn(what);
      throw this.damaged("WAL_CORRUPT", what);
    }
    at = this.#load(start + FRAME_BYTES, wanted);
    this.#check(at, recordBytes, wanted);
    this.validEnd = start + FRAME_BYTES + wanted;
    this.#recordsInSegment++;
    return true;
  }

  #check(at: number, recordBytes: number, paddedBytes: number): void {
    let record: Record;
    try {
      record = Record.decode(this.#window, at, at + recordBytes);
    } catch (cause) {
      if (!(cause instanceof ProtobufError)) throw cause;
      if (this.#hasUnwrittenSector(at, paddedBytes)) throw this.#torn("record is partly written");
      throw this.damaged("WAL_CORRUPT", `undecodable record (${cause.message})`, cause);
    }
    if (record.type === RecordType.crc) {
      // What precedes the first segment that is read is not known, so its chain value has to be taken as it is.
      if (this.#started && record.crc !== this.crc) {
        throw this.damaged(
          "WAL_CRC_MISMATCH",
          `broken chain (checksum of all records before is ${hex(this.crc)}, the segment was begun with ${hex(record.crc)})`,
        );
      }
      this.crc = record.crc;
    } else {
      const crc = crc32c(record.data, this.crc);
      if (crc !== record.crc) {
        if (this.#recordsInSegment === 0) throw this.#shortHeader("its first record is not a checksum");
        if (this.#hasUnwrittenSector(at, paddedBytes)) throw this.#torn("record is partly written");
        throw this.damaged("WAL_CRC_MISMATCH", `checksum mismatch (stored ${hex(record.crc)}, computed ${hex(crc)})`);
      }
      this.crc = crc;
    }
    this.#started = true;
    this.type = record.type;
    this.data = record.data;
    this.#checkHeader();
  }

  #checkHeader(): void {
    const expected =
      this.#recordsInSegment === 0 ? RecordType.crc : this.#recordsInSegment === 1 ? RecordType.metadata : 0;
    if (expected !== 0 && this.type !== expected) {
      throw this.#shortHeader(`record ${this.#recordsInSegment} has type ${this.type} instead of ${expected}`);
    }
    if (this.type !== RecordType.metadata) return;
    if (this.metadata === undefined) this.metadata = Buffer.from(this.data);
    else if (Buffer.compare(this.metadata, this.data) !== 0) {
      throw new WalError(
        "WAL_METADATA_CONFLICT",
        `wal: ${this.file} at offset ${this.recordOffset} belongs to another member or cluster (metadata ` +
          `${Buffer.from(this.data).toString("hex")}, the segments before have ${Buffer.from(this.metadata).toString("hex")}). ` +
          `Files of two members were mixed in this directory: move the foreign ones away. ${RECOVER_MEMBER}`,
        { file: this.file, offset: this.recordOffset },
      );
    }
  }

  /** Makes `count` bytes from file offset `offset` available and returns where they begin in the window. */
  #load(offset: number, count: number): number {
    if (offset >= this.#windowStart && offset + count <= this.#windowStart + this.#windowLength) {
      return offset - this.#windowStart;
    }
    const size = Math.max(count, Math.min(WINDOW_BYTES, this.#fileSize - offset));
    if (this.#window.length < size || this.#window.length > 2 * WINDOW_BYTES) {
      this.#window = Buffer.allocUnsafeSlow(Math.max(size, Math.min(WINDOW_BYTES, this.#fileSize)));
    }
    try {
      this.#windowLength = this.#file!.read(this.#window.subarray(0, size), offset);
    } catch (cause) {
      throw walFileError(`read (at offset ${offset})`, this.file, cause);
    }
    this.#windowStart = offset;
    if (this.#windowLength < count) throw this.damaged("WAL_CORRUPT", "file became shorter while it was read");
    return 0;
  }

  /** True if one of the disk sectors that the record touches holds only zeros of it: that sector's write never happened. */
  #hasUnwrittenSector(at: number, bytes: number): boolean {
    const delta = this.#windowStart;
    const end = at + bytes;
    while (at < end) {
      const stop = Math.min(end, at + SECTOR_BYTES - ((at + delta) % SECTOR_BYTES));
      while (at < stop && this.#window[at] === 0) at++;
      if (at === stop) return true;
      at = stop;
    }
    return false;
  }

  #torn(what: string): WalError {
    if (this.#next < this.#segments.length) return this.damaged("WAL_CORRUPT", what);
    if (this.#recordsInSegment < 2) return this.#shortHeader(what);
    return new WalError(
      "WAL_TORN_TAIL",
      `wal: torn tail (${what}) in ${this.file} at offset ${this.recordOffset}: the record was being written when the process ` +
        "or the machine stopped. It was never synced, so nothing acknowledged is lost. Repair the log by cutting it here.",
      { file: this.file, offset: this.recordOffset },
    );
  }

  #shortHeader(what: string): WalError {
    return new WalError(
      "WAL_SHORT_HEADER",
      `wal: ${this.file} does not begin with its checksum and metadata records (${what} at offset ${this.recordOffset}). ` +
        `A segment gets its name only after both are on disk, so the file was damaged or replaced. ${RECOVER_MEMBER}`,
      { file: this.file, offset: this.recordOffset },
    );
  }
}

/** True when the bytes at hand begin a record that is `recordBytes` long by its own fields, or were never written. */
function agreesOnLength(buffer: Buffer, start: number, end: number, recordBytes: number): boolean {
  let at = start;
  while (at < end && buffer[at] === 0) at++;
  if (at === end) return true;
  at = start;
  // Type (one byte value), checksum (varint), data (length prefix): see Encoder.
  if (buffer[at++] !== 0x08) return false;
  if (at < end && buffer[at++]! > RecordType.snapshot) return false;
  if (at < end && buffer[at++] !== 0x10) return false;
  while (at < end && buffer[at]! >= 0x80) at++;
  at++;
  if (at < end && buffer[at++] !== 0x1a) return false;
  let length = 0;
  for (let factor = 1; at < end; factor *= 128) {
    const byte = buffer[at++]!;
    length += (byte & 127) * factor;
    if (byte < 128) return at - start + length === recordBytes;
  }
  return true;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}
