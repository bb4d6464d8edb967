/**
 * HPACK encoding of replies (RFC 7541): one encoder per connection.
 *
 * Nearly every gRPC reply has the same headers and trailers. Their fields are inserted into the peer's dynamic table
 * once and stay there, because nothing else is ever inserted; from then on a block is two or three cached bytes.
 * Everything else (error trailers, plain HTTP) is written as literals that do not change the table. A peer that allows
 * no table gets literals only.
 */
import { STATIC_TABLE } from "./fields.ts";

/** The repeated fields; their total size is far below the smallest table we use. */
const CONSTANT_FIELDS: readonly (readonly [name: string, value: string])[] = [
  ["content-type", "application/grpc"],
  ["grpc-accept-encoding", "gzip"],
  ["grpc-status", "0"],
  ["grpc-message", ""],
  ["grpc-encoding", "gzip"],
];
const CONTENT_TYPE = 0;
const ACCEPT_ENCODING = 1;
const STATUS_OK = 2;
const MESSAGE_EMPTY = 3;
const GZIP = 4;

/** A smaller table is not worth the bookkeeping, and all constant fields together (about 260) must fit. */
const TABLE_SIZE_LEAST = 512;
const TABLE_SIZE_DEFAULT = 4096;

const STATUS_200 = 0x88;
const STATIC_COUNT = 61;
const staticNames = new Map<string, number>();
STATIC_TABLE.forEach((field, i) => {
  if (field !== undefined && !staticNames.has(field.name)) staticNames.set(field.name, i);
});

export type HeaderPair = readonly [name: string, value: string];

export class HpackEncoder {
  /** Table position of each constant field, counted from the first insertion; -1 before its insertion. */
  #inserted: number[] = CONSTANT_FIELDS.map(() => -1);
  #insertions = 0;
  #tableSize = TABLE_SIZE_DEFAULT;
  /** A size update that the next block must start with, or -1. */
  #sizeUpdate = -1;
  /** Cached blocks; dropped when the table changes. */
  #headers: Buffer | undefined;
  #trailers: Buffer | undefined;

  /** The peer's SETTINGS_HEADER_TABLE_SIZE. */
  setPeerTableSize(size: number): void {
    const next = size < TABLE_SIZE_LEAST ? 0 : Math.min(size, TABLE_SIZE_DEFAULT);
    if (next === this.#tableSize) return;
    if (next < TABLE_SIZE_LEAST) {
      this.#inserted.fill(-1);
      this.#insertions = 0;
    }
    this.#tableSize = next;
    this.#sizeUpdate = next;
    this.#headers = undefined;
    this.#trailers = undefined;
  }

  /** `:status: 200`, `content-type: application/grpc` and the encodings we accept. */
  grpcHeaders(): Buffer {
    return this.#headers ?? this.#buildHeaders();
  }

  /** `grpc-status: 0` with an empty `grpc-message`, as grpc-go sends it. */
  grpcTrailersOk(): Buffer {
    return this.#trailers ?? this.#buildTrailers();
  }

  /** Headers of a compressed reply, or of one whose content type has a suffix. */
  grpcHeadersSpecial(contentType: string, gzip: boolean): Buffer {
    const out = this.#begin();
    out.push(STATUS_200);
    if (contentType === "application/grpc") this.#constant(out, CONTENT_TYPE);
    else literal(out, "content-type", contentType);
    this.#constant(out, ACCEPT_ENCODING);
    if (gzip) this.#constant(out, GZIP);
    return Buffer.from(out);
  }

  /** Any block, without changing the table. Names must be lower case; values are one character per byte. */
  block(fields: readonly HeaderPair[]): Buffer {
    const out = this.#begin();
    for (const [name, value] of fields) literal(out, name, value);
    return Buffer.from(out);
  }

  #begin(): number[] {
    const out: number[] = [];
    if (this.#sizeUpdate >= 0) {
      // After a switch from no table to a table, the peer must see that the old entries are gone.
      if (this.#insertions === 0 && this.#sizeUpdate > 0) out.push(0x20);
      integer(out, this.#sizeUpdate, 5, 0x20);
      this.#sizeUpdate = -1;
    }
    return out;
  }

  #buildHeaders(): Buffer {
    const before = this.#insertions;
    const out = this.#begin();
    const stable = out.length === 0;
    out.push(STATUS_200);
    this.#constant(out, CONTENT_TYPE);
    this.#constant(out, ACCEPT_ENCODING);
    const block = Buffer.from(out);
    if (stable && before === this.#insertions) this.#headers = block;
    return block;
  }

  #buildTrailers(): Buffer {
    const before = this.#insertions;
    const out = this.#begin();
    const stable = out.length === 0;
    this.#constant(out, STATUS_OK);
    this.#constant(out, MESSAGE_EMPTY);
    const block = Buffer.from(out);
    if (stable && before === this.#insertions) this.#trailers = block;
    return block;
  }

  #constant(out: number[], which: number): void {
    const [name, value] = CONSTANT_FIELDS[which]!;
    const at = this.#inserted[which]!;
    if (at >= 0) integer(out, STATIC_COUNT + this.#insertions - at, 7, 0x80);
    else if (this.#tableSize === 0) literal(out, name, value);
    else {
      const index = staticNames.get(name) ?? 0;
      integer(out, index, 6, 0x40);
      if (index === 0) string(out, name);
      string(out, value);
      this.#inserted[which] = this.#insertions++;
      // Every insertion shifts the index of existing entries.
      this.#headers = undefined;
      this.#trailers = undefined;
    }
  }
}

/** A literal without indexing. */
function literal(out: number[], name: string, value: string): void {
  if (name === ":status" && value === "200") {
    out.push(STATUS_200);
    return;
  }
  const index = staticNames.get(name) ?? 0;
  integer(out, index, 4, 0);
  if (index === 0) string(out, name);
  string(out, value);
}

/** A string without Huffman code. Source: RFC 7541, 5.2. */
export function string(out: number[], text: string): void {
  integer(out, text.length, 7, 0);
  for (let i = 0; i < text.length; i++) out.push(text.charCodeAt(i) & 255);
}

/** Source: RFC 7541, 5.1. */
export function integer(out: number[], value: number, prefixBits: number, flags: number): void {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) {
    out.push(flags | value);
    return;
  }
  out.push(flags | mask);
  let rest = value - mask;
  while (rest >= 128) {
    out.push((rest & 127) | 128);
    rest >>>= 7;
  }
  out.push(rest);
}
