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
    const { slots, mask } = this.#segmentOf(hash);
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const id = slots[2 * slot]!;
      if (id === 0 || (slots[2 * slot + 1] === hash && this.#records.equals(id, source, start, end))) return id;
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
    if (segment.size * 8 < segment.capacity) this.#reduce(segment, hash);
  }

  /** The record of `id` was moved to `to`. */
  replace(id: number, to: number): void {
    const hash = this.#hashOf(to);
    const segment = this.#segmentOf(hash);
    segment.slots[2 * segment.slotOf(hash, id)] = to;
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
    const { depth, capacity, slots } = segment;
    if (depth === this.#depthMax) {
      this.#put(segment.resized(capacity * 2), hash);
      return;
    }
    if (depth === this.#depth) this.#doubleDirectory();
    const halves = [new Segment(depth + 1, capacity), new Segment(depth + 1, capacity)] as const;
    for (let at = 0; at < slots.length; at += 2) {
      if (slots[at] !== 0) halves[(slots[at + 1]! >>> (31 - depth)) & 1]!.insert(slots[at + 1]!, slots[at]!);
    }
    this.#put(halves[0], hash & ~(1 << (31 - depth)));
    this.#put(halves[1], hash | (1 << (31 - depth)));
  }

  /** Joins a segment with the one that it was divided from, when both are nearly empty, or takes room from it. */
  #reduce(segment: Segment, hash: number): void {
    const { depth, capacity } = segment;
    if (capacity > SEGMENT_SLOTS) {
      this.#put(segment.resized(capacity >> 1), hash);
      return;
    }
    if (depth === 0) return;
    const other = this.#segmentOf(hash ^ (1 << (32 - depth)));
    if (other.depth !== depth || (segment.size + other.size) * 2 > SEGMENT_SLOTS || other.capacity > SEGMENT_SLOTS) {
      return;
    }
    const joined = segment.resized(capacity);
    joined.depth = depth - 1;
    joined.insertAll(other);
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
  /** Each slot: an id, 0 when it is free, and the hash of its key. */
  readonly slots: Int32Array;
  /** Number of the last slot; all bits below its uppermost one are set. */
  readonly mask: number;

  constructor(depth: number, capacity: number) {
    this.depth = depth;
    this.slots = new Int32Array(2 * capacity);
    this.mask = capacity - 1;
  }

  get capacity(): number {
    return this.mask + 1;
  }

  get isFull(): boolean {
    return this.size * 16 >= this.capacity * 13;
  }

  insert(hash: number, id: number): void {
    const { slots, mask } = this;
    let slot = hash & mask;
    while (slots[2 * slot] !== 0) slot = (slot + 1) & mask;
    slots[2 * slot] = id;
    slots[2 * slot + 1] = hash;
    this.size++;
  }

  insertAll({ slots }: Segment): void {
    for (let at = 0; at < slots.length; at += 2) if (slots[at] !== 0) this.insert(slots[at + 1]!, slots[at]!);
  }

  /** The slot of an id that is here. */
  slotOf(hash: number, id: number): number {
    const { slots, mask } = this;
    let slot = hash & mask;
    while (slots[2 * slot] !== id) {
      invariant(slots[2 * slot] !== 0, "a key of the index is in its table", id);
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  remove(at: number): void {
    const { slots, mask } = this;
    let slot = at;
    // Closes the gap: following ids move up, unless that would put one before its own first slot.
    for (let next = (slot + 1) & mask; slots[2 * next] !== 0; next = (next + 1) & mask) {
      const home = slots[2 * next + 1]! & mask;
      if (((next - home) & mask) >= ((next - slot) & mask)) {
        slots[2 * slot] = slots[2 * next]!;
        slots[2 * slot + 1] = slots[2 * next + 1]!;
        slot = next;
      }
    }
    slots[2 * slot] = 0;
    this.size--;
  }

  resized(capacity: number): Segment {
    const other = new Segment(this.depth, capacity);
    other.insertAll(this);
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
