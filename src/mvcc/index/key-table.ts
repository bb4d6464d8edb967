import { invariant } from "../../base/fatal.ts";
import type { KeyRecords } from "./key-records.ts";

/**
 * Ids by key: with a million keys, three to ten times faster than the tree. Keys are looked up by their bytes.
 *
 * Extendible hashing: the upper bits of a key's hash select one of many small segments; a full one is divided in two by
 * one more bit, so no insert moves more than a segment, whatever the number of keys. Hashes are kept beside the ids, so
 * that a division need not look at the keys. About 13 bytes per key.
 */
export class KeyTable {
  readonly #records: KeyRecords;
  readonly #seed: number;
  readonly #depthMax: number;
  /** Segments by the upper `#depth` bits of the hash; one with a smaller depth is there several times. */
  #directory: Segment[] = [new Segment(0, SEGMENT_SLOTS)];
  #depth = 0;
  #size = 0;

  /**
   * `seed` (32 bits) prevents clients from choosing keys that collide. A segment of depth `depthMax` is not divided but
   * enlarged.
   */
  constructor(records: KeyRecords, seed: number, depthMax = DEPTH_MAX) {
    this.#records = records;
    this.#seed = seed | 0;
    this.#depthMax = depthMax;
  }

  get size(): number {
    return this.#size;
  }

  /** The id of the key `source[start .. end)`; 0 when it is not in the table. */
  find(source: Uint8Array, start: number, end: number): number {
    const hash = hashBytes(source, start, end, this.#seed);
    const { ids, hashes } = this.#segmentOf(hash);
    const mask = ids.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const id = ids[slot]!;
      if (id === 0 || (hashes[slot] === hash && this.#records.equals(id, source, start, end))) return id;
    }
  }

  /** Adds an id whose key is not in the table. */
  insert(id: number): void {
    const hash = this.#hashOf(id);
    let segment = this.#segmentOf(hash);
    while (segment.isFull) {
      this.#enlarge(segment, hash);
      segment = this.#segmentOf(hash);
    }
    segment.insert(hash, id);
    this.#size++;
  }

  remove(id: number): void {
    const hash = this.#hashOf(id);
    const segment = this.#segmentOf(hash);
    segment.remove(segment.slotOf(hash, id));
    this.#size--;
    if (segment.size * 8 < segment.ids.length) this.#reduce(segment, hash);
  }

  /** The record of `id` was moved to `to`. */
  replace(id: number, to: number): void {
    const hash = this.#hashOf(to);
    const segment = this.#segmentOf(hash);
    segment.ids[segment.slotOf(hash, id)] = to;
  }

  #hashOf(id: number): number {
    const records = this.#records;
    records.locate(id);
    return hashBytes(records.bytes, records.keyStart, records.keyEnd, this.#seed);
  }

  #segmentOf(hash: number): Segment {
    return this.#directory[this.#depth === 0 ? 0 : hash >>> (32 - this.#depth)]!;
  }

  /** Divides a segment by the next bit of the hash, or makes room in it. */
  #enlarge(segment: Segment, hash: number): void {
    const { depth, ids, hashes } = segment;
    if (depth === this.#depthMax) {
      this.#put(segment.resized(ids.length * 2), hash);
      return;
    }
    if (depth === this.#depth) this.#doubleDirectory();
    const halves = [new Segment(depth + 1, ids.length), new Segment(depth + 1, ids.length)] as const;
    for (let slot = 0; slot < ids.length; slot++) {
      if (ids[slot] !== 0) halves[(hashes[slot]! >>> (31 - depth)) & 1]!.insert(hashes[slot]!, ids[slot]!);
    }
    this.#put(halves[0], hash & ~(1 << (31 - depth)));
    this.#put(halves[1], hash | (1 << (31 - depth)));
  }

  /** Joins a segment with the one that it was divided from, when both are nearly empty, or takes room from it. */
  #reduce(segment: Segment, hash: number): void {
    const { depth, ids } = segment;
    if (ids.length > SEGMENT_SLOTS) {
      this.#put(segment.resized(ids.length >> 1), hash);
      return;
    }
    if (depth === 0) return;
    const other = this.#segmentOf(hash ^ (1 << (32 - depth)));
    if (other.depth !== depth || (segment.size + other.size) * 2 > SEGMENT_SLOTS || other.ids.length > SEGMENT_SLOTS) {
      return;
    }
    const joined = segment.resized(ids.length);
    joined.depth = depth - 1;
    for (let slot = 0; slot < other.ids.length; slot++) {
      if (other.ids[slot] !== 0) joined.insert(other.hashes[slot]!, other.ids[slot]!);
    }
    this.#put(joined, hash);
    while (this.#depth > 0 && this.#directory.every(({ depth }) => depth < this.#depth)) this.#halveDirectory();
  }

  /** Enters a segment in all places of the directory that belong to it. */
  #put(segment: Segment, hash: number): void {
    const places = 1 << (this.#depth - segment.depth);
    const first = segment.depth === 0 ? 0 : (hash >>> (32 - segment.depth)) * places;
    for (let i = 0; i < places; i++) this.#directory[first + i] = segment;
  }

  #doubleDirectory(): void {
    this.#directory = this.#directory.flatMap((segment) => [segment, segment]);
    this.#depth++;
  }

