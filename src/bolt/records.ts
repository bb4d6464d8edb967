/**
 * Changes passed from the thread that makes them to the one that writes the file: records in one block of memory, whose
 * ownership is transferred instead of copying.
 *
 * A record: bucket (u8, its index in a list known to both sides), operation (u8), bytes of the key (u16) and of the
 * value (u32), key, value. A put refers to this memory until its transaction is written.
 */

import { u16At, u32At } from "./raw-page.ts";
import type { WriteTransaction } from "./transaction.ts";

const HEADER_BYTES = 8;
const PUT = 0;
const DELETE = 1;

/** A bucket that both sides know by its index in a list. */
export interface KnownBucket {
  readonly name: string;
  /** Its keys come in ascending order. */
  readonly sequential: boolean;
}

export class RecordBuffer {
  #bytes: Buffer;
  #length = 0;

  constructor(capacity: number) {
    this.#bytes = Buffer.allocUnsafeSlow(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** Offset of the key in `bytes`, followed by the value: the caller copies both there at once. */
  put(bucket: number, keyBytes: number, valueBytes: number): number {
    return this.#add(bucket, PUT, keyBytes, valueBytes);
  }

  delete(bucket: number, keyBytes: number): number {
    return this.#add(bucket, DELETE, keyBytes, 0);
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  #add(bucket: number, what: number, keyBytes: number, valueBytes: number): number {
    const at = this.#length;
    const end = at + HEADER_BYTES + keyBytes + valueBytes;
    if (end > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(end, this.#bytes.length * 2));
      this.#bytes.copy(grown, 0, 0, at);
      this.#bytes = grown;
    }
    const bytes = this.#bytes;
    bytes[at] = bucket;
    bytes[at + 1] = what;
    bytes[at + 2] = keyBytes;
    bytes[at + 3] = keyBytes >>> 8;
    bytes[at + 4] = valueBytes;
    bytes[at + 5] = valueBytes >>> 8;
    bytes[at + 6] = valueBytes >>> 16;
    bytes[at + 7] = valueBytes >>> 24;
    this.#length = end;
    return at + HEADER_BYTES;
  }

  /** Returns the records so far and passes their ownership. */
  take(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#bytes.buffer as ArrayBuffer, this.#bytes.byteOffset, this.#length);
  }
}

/** Executes the records. Their memory must not change during the transaction. */
export function applyRecords(
  records: Uint8Array,
  buckets: readonly KnownBucket[],
  transaction: WriteTransaction,
): void {
  for (let at = 0; at < records.length; ) {
    const { name, sequential } = buckets[records[at]!]!;
    const what = records[at + 1]!;
    const start = at + HEADER_BYTES;
    const keyEnd = start + u16At(records, at + 2);
    const end = keyEnd + u32At(records, at + 4);
    const bucket = transaction.bucket(name, sequential);
    if (what === PUT) bucket.put(records, start, keyEnd, end);
    else bucket.delete(records, start, keyEnd);
    at = end;
  }
}
