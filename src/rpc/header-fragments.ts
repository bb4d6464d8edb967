/** Joins the HEADERS and CONTINUATION frames of a header block. */
import { CONTINUATIONS_MAX, HEADER_BLOCK_BYTES_MAX } from "./protocol.ts";

export class HeaderFragments {
  /** The stream of an incomplete block, for which only CONTINUATION may follow; otherwise 0. */
  streamId = 0;
  /** END_STREAM of that block's HEADERS frame. */
  endsStream = false;
  #parts: Buffer[] = [];
  #bytes = 0;

  /** Stores the first fragment of an incomplete block. */
  begin(streamId: number, endsStream: boolean, fragment: Buffer): void {
    this.streamId = streamId;
    this.endsStream = endsStream;
    this.#parts = [Buffer.from(fragment)];
    this.#bytes = fragment.length;
  }

  /** Stores the next fragment. False when the block is too long. */
  append(fragment: Buffer): boolean {
    this.#bytes += fragment.length;
    this.#parts.push(Buffer.from(fragment));
    return this.#bytes <= HEADER_BLOCK_BYTES_MAX && this.#parts.length <= CONTINUATIONS_MAX;
  }

  /** The block is complete: returns it. */
  join(): Buffer {
    const block = Buffer.concat(this.#parts);
    this.#parts = [];
    this.streamId = 0;
    return block;
  }
}