  #halveDirectory(): void {
    this.#directory = this.#directory.filter((_, i) => i % 2 === 0);
    this.#depth--;
  }
}

const SEGMENT_SLOTS = 1024;
/** Beyond it the directory would be large without need: it is for 500 million keys. */
const DEPTH_MAX = 20;

/** A hash table with open addressing: an id's slot is the first free one from the lower bits of its hash on. */
class Segment {
  depth: number;
  size = 0;
  readonly ids: Uint32Array;
  readonly hashes: Int32Array;

  constructor(depth: number, slots: number) {
    const memory = new ArrayBuffer(slots * 8);
    this.depth = depth;
    this.ids = new Uint32Array(memory, 0, slots);
    this.hashes = new Int32Array(memory, slots * 4, slots);
  }

  get isFull(): boolean {
    return this.size * 16 >= this.ids.length * 13;
  }

  insert(hash: number, id: number): void {
    const mask = this.ids.length - 1;
    let slot = hash & mask;
    while (this.ids[slot] !== 0) slot = (slot + 1) & mask;
    this.ids[slot] = id;
    this.hashes[slot] = hash;
    this.size++;
  }

  /** The slot of an id that is here. */
  slotOf(hash: number, id: number): number {
    const mask = this.ids.length - 1;
    let slot = hash & mask;
    while (this.ids[slot] !== id) {
      invariant(this.ids[slot] !== 0, "a key of the index is in its table", id);
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  remove(at: number): void {
    const { ids, hashes } = this;
    const mask = ids.length - 1;
    let slot = at;
    // Closes the gap: following ids move up, unless that would put one before its own first slot.
    for (let next = (slot + 1) & mask; ids[next] !== 0; next = (next + 1) & mask) {
      const home = hashes[next]! & mask;
      if (((next - home) & mask) >= ((next - slot) & mask)) {
        ids[slot] = ids[next]!;
        hashes[slot] = hashes[next]!;
        slot = next;
      }
    }
    ids[slot] = 0;
    this.size--;
  }

  resized(slots: number): Segment {
    const other = new Segment(this.depth, slots);
    for (let slot = 0; slot < this.ids.length; slot++) {
      if (this.ids[slot] !== 0) other.insert(this.hashes[slot]!, this.ids[slot]!);
    }
    return other;
  }
}

function hashBytes(bytes: Uint8Array, start: number, end: number, seed: number): number {
  let hash = seed ^ (end - start);
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, 0x5bd1e995);
  let h = hash ^ (hash >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}
