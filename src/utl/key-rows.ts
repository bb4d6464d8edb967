/**
 * Which row of a database is the last one of each key, for any number of keys: 20 to 45 bytes a key, however long it is.
 *
 * A key is known by a hash of 96 bits. Among 100 million keys, two have the same one with a chance of one in 10^13.
 */

const CAPACITY_MIN = 64;
/** Words of a slot: three of the hash, one for the row plus one; 0 for a free slot. */
const WORDS = 4;

export class KeyRows {
  readonly #shards = Array.from({ length: SHARDS }, () => new Shard());

  /** Keys that have a row. */
  get size(): number {
    return this.#shards.reduce((sum, { size }) => sum + size, 0);
  }

  /** Makes `row` (below 2^32 - 1) the key's last one; returns the one before, or -1. */
  set(key: string, row: number): number {
    hash(key);
    return this.#shards[hash1 % SHARDS]!.set(row);
  }

  /** The key has no row any more; returns its last one, or -1. */
  delete(key: string): number {
    hash(key);
    return this.#shards[hash1 % SHARDS]!.delete();
  }
}

/** So that growing does not copy everything at once. */
const SHARDS = 64;

/** A hash table with open addressing. Takes the key from `hash`. */
class Shard {
  #slots = new Uint32Array(CAPACITY_MIN * WORDS);
  #capacity = CAPACITY_MIN;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  set(row: number): number {
    if (this.#size * 8 >= this.#capacity * 7) this.#grow();
    const at = this.#find();
    const slots = this.#slots;
    const before = slots[at + 3]! - 1;
    if (before < 0) {
      slots[at] = hash0;
      slots[at + 1] = hash1;
      slots[at + 2] = hash2;
      this.#size++;
    }
    slots[at + 3] = row + 1;
    return before;
  }

  delete(): number {
    const slots = this.#slots;
    const at = this.#find();
    const before = slots[at + 3]! - 1;
    if (before < 0) return -1;
    this.#size--;
    this.#close(at / WORDS);
    return before;
  }

  /** Offset of the slot of the hash, or of the free one for it. */
  #find(): number {
    const slots = this.#slots;
    const mask = this.#capacity - 1;
    for (let slot = hash0 & mask; ; slot = (slot + 1) & mask) {
      const at = slot * WORDS;
      if (slots[at + 3] === 0) return at;
      if (slots[at] === hash0 && slots[at + 1] === hash1 && slots[at + 2] === hash2) return at;
    }
  }

  /** Frees a slot: following entries move up, unless that would put one before its own first slot. */
  #close(freed: number): void {
    const slots = this.#slots;
    const mask = this.#capacity - 1;
    let slot = freed;
    for (let next = (slot + 1) & mask; slots[next * WORDS + 3] !== 0; next = (next + 1) & mask) {
      const home = slots[next * WORDS]! & mask;
      if (((next - home) & mask) < ((next - slot) & mask)) continue;
      slots.copyWithin(slot * WORDS, next * WORDS, next * WORDS + WORDS);
      slot = next;
    }
    slots[slot * WORDS + 3] = 0;
  }

  #grow(): void {
    const [a, b, c] = [hash0, hash1, hash2];
    const old = this.#slots;
    this.#capacity *= 2;
    this.#slots = new Uint32Array(this.#capacity * WORDS);
    for (let at = 0; at < old.length; at += WORDS) {
      if (old[at + 3] === 0) continue;
      hash0 = old[at]!;
      hash1 = old[at + 1]!;
      hash2 = old[at + 2]!;
      const to = this.#find();
      for (let i = 0; i < WORDS; i++) this.#slots[to + i] = old[at + i]!;
    }
    [hash0, hash1, hash2] = [a, b, c];
  }
}

/** The hash of the key in question. */
let hash0 = 0;
let hash1 = 0;
let hash2 = 0;

/** Three hashes with multipliers of their own, each mixed after every character. */
function hash(key: string): void {
  let a = 0x9e3779b9 ^ key.length;
  let b = 0x7f4a7c15 ^ key.length;
  let c = 0x165667b1 ^ key.length;
  for (let i = 0; i < key.length; i++) {
    const code = key.charCodeAt(i) + 1;
    a = Math.imul(a ^ code, 0x85ebca6b);
    a ^= a >>> 15;
    b = Math.imul(b + code, 0xc2b2ae35);
    b ^= b >>> 13;
    c = Math.imul((c << 5) ^ (c >>> 27) ^ code, 0x27d4eb2f);
    c ^= c >>> 16;
  }
  hash0 = a >>> 0;
  hash1 = b >>> 0;
  hash2 = c >>> 0;
}
