/**
 * Keys and ranges as users write them, and a space: a prefix that is added to every key, with the codecs of its keys and
 * values.
 */
import { EMPTY_BYTES } from "../base/protobuf.ts";
import type { KeyValue as StoredKeyValue } from "../proto/mvccpb.ts";
import type { Codec } from "./codec.ts";

/** A key: a string, as UTF-8, or bytes. */
export type Key = string | Uint8Array;

/**
 * One key, all keys with a prefix, or all from one key on, up to another that does not belong to it.
 *
 * @example
 * await client.delete("a");                       // one key
 * await client.delete({ prefix: "jobs/" });
 * await client.delete({ from: "a", to: "c" });    // a, ab, b, but not c
 * await client.count({ all: true });
 */
export type KeyRange =
  | Key
  | { readonly prefix: Key }
  | { readonly from: Key; readonly to?: Key }
  | { readonly all: true };

/** A key with its value. */
export interface KeyValue<V, K> {
  readonly key: K;
  readonly value: V;
  /** How often the key was written since it was created: 1 for the first time. */
  readonly version: number;
  /** The revision at which the key was created. */
  readonly createRevision: number;
  /** The revision of its last change. */
  readonly modRevision: number;
  /** The lease that it belongs to; 0n for none. */
  readonly lease: bigint;
}

/** A range on the wire. */
export interface Span {
  readonly key: Uint8Array;
  /** Empty for one key, a single zero byte for no end. */
  readonly rangeEnd: Uint8Array;
}

const ZERO = Buffer.from([0]);

export class Space<V, K> {
  readonly prefix: Uint8Array;
  readonly keys: Codec<K>;
  readonly values: Codec<V>;

  constructor(prefix: Uint8Array, keys: Codec<K>, values: Codec<V>) {
    this.prefix = prefix;
    this.keys = keys;
    this.values = values;
  }

  /** The key as stored. */
  key(key: Key): Uint8Array {
    const { prefix } = this;
    if (prefix.length === 0) return typeof key === "string" ? Buffer.from(key, "utf8") : key;
    return Buffer.concat([prefix, typeof key === "string" ? Buffer.from(key, "utf8") : key]);
  }

  span(range: KeyRange): Span {
    if (typeof range === "string" || range instanceof Uint8Array)
      return { key: this.key(range), rangeEnd: EMPTY_BYTES };
    if ("prefix" in range) return this.#under(this.key(range.prefix));
    if ("all" in range) return this.#under(this.prefix);
    const key = this.key(range.from);
    const first = key.length === 0 ? ZERO : key;
    if (range.to !== undefined) return { key: first, rangeEnd: this.key(range.to) };
    return { key: first, rangeEnd: this.prefix.length === 0 ? ZERO : prefixEnd(this.prefix) };
  }

  #under(prefix: Uint8Array): Span {
    // Every key has the empty prefix.
    if (prefix.length === 0) return { key: ZERO, rangeEnd: ZERO };
    return { key: prefix, rangeEnd: prefixEnd(prefix) };
  }

  keyOf(stored: Uint8Array): K {
    return this.keys.decode(this.prefix.length === 0 ? stored : stored.subarray(this.prefix.length));
  }

  keyValue(stored: StoredKeyValue): KeyValue<V, K> {
    return {
      key: this.keyOf(stored.key),
      value: this.values.decode(stored.value),
      version: stored.version,
      createRevision: stored.createRevision,
      modRevision: stored.modRevision,
      lease: stored.lease,
    };
  }
}

/** The first key after all with this prefix; a single zero byte when there is none. */
function prefixEnd(prefix: Uint8Array): Uint8Array {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 0xff) length--;
  if (length === 0) return ZERO;
  const end = Buffer.from(prefix.subarray(0, length));
  end[length - 1]!++;
  return end;
}

/** The first key after this one. */
export function keyAfter(key: Uint8Array): Uint8Array {
  return Buffer.concat([key, ZERO]);
}
