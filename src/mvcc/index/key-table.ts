import type { ByteString } from "../model/types.ts";
import type { KeyEntry } from "./key-entry.ts";

/**
 * Key entries by key: with a million entries, three to ten times faster than the tree.
 *
 * A hash table with open addressing, split into shards that grow separately, so that no insert moves all entries. Looks
 * keys up by their bytes, without creating a string. 20 bytes per entry.
 */
export class KeyTable {
  readonly #shards: Shard[] = [];
  readonly #seed: number;
  #size = 0;

  /** `seed` (32 bits) prevents clients from choosing keys that collide. */
  constructor(seed: number) {
    this.#seed = seed | 0;
    for (let i = 0; i < SHARD_COUNT; i++) this.#shards.push(new Shard(SHARD_CAPACITY_MIN));
  }

  get size(): number {
    return this.#size;
  }

  find(key: Uint8Array): KeyEntry | undefined {
    const hash = hashBytes(key, this.#seed);
    const { hashes, entries } = this.#shards[hash & SHARD_MASK]!;
    const mask = hashes.length - 1;
    for (let slot = (hash >>> SHARD_BITS) & mask; ; slot = (slot + 1) & mask) {
      const entry = entries[slot];
      if (entry === undefined) return undefined;
      if (hashes[slot] === hash && equalBytes(entry.key, key)) return entry;
    }
  }

  findString(key: ByteString): KeyEntry | undefined {
    const hash = hashString(key, this.#seed);
    const { hashes, entries } = this.#shards[hash & SHARD_MASK]!;
    const mask = hashes.length - 1;
    for (let slot = (hash >>> SHARD_BITS) & mask; ; slot = (slot + 1) & mask) {
      const entry = entries[slot];
      if (entry === undefined) return undefined;
      if (hashes[slot] === hash && entry.key === key) return entry;
    }
  }

  /** Adds an entry whose key is not in the table. */
  insert(entry: KeyEntry): void {
    const hash = hashString(entry.key, this.#seed);
    const index = hash & SHARD_MASK;
    let shard = this.#shards[index]!;
    if (shard.size * 4 >= shard.hashes.length * 3) this.#shards[index] = shard = shard.resized(shard.hashes.length * 2);
    shard.insert(hash, entry);
    this.#size++;
  }

  /** Returns whether the key was there. */
  remove(key: ByteString): boolean {
    const hash = hashString(key, this.#seed);
    const index = hash & SHARD_MASK;
    const shard = this.#shards[index]!;
    if (!shard.remove(hash, key)) return false;
    this.#size--;
    const capacity = shard.hashes.length;
    if (capacity > SHARD_CAPACITY_MIN && shard.size * 8 < capacity) this.#shards[index] = shard.resized(capacity >> 1);
    return true;
  }
}

const SHARD_BITS = 8;
const SHARD_COUNT = 1 << SHARD_BITS;
const SHARD_MASK = SHARD_COUNT - 1;
const SHARD_CAPACITY_MIN = 16;

/** An entry's slot is the first free one from its hash on. At most three quarters full. */
class Shard {
  readonly hashes: Int32Array;
  readonly entries: (KeyEntry | undefined)[];
  size = 0;

  constructor(capacity: number) {
    this.hashes = new Int32Array(capacity);
    this.entries = new Array<KeyEntry | undefined>(capacity).fill(undefined);
  }

  insert(hash: number, entry: KeyEntry): void {
    const mask = this.hashes.length - 1;
    let slot = (hash >>> SHARD_BITS) & mask;
    while (this.entries[slot] !== undefined) slot = (slot + 1) & mask;
    this.hashes[slot] = hash;
    this.entries[slot] = entry;
    this.size++;
  }

  remove(hash: number, key: ByteString): boolean {
    const { hashes, entries } = this;
    const mask = hashes.length - 1;
    let slot = (hash >>> SHARD_BITS) & mask;
    for (; ; slot = (slot + 1) & mask) {
      const entry = entries[slot];
      if (entry === undefined) return false;
      if (hashes[slot] === hash && entry.key === key) break;
    }
    // Closes the gap: following entries move up, unless that would put one before its own first slot.
    for (let next = (slot + 1) & mask; entries[next] !== undefined; next = (next + 1) & mask) {
      const home = (hashes[next]! >>> SHARD_BITS) & mask;
      if (((next - home) & mask) >= ((next - slot) & mask)) {
        hashes[slot] = hashes[next]!;
        entries[slot] = entries[next];
        slot = next;
      }
    }
    entries[slot] = undefined;
    this.size--;
    return true;
  }

  resized(capacity: number): Shard {
    const other = new Shard(capacity);
    for (let slot = 0; slot < this.entries.length; slot++) {
      const entry = this.entries[slot];
      if (entry !== undefined) other.insert(this.hashes[slot]!, entry);
    }
    return other;
  }
}

function hashBytes(key: Uint8Array, seed: number): number {
  let hash = seed ^ key.length;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key[i]!, 0x5bd1e995);
  return finish(hash);
}

function hashString(key: ByteString, seed: number): number {
  let hash = seed ^ key.length;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x5bd1e995);
  return finish(hash);
}

function finish(hash: number): number {
  let h = hash ^ (hash >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function equalBytes(text: ByteString, bytes: Uint8Array): boolean {
  if (text.length !== bytes.length) return false;
  for (let i = 0; i < bytes.length; i++) if (text.charCodeAt(i) !== bytes[i]) return false;
  return true;
}
