import { writeVarint } from "../base/varint.ts";
import type { RangeRequest } from "../proto/etcdserverpb.ts";
import { rangeEndOf } from "../server/range.ts";
import type { EtcdServer } from "../server/server.ts";
import type { HeaderWriter } from "./header.ts";

const CAPACITY_MIN = 64 * 1024;
/** A buffer that grew past this is dropped after the reply that needed it. */
const CAPACITY_KEPT_MAX = 4 * 1024 * 1024;
/** Room for the tag and length of one key-value, and for `more` and `count` at the end. */
const FRAME_BYTES_MAX = 32;

/**
 * RangeResponse assembled from the bytes that the store keeps, without decoding a key-value: header, then each stored
 * KeyValue as it is, then `more` and `count`.
 */
export class RangeReply {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  #buffer = Buffer.allocUnsafeSlow(CAPACITY_MIN);
  #pos = 0;

  constructor(server: EtcdServer, header: HeaderWriter) {
    this.#server = server;
    this.#header = header;
  }

  /**
   * Reads what a plain request (see `isPlainRange`, and neither `keys_only`) asks for and returns the encoded response, a
   * view that the next call overwrites. Throws CompactedError, FutureRevisionError.
   */
  encode(request: RangeRequest): Uint8Array {
    if (this.#buffer.length > CAPACITY_KEPT_MAX) this.#buffer = Buffer.allocUnsafeSlow(CAPACITY_MIN);
    const { store } = this.#server;
    // The header's revision is the current one, which a read does not change.
    this.#pos = this.#header.write(this.#buffer, 0, store.currentRevision);
    const result = store.range(request.key, rangeEndOf(request.rangeEnd), request, this.#visit);
    const more = !request.countOnly && request.limit > 0 && result.count > result.visited;
    this.#reserve(FRAME_BYTES_MAX);
    if (more) {
      this.#buffer[this.#pos++] = 0x18;
      this.#buffer[this.#pos++] = 1;
    }
    if (result.count > 0) {
      this.#buffer[this.#pos++] = 0x20;
      this.#pos = writeVarint(this.#buffer, this.#pos, result.count);
    }
    return this.#buffer.subarray(0, this.#pos);
  }

  readonly #visit = (bytes: Uint8Array, start: number, end: number): void => {
    const length = end - start;
    this.#reserve(length + FRAME_BYTES_MAX);
    const buffer = this.#buffer;
    let pos = this.#pos;
    buffer[pos++] = 0x12;
    pos = writeVarint(buffer, pos, length);
    if (length < 48) for (let i = start; i < end; i++) buffer[pos++] = bytes[i]!;
    else {
      // The bytes may be in a buffer of the store that is longer than it says.
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
