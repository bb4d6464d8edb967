/**
 * The header blocks of one connection: joins HEADERS and CONTINUATION fragments, decodes blocks in order, and
 * recognises repeated blocks. Limits the cost of a block.
 */
import { HeadCache, RequestHead } from "./head.ts";
import { HeaderFragments } from "./header-fragments.ts";
import { HpackDecoder } from "./hpack/decoder.ts";
import type { HeaderField } from "./hpack/fields.ts";
import { HEADER_LIST_BYTES_MAX } from "./protocol.ts";

export class HeaderReader<Route> extends HeaderFragments {
  /** Size of the last decoded list, 0 for a block seen before. Above HEADER_LIST_BYTES_MAX some fields were dropped. */
  listBytes = 0;

  readonly #decoder = new HpackDecoder();
  readonly #heads = new HeadCache<Route>();
  readonly #routeOf: (path: string) => Route | undefined;

  constructor(routeOf: (path: string) => Route | undefined) {
    super();
    this.#routeOf = routeOf;
  }

  /** Decodes a complete block as a request. Throws HpackError. */
  request(buf: Buffer, start: number, end: number): RequestHead<Route> {
    const { version } = this.#decoder;
    const known = this.#heads.get(buf, start, end, version);
    if (known !== undefined) {
      this.listBytes = 0;
      return known;
    }
    const head = new RequestHead<Route>(this.fields(buf, start, end));
    head.route = this.#routeOf(head.path);
    // A block that changed the table decodes differently the next time.
    if (this.#decoder.version === version && this.listBytes <= HEADER_LIST_BYTES_MAX) {
      this.#heads.put(buf, start, end, version, head);
    }
    return head;
  }

  /** Decodes a complete block as it is, for trailers. Throws HpackError. */
  fields(buf: Buffer, start: number, end: number): HeaderField[] {
    const fields: HeaderField[] = [];
    this.#decoder.decode(buf, start, end, fields, HEADER_LIST_BYTES_MAX);
    this.listBytes = this.#decoder.listSize;
    return fields;
  }
}
