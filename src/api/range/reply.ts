import { writeVarint } from "../../base/varint.ts";
import type { RawSlot } from "../../mvcc/backend/backend.ts";
import type { KeyInPlace } from "../../mvcc/model/types.ts";
import type { RangeCursor } from "../../mvcc/store/range-cursor.ts";
import type { UnaryCall } from "../../rpc/contract.ts";
import { READ_SLICE, type ReadSlice } from "../../server/contract/options.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { HeaderWriter } from "../calls/header.ts";

const CAPACITY_MIN = 64 * 1024;
/** The next reply is expected to be about as large as the last one, up to this. */
const CAPACITY_EXPECTED_MAX = 4 * 1024 * 1024;
/** From this size on a reply is sent with its buffer: a new buffer costs less than a copy. */
const OWNED_BYTES_MIN = 32 * 1024;
/** Space before the reply for the prefix of a gRPC message. */
const HEADROOM_BYTES = 5;
/** Space for the tag and length of one key-value, and for `more` and `count` at the end. */
const FRAME_BYTES_MAX = 32;

/**
 * A RangeResponse assembled in one turn from the stored bytes, without decoding key-values: header, then each stored
 * KeyValue unchanged, then `more` and `count`.
 */
export class RangeReply {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  readonly #slot: RawSlot = { bytes: Buffer.alloc(0), start: 0, end: 0 };
  readonly #limits: ReadSlice;
  #buffer = Buffer.allocUnsafeSlow(CAPACITY_MIN);
  #pos = 0;
  #rows = 0;
  #rowsMax = 0;

  constructor(server: EtcdServer, header: HeaderWriter) {
    this.#server = server;
    this.#header = header;
    this.#limits = server.options.readSlice ?? READ_SLICE;
  }

  /**
   * Begins a reply, overwriting the previous one. Its header has the store's current revision, which a read does not
   * change.
   */
  begin(): void {
    this.#pos = this.#header.write(this.#buffer, HEADROOM_BYTES, this.#server.store.currentRevision);
  }

  /**
   * Adds a single key at a revision, and returns the number of keys added. Throws CompactedError, FutureRevisionError.
   */
  addOne(key: Uint8Array, revision: number): number {
    return this.#server.store.range(key, null, { revision, limit: 0, countOnly: false }, this.#visit).count;
  }

  /** Adds rows up to `limit`. False when the range continues but the turn should not: the reply is then invalid. */
  addRows(cursor: RangeCursor, limit: number): boolean {
    this.#rows = 0;
    const { rowsAtOnce, entries } = this.#limits;
    this.#rowsMax = Math.min(limit, rowsAtOnce);
    cursor.advance(entries, this.#visitRevision);
    return cursor.done || this.#rows === limit;
  }

  /** Rows added by `addRows`. */
  get rows(): number {
    return this.#rows;
  }

  /** Completes the reply and answers the call with it. */
  respond(call: UnaryCall, more: boolean, count: number): void {
    this.#reserve(FRAME_BYTES_MAX);
    if (more) {
      this.#buffer[this.#pos++] = 0x18;
      this.#buffer[this.#pos++] = 1;
    }
    if (count > 0) {
      this.#buffer[this.#pos++] = 0x20;
      this.#pos = writeVarint(this.#buffer, this.#pos, count);
    }
    const buffer = this.#buffer;
    const isMostlyEmpty = this.#pos * 4 < buffer.length;
    if (this.#pos < OWNED_BYTES_MIN || isMostlyEmpty) return call.respondSlice(buffer, HEADROOM_BYTES, this.#pos);
    const capacity = Math.min(this.#pos + FRAME_BYTES_MAX, CAPACITY_EXPECTED_MAX);
    this.#buffer = Buffer.allocUnsafeSlow(Math.max(CAPACITY_MIN, capacity));
    call.respondOwned(buffer, HEADROOM_BYTES, this.#pos);
  }

  readonly #visitRevision = (_key: KeyInPlace, main: number, sub: number): boolean => {
    const slot = this.#slot;
    this.#server.store.readRow(main, sub, slot);
    this.#visit(slot.bytes, slot.start, slot.end);
    return ++this.#rows < this.#rowsMax && this.#pos < this.#limits.bytesAtOnce;
  };

  readonly #visit = (bytes: Uint8Array, start: number, end: number): void => {
    const length = end - start;
    this.#reserve(length + FRAME_BYTES_MAX);
    const buffer = this.#buffer;
    let pos = this.#pos;
    buffer[pos++] = 0x12;
    pos = writeVarint(buffer, pos, length);
    if (length < 48) for (let i = start; i < end; i++) buffer[pos++] = bytes[i]!;
    else {
      // The bytes may be in a store buffer that is longer than its reported length.
      buffer.set(bytes.subarray(start, end), pos);
      pos += length;
    }
    this.#pos = pos;
  };

  #reserve(size: number): void {
    if (this.#pos + size <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#buffer.length * 2, this.#pos + size));
    this.#buffer.copy(grown, 0, 0, this.#pos);
    this.#buffer = grown;
  }
}
