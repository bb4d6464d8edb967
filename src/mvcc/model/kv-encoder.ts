import { writeVarint, writeVarintBig } from "../../base/varint.ts";
import type { ByteString } from "./types.ts";

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

  put(
    key: ByteString,
    createRevision: number,
    modRevision: number,
    version: number,
    value: Uint8Array,
    lease: bigint,
  ): void {
    this.#reserve(key.length + value.length + OVERHEAD_BYTES_MAX);
    const { bytes } = this;
    let pos = this.#key(key);
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

  /** A deletion: only the key. */
  tombstone(key: ByteString): void {
    this.#reserve(key.length + OVERHEAD_BYTES_MAX);
    this.end = this.#key(key);
  }

  #key(key: ByteString): number {
    const { bytes } = this;
    let pos = this.start;
    if (key.length === 0) return pos;
    bytes[pos++] = 0x0a;
    pos = writeVarint(bytes, pos, key.length);
    if (key.length < 32) for (let i = 0; i < key.length; i++) bytes[pos + i] = key.charCodeAt(i);
    else bytes.write(key, pos, "latin1");
    return pos + key.length;
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
