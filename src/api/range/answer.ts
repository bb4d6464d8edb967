import { varintSize, writeVarint } from "../../base/varint.ts";
import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import type { RangeRequest } from "../../proto/etcdserverpb.ts";
import type { ReadSlice } from "../../server/contract/options.ts";
import { type RangeRows, rangeRows } from "./rows.ts";

/** Receives the bytes of an answer, in order. */
export interface AnswerSink {
  /** A piece; ownership passes. False: paused. */
  take(piece: Buffer): boolean;
  /** A buffer for a piece. */
  newPiece(): Buffer;
}

/** The fields that hold rows. */
export const KVS_TAG = 0x12;
export const PREV_KVS_TAG = 0x1a;

/**
 * The rows of a range as repeated fields of an answer, produced twice: once to measure the length, which comes first,
 * and once to send them, as fast as the client reads. So a list of any size needs the memory of one piece, and time in
 * slices. What fits into `KEPT_BYTES_MAX` is kept from the first pass.
 */
export class RowsAnswer {
  /** Bytes of the fields; final when `measure` has returned true. */
  bytes = 0;
  /** Number of rows in them. */
  rows = 0;
  readonly #tag: number;
  readonly #first: RangeRows;
  /** Output kept from the first pass, up to where `#second` continues. */
  #kept: Buffer | null = NO_PIECE;
  #keptBytes = 0;
  #keeps = true;
  #second: RangeRows;
  #written = 0;
  #piece: Buffer = NO_PIECE;
  #pos = 0;

  constructor(tag: number, rows: RangeRows) {
    this.#tag = tag;
    this.#first = rows;
    this.#second = rows.copy();
  }

  /** Keys in the range, regardless of the limit; final when `measure` has returned true. */
  get count(): number {
    return this.#first.count;
  }

  get more(): boolean {
    return this.#first.more;
  }

  /** One slice of the first pass. True when it is complete. Throws CompactedError. */
  measure(): boolean {
    this.#pos = this.#keptBytes;
    const done = this.#first.slice(this.#measureRow);
    if (this.#keeps) {
      this.#keptBytes = this.#pos;
      this.#second = this.#first.copy();
    }
    return done;
  }

  /** One slice of the second pass: writes pieces. True when the sink has all bytes. Throws CompactedError. */
  write(sink: AnswerSink): boolean {
    if (this.#kept !== null) {
      const kept = this.#kept.subarray(0, this.#keptBytes);
      this.#kept = null;
      this.#written = kept.length;
      if (kept.length > 0) {
        sink.take(kept);
        return this.#written === this.bytes;
      }
    }
    if (this.#written === this.bytes) return true;
    this.#piece = sink.newPiece();
    this.#pos = 0;
    this.#sink = sink;
    this.#second.slice(this.#writeRow);
    this.#sink = null;
    this.#handOver(sink);
    return this.#written === this.bytes;
  }

  #sink: AnswerSink | null = null;

  readonly #measureRow = (bytes: Uint8Array, start: number, end: number): void => {
    const length = end - start;
    const size = 1 + varintSize(length) + length;
    this.bytes += size;
    this.rows++;
    if (!this.#keeps) return;
    if (!this.#makeRoom(size)) {
      // The rows of this slice so far are read again.
      this.#keeps = false;
      return;
    }
    this.#pos = putRow(this.#kept!, this.#pos, this.#tag, bytes, start, end);
  };

  #makeRoom(size: number): boolean {
    const kept = this.#kept!;
    if (this.#pos + size <= kept.length) return true;
    if (this.#pos + size > KEPT_BYTES_MAX) return false;
    // A single row gets what it needs: a transaction may read a hundred thousand of them.
    const grown = Buffer.allocUnsafeSlow(Math.min(KEPT_BYTES_MAX, Math.max(kept.length * 4, this.#pos + size)));
    kept.copy(grown, 0, 0, this.#pos);
    this.#kept = grown;
    return true;
  }

  readonly #writeRow = (bytes: Uint8Array, start: number, end: number): void => {
    // After the last row a second pass may find rows that the first only counted.
    if (this.#written + this.#pos >= this.bytes) return;
    const length = end - start;
    const size = 1 + varintSize(length) + length;
    if (this.#pos + size > this.#piece.length) {
      this.#handOver(this.#sink!);
      this.#piece = this.#sink!.newPiece();
      this.#pos = 0;
      if (size > this.#piece.length) this.#piece = Buffer.allocUnsafeSlow(size);
    }
    this.#pos = putRow(this.#piece, this.#pos, this.#tag, bytes, start, end);
  };

  #handOver(sink: AnswerSink): void {
    if (this.#pos === 0) return;
    this.#written += this.#pos;
    if (this.#written > this.bytes) throw new Error("the second pass over a range found more than the first");
    sink.take(this.#piece.subarray(0, this.#pos));
    this.#piece = NO_PIECE;
    this.#pos = 0;
  }
}

const KEPT_BYTES_MAX = 256 * 1024;
const NO_PIECE = Buffer.alloc(0);

/** Writes a row as one element of a repeated field; returns the position after it. */
export function putRow(to: Buffer, pos: number, tag: number, bytes: Uint8Array, start: number, end: number): number {
  to[pos++] = tag;
  pos = writeVarint(to, pos, end - start);
  to.set(bytes.subarray(start, end), pos);
  return pos + end - start;
}

/** A RangeResponse without its header, which the caller writes. */
export class RangeAnswer {
  readonly isSingle: boolean;
  readonly #rows: RowsAnswer;
  #tail: Buffer | null = null;

  /** `count`: the keys in the range, if known. */
  constructor(store: MvccStore, request: RangeRequest, point: ReadPoint, count: number | undefined, limits: ReadSlice) {
    this.isSingle = request.rangeEnd.length === 0;
    this.#rows = new RowsAnswer(KVS_TAG, rangeRows(store, request, point, count, limits));
  }

  /** Final when `measure` has returned true. */
  get bytes(): number {
    return this.#rows.bytes + (this.#tail?.length ?? 0);
  }

  measure(): boolean {
    if (!this.#rows.measure()) return false;
    this.#tail = encodeTail(this.#rows.more, this.#rows.count);
    return true;
  }

  write(sink: AnswerSink): boolean {
    if (!this.#rows.write(sink)) return false;
    if (this.#tail!.length > 0) sink.take(this.#tail!);
    return true;
  }
}

/** The fields `more` and `count` of a RangeResponse. */
export function encodeTail(more: boolean, count: number): Buffer {
  const tail = Buffer.alloc(TAIL_BYTES_MAX);
  let pos = 0;
  if (more) {
    tail[pos++] = 0x18;
    tail[pos++] = 1;
  }
  if (count > 0) {
    tail[pos++] = 0x20;
    pos = writeVarint(tail, pos, count);
  }
  return tail.subarray(0, pos);
}

const TAIL_BYTES_MAX = 16;
