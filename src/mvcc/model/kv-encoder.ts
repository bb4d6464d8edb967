import { writeVarint, writeVarintBig } from "../../base/varint.ts";

/**
 * Encodes mvccpb.KeyValue once, byte for byte as Go does, into memory shared by backend and watchers.
 *
 * The memory comes in chunks that are written once, front to back, so encoded messages may be kept indefinitely without
 * a copy. After `put` and `tombstone`, `bytes[start .. end)` is the message.
 */
export class KvEncoder {
  bytes: Buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  start = 0;
  end = 0;
  /** The key within the message. */
  keyStart = 0;
  keyEnd = 0;

  put(
    key: Uint8Array,
    createRevision: number,
    modRevision: number,
    version: number,
    value: Uint8Array,
    lease: bigint,
  ): void {
    this.#reserve(key.length + value.length + OVERHEAD_BYTES_MAX);
    const { bytes } = this;
    let pos = this.#key(key, 0, key.length);
    bytes[pos++] = 0x10;
    pos = writeVarint(bytes, pos, createRevision);
    bytes[pos++] = 0x18;
    pos = writeVarint(bytes, pos, modRevision);
    bytes[pos++] = 0x20;
    pos = writeVarint(bytes, pos, version);
    if (value.length > 0) {
      bytes[pos++] = 0x2a;
      pos = writeVarint(bytes, pos, value.length);
      bytes.set(value, pos);
      pos += value.length;
    }
    if (lease !== 0n) {
      bytes[pos++] = 0x30;
      pos = writeVarintBig(bytes, pos, lease);
    }
    this.end = pos;
  }

  /** A deletion: only the key, `source[keyStart .. keyEnd)`. */
  tombstone(source: Uint8Array, keyStart: number, keyEnd: number): void {
    this.#reserve(keyEnd - keyStart + OVERHEAD_BYTES_MAX);
    this.end = this.#key(source, keyStart, keyEnd);
  }

  #key(source: Uint8Array, keyStart: number, keyEnd: number): number {
    const { bytes } = this;
    const length = keyEnd - keyStart;
    let pos = this.start;
    if (length > 0) {
      bytes[pos++] = 0x0a;
      pos = writeVarint(bytes, pos, length);
    }
    this.keyStart = pos;
    this.keyEnd = pos + length;
    if (length < 64) for (let i = keyStart; i < keyEnd; i++) bytes[pos++] = source[i]!;
    else bytes.set(source.subarray(keyStart, keyEnd), pos);
    return this.keyEnd;
  }

  #reserve(size: number): void {
    this.start = this.end;
    if (this.bytes.length - this.start >= size) return;
    // A large message gets its own memory, so that it does not pin a whole chunk.
    this.bytes = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, size));
    this.start = 0;
  }
}

const CHUNK_BYTES = 256 * 1024;
/** Six tags, two lengths (5 bytes), three revisions (8 bytes), one lease (10 bytes), rounded up. */
const OVERHEAD_BYTES_MAX = 64;
