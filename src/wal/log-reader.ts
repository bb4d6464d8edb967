/**
 * Reads the records of consecutive segments in order, checking frames, checksums, the chain between segments and that
 * all segments belong to one member.
 *
 * Promises: it ends, or throws a WalError that names file and offset; it never returns a record with a wrong checksum,
 * and never allocates for a length that the file does not hold. A tail torn by a crash (WAL_TORN_TAIL) is distinguished
 * from damage: only in the last segment, only past its header, only if a sector of the record was never written or the
 * file ends inside it, and only if the record's beginning, as far as it is there, agrees with its length field. A
 * written sector that reads as zeros cannot be distinguished from an unwritten one.
 */
import { crc32c } from "../base/crc32c.ts";
import type { Disk, DiskFile } from "../base/disk.ts";
import { ProtobufError } from "../base/protobuf.ts";
import { Record } from "../proto/walpb.ts";
import { RECOVER_MEMBER, WalError, type WalErrorCode, walFileError } from "./errors.ts";
import type { SegmentName } from "./names.ts";
import { FRAME_BYTES, padBytesOf, RecordType, SECTOR_BYTES } from "./record.ts";

const WINDOW_BYTES = 1024 * 1024;
/** No entry comes near this size; a larger record is damage, even if the file is that large. */
const RECORD_BYTES_MAX = 1024 * 1024 * 1024;
const TWO_32 = 4294967296;

export class LogReader {
  /** Type of the last record read. */
  type = 0;
  /** Its data: a view that the next call of `next` invalidates. */
  data: Uint8Array = Buffer.alloc(0);
  /** Where its frame begins. */
  recordOffset = 0;
  /** Rolling checksum after it. */
  crc = 0;
  /** The log's owner: the metadata record, which every segment repeats. */
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

  /** An error about the current record, for readers of its data. */
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

  /** False at the end of the segment: the file's end, or the zeros of its reserved space. */
  #readRecord(): boolean {
    const start = this.validEnd;
    this.recordOffset = start;
    const left = this.#fileSize - start;
    if (left === 0) return false;
    if (left < FRAME_BYTES) throw this.#torn("a length field is cut off");
    let at = this.#load(start, FRAME_BYTES);
    const low = this.#window.readUInt32LE(at);
    const high = this.#window.readUInt32LE(at + 4);
    if (low === 0 && high === 0) {
      this.#checkEnd(start, left);
      return false;
    }
    const recordBytes = low + (high & 0x00ffffff) * TWO_32;
    const padBytes = padBytesOf(recordBytes);
    if (high >>> 24 !== (padBytes === 0 ? 0 : 0x80 | padBytes) || recordBytes === 0 || recordBytes > RECORD_BYTES_MAX) {
      throw this.damaged("WAL_CORRUPT", `impossible record length field ${hex(high)}${hex(low)}`);
    }
    const wanted = recordBytes + padBytes;
    if (wanted > left - FRAME_BYTES) {
      // A file that was being extended may end inside its last record. The part that is there still agrees on the
      // length.
      const present = Math.min(left - FRAME_BYTES, 2 * SECTOR_BYTES);
      at = this.#load(start + FRAME_BYTES, present);
      const what = `record of ${recordBytes} bytes, but only ${left - FRAME_BYTES} are left of the file`;
      if (this.#beginsAsLongAs(at, present, recordBytes)) throw this.#torn(what);
      throw this.damaged("WAL_CORRUPT", what);
    }
    const end = start + FRAME_BYTES + wanted;
    const reach = Math.min(this.#fileSize, Math.ceil(end / SECTOR_BYTES) * SECTOR_BYTES);
    at = this.#load(start + FRAME_BYTES, reach - start - FRAME_BYTES);
    this.#check(at, recordBytes, at + reach - start - FRAME_BYTES);
    this.validEnd = end;
    this.#recordsInSegment++;
    return true;
  }

  /** `reach` is the end of the last sector that the record is in. */
  #check(at: number, recordBytes: number, reach: number): void {
    let record: Record;
    try {
      record = Record.decode(this.#window, at, at + recordBytes);
    } catch (cause) {
      if (!(cause instanceof ProtobufError)) throw cause;
      if (this.#isPartlyWritten(at, recordBytes, reach)) throw this.#torn("record is partly written");
      throw this.damaged("WAL_CORRUPT", `undecodable record (${cause.message})`, cause);
    }
    if (record.type === RecordType.crc) {
      // The data before the first segment read is unknown, so its chain value is taken as given.
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
        if (this.#isPartlyWritten(at, recordBytes, reach)) throw this.#torn("record is partly written");
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

  /** The rest of the end's sector must be unwritten too: otherwise a zero length field is damage. */
  #checkEnd(start: number, left: number): void {
    const rest = Math.min(left, SECTOR_BYTES - (start % SECTOR_BYTES));
    const at = this.#load(start, rest);
    if (!isZero(this.#window, at, at + rest))
      throw this.damaged("WAL_CORRUPT", "length field of zero in front of written data");
  }

  /**
   * True if a crash explains the record: a sector was never written, neither with this record nor with later ones, and
   * the others agree on its length.
   */
  #isPartlyWritten(at: number, bytes: number, reach: number): boolean {
    for (let piece = at; piece < at + bytes; piece = this.#sectorEnd(piece)) {
      const stop = Math.min(reach, this.#sectorEnd(piece));
      if (isZero(this.#window, piece, stop)) return this.#beginsAsLongAs(at, bytes, bytes);
    }
    return false;
  }

  /** True when the written part of the record's beginning matches a record of `recordBytes`. */
  #beginsAsLongAs(at: number, presentBytes: number, recordBytes: number): boolean {
    const end = at + presentBytes;
    const first = Math.min(end, this.#sectorEnd(at));
    if (isZero(this.#window, at, first)) return true;
    const second = Math.min(end, this.#sectorEnd(first));
    const isSecondWritten = first < end && !isZero(this.#window, first, second);
    return agreesOnLength(this.#window, at, isSecondWritten ? second : first, recordBytes);
  }

  /** Where the disk sector of the byte at this window position ends. */
  #sectorEnd(at: number): number {
    return at + SECTOR_BYTES - ((at + this.#windowStart) % SECTOR_BYTES);
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

function isZero(buffer: Buffer, start: number, end: number): boolean {
  let at = start;
  while (at < end && buffer[at] === 0) at++;
  return at === end;
}

/** True when the bytes at hand begin a record that is `recordBytes` long by its own fields, or are too few to tell. */
function agreesOnLength(buffer: Buffer, start: number, end: number, recordBytes: number): boolean {
  let at = start;
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
