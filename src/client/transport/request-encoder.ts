/**
 * HPACK encoding of gRPC requests (RFC 7541): one encoder per connection.
 *
 * A client repeats a few header lists. Their fields are inserted into the server's dynamic table once and stay there:
 * when the table is full nothing more is inserted, so that nothing is ever evicted, and what has no place is sent as a
 * literal. A repeated list is a cached block of a few bytes, which servers recognise as a whole.
 */

import { integer, string } from "../../rpc/hpack/encoder.ts";
import { STATIC_TABLE } from "../../rpc/hpack/fields.ts";

/** What varies in the headers of calls. Equal heads that are the same object share a cached block. */
export interface CallHead {
  readonly path: string;
  /** `grpc-timeout`; empty for none. */
  readonly timeout: string;
  /** Other fields, such as `token`. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  /** `traceparent`, which is of this call alone and belongs into no table. */
  readonly trace?: string;
}

const TABLE_BYTES = 4096;
const ENTRY_OVERHEAD = 32;
const STATIC_COUNT = 61;
/** Values that change often would fill the table. */
const LASTING_VALUE_MAX = 256;
/** Cached blocks; a program that varies its timeouts without end must not fill the memory. */
const BLOCKS_MAX = 1000;

const staticFields = new Map<string, number>();
const staticNames = new Map<string, number>();
STATIC_TABLE.forEach((field, i) => {
  if (field === undefined) return;
  if (!staticNames.has(field.name)) staticNames.set(field.name, i);
  staticFields.set(`${field.name}\n${field.value}`, i);
});

export class RequestEncoder {
  /** Pseudo-headers must come first. */
  readonly #pseudo: readonly (readonly [string, string])[];
  readonly #common: readonly (readonly [string, string])[];
  readonly #inserted = new Map<string, number>();
  #insertions = 0;
  #tableBytes = 0;
  #tableMax = TABLE_BYTES;
  #sizeUpdate = false;
  #blocks = new Map<string, Buffer>();

  constructor(scheme: "http" | "https", authority: string, userAgent: string) {
    this.#pseudo = [
      [":method", "POST"],
      [":scheme", scheme],
      [":authority", authority],
    ];
    this.#common = [
      ["content-type", "application/grpc"],
      ["te", "trailers"],
      ["user-agent", userAgent],
    ];
  }

  /** The server's SETTINGS_HEADER_TABLE_SIZE. Below the default, nothing is kept in its table any more. */
  setPeerTableSize(size: number): void {
    if (size >= this.#tableMax) return;
    this.#tableMax = 0;
    this.#sizeUpdate = true;
    this.#inserted.clear();
    this.#blocks.clear();
  }

  block(head: CallHead): Buffer {
    let key = `${head.path}\n${head.timeout}`;
    for (const [name, value] of head.fields) key += `\n${name}\n${value}`;
    const block = this.#blocks.get(key) ?? this.#build(key, head);
    return head.trace === undefined ? block : Buffer.concat([block, literal("traceparent", head.trace)]);
  }

  #build(key: string, head: CallHead): Buffer {
    const before = this.#insertions;
    const out: number[] = [];
    const stable = !this.#sizeUpdate;
    if (this.#sizeUpdate) out.push(0x20);
    this.#sizeUpdate = false;
    for (const [name, value] of this.#pseudo) this.#field(out, name, value);
    this.#field(out, ":path", head.path);
    for (const [name, value] of this.#common) this.#field(out, name, value);
    if (head.timeout !== "") this.#field(out, "grpc-timeout", head.timeout);
    for (const [name, value] of head.fields) this.#field(out, name, value);
    const block = Buffer.from(out);
    // An insertion shifts the index of every entry.
    if (this.#insertions !== before) this.#blocks.clear();
    else if (stable) {
      if (this.#blocks.size >= BLOCKS_MAX) this.#blocks.clear();
      this.#blocks.set(key, block);
    }
    return block;
  }

  #field(out: number[], name: string, value: string): void {
    const text = `${name}\n${value}`;
    const fixed = staticFields.get(text);
    if (fixed !== undefined) return integer(out, fixed, 7, 0x80);
    const at = this.#inserted.get(text);
    if (at !== undefined) return integer(out, STATIC_COUNT + this.#insertions - at, 7, 0x80);
    const size = name.length + value.length + ENTRY_OVERHEAD;
    const keeps = value.length <= LASTING_VALUE_MAX && this.#tableBytes + size <= this.#tableMax;
    const index = staticNames.get(name) ?? 0;
    if (keeps) integer(out, index, 6, 0x40);
    else integer(out, index, 4, 0);
    if (index === 0) string(out, name);
    string(out, value);
    if (!keeps) return;
    this.#tableBytes += size;
    this.#inserted.set(text, this.#insertions++);
  }
}

/** A field that leaves the table as it is. */
function literal(name: string, value: string): Buffer {
  const out = [0];
  string(out, name);
  string(out, value);
  return Buffer.from(out);
}
