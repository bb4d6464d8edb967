/**
 * Header blocks of one connection: joins the fragments of HEADERS and CONTINUATION, decodes them in order, and recognises
 * blocks that it has seen. Limits what a block may cost.
 */
import { HeadCache, RequestHead } from "./head.ts";
import { HpackDecoder } from "./hpack/decoder.ts";
import type { HeaderField } from "./hpack/fields.ts";
import { CONTINUATIONS_MAX, HEADER_BLOCK_BYTES_MAX, HEADER_LIST_BYTES_MAX } from "./protocol.ts";

export class HeaderReader<Route> {
  /** The stream whose block is under way, when only its CONTINUATION may come; else 0. */
  streamId = 0;
  /** What END_STREAM said in the HEADERS frame of that block. */
  endsStream = false;
  /** Size of the list decoded last, 0 for a block seen before. Above HEADER_LIST_BYTES_MAX some of its fields were dropped. */
  listBytes = 0;

  readonly #decoder = new HpackDecoder();
  readonly #heads = new HeadCache<Route>();
  readonly #routeOf: (path: string) => Route | undefined;
  #parts: Buffer[] = [];
  #bytes = 0;

  constructor(routeOf: (path: string) => Route | undefined) {
    this.#routeOf = routeOf;
  }

  /** Keeps the first fragment of a block that goes on. */
  begin(streamId: number, endsStream: boolean, fragment: Buffer): void {
    this.streamId = streamId;
    this.endsStream = endsStream;
    this.#parts = [Buffer.from(fragment)];
    this.#bytes = fragment.length;
  }

  /** Keeps the next fragment. False when the block has become too long. */
  append(fragment: Buffer): boolean {
    this.#bytes += fragment.length;
    this.#parts.push(Buffer.from(fragment));
    return this.#bytes <= HEADER_BLOCK_BYTES_MAX && this.#parts.length <= CONTINUATIONS_MAX;
  }

  /** The block is complete. */
  join(): Buffer {
    const block = Buffer.concat(this.#parts);
    this.#parts = [];
    this.streamId = 0;
    return block;
  }

  /** Decodes a whole block as a request. Throws HpackError. */
  request(buf: Buffer, start: number, end: number): RequestHead<Route> {
    const { version } = this.#decoder;
    const known = this.#heads.get(buf, start, end, version);
    if (known !== undefined) {
      this.listBytes = 0;
      return known;
    }
    const head = new RequestHead<Route>(this.fields(buf, start, end));
    head.route = this.#routeOf(head.path);
    // A block that changed the table means something else the next time.
    if (this.#decoder.version === version && this.listBytes <= HEADER_LIST_BYTES_MAX) {
      this.#heads.put(buf, start, end, version, head);
    }
    return head;
  }

  /** Decodes a whole block as it is, which trailers need. Throws HpackError. */
  fields(buf: Buffer, start: number, end: number): HeaderField[] {
    const fields: HeaderField[] = [];
    this.#decoder.decode(buf, start, end, fields, HEADER_LIST_BYTES_MAX);
    this.listBytes = this.#decoder.listSize;
    return fields;
  }
}
