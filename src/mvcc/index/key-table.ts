import { invariant } from "../../base/fatal.ts";
import type { KeyRecords } from "./key-records.ts";
import { KeyedHash } from "./keyed-hash.ts";

/**
 * Ids by key: with a million keys, several times faster than the tree. Keys are looked up by their bytes.
 *
 * Extendible hashing: the upper bits of a key's hash select one of many small segments; a full one is divided in two by
 * one more bit, so no insert moves more than a segment, whatever the number of keys. Hashes are kept beside the ids, so
 * that a division need not look at the keys. About 13 bytes per key.
 *
 * A look-up waits for memory more than for anything else. So what is looked at on the way to a slot is small and stays in
 * the processor's cache: a segment is a number, and many segments share one piece of memory.
 */
export class KeyTable {
  readonly #records: KeyRecords;
  readonly #hash: KeyedHash;
  readonly #depthMax: number;
  readonly #segments = new Segments();
  /** Segments by the upper `#depth` bits of the hash; one with a smaller depth is there several times. */
  #directory = [this.#segments.add(0, SEGMENT_SLOTS)];
  #depth = 0;
  #size = 0;
  /** Hash of the key that was looked up last. */
  #lastHash = 0;

  /**
   * `key` (64 bits) is the hash's secret. A segment of depth `depthMax` is not divided but enlarged.
   */
  constructor(records: KeyRecords, key: bigint, depthMax = DEPTH_MAX) {
    this.#records = records;
    this.#hash = new KeyedHash(key);
    this.#depthMax = depthMax;
  }

  get size(): number {
    return this.#size;
  }

  /** The id of the key `source[start .. end)`; 0 when it is not in the table. */
  find(source: Uint8Array, start: number, end: number): number {
    const hash = this.#hash.of(source, start, end);
    this.#lastHash = hash;
    const segment = this.#segmentOf(hash);
    const slots = this.#segments.slotsOf(segment);
    const base = this.#segments.offsetOf(segment);
    const mask = this.#segments.maskOf(segment);
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const id = slots[base + 2 * slot]!;
      if (id === 0) return 0;
      if (slots[base + 2 * slot + 1] === hash && this.#records.equals(id, source, start, end)) return id;
    }
  }

  /** Adds the id of the key that `find` has just looked for in vain: hashing it again would cost as much as finding it. */
  insert(id: number): void {
    const hash = this.#lastHash;
    let segment = this.#segmentOf(hash);
    while (this.#segments.isFull(segment)) {
      this.#enlarge(segment, hash);
      segment = this.#segmentOf(hash);
    }
    this.#segments.insert(segment, hash, id);
    this.#size++;
  }

  remove(id: number): void {
    const hash = this.#hashOf(id);
    const segment = this.#segmentOf(hash);
    this.#segments.remove(segment, hash, id);
    this.#size--;
    if (this.#segments.sizeOf(segment) * 8 < this.#segments.capacityOf(segment)) this.#reduce(segment, hash);
  }

  /** The record of `id` was moved to `to`. */
  replace(id: number, to: number): void {
    const hash = this.#hashOf(to);
    this.#segments.replace(this.#segmentOf(hash), hash, id, to);
  }

  #hashOf(id: number): number {
    const records = this.#records;
    records.locate(id);
    return this.#hash.of(records.bytes, records.keyStart, records.keyEnd);
  }

  #segmentOf(hash: number): number {
    return this.#directory[this.#depth === 0 ? 0 : hash >>> (32 - this.#depth)]!;
  }

  /** Divides a segment by the next bit of the hash, or makes room in it. */
  #enlarge(segment: number, hash: number): void {
    const depth = this.#segments.depthOf(segment);
    if (depth === this.#depthMax) {
      this.#segments.resize(segment, this.#segments.capacityOf(segment) * 2);
      return;
    }
    if (depth === this.#depth) this.#doubleDirectory();
    this.#put(this.#segments.divide(segment), hash | (1 << (31 - depth)));
  }

  /** Joins a segment with the one that it was divided from, when both are nearly empty, or takes room from it. */
  #reduce(segment: number, hash: number): void {
    const segments = this.#segments;
    const depth = segments.depthOf(segment);
    const capacity = segments.capacityOf(segment);
    if (capacity > SEGMENT_SLOTS) {
      segments.resize(segment, capacity >> 1);
      return;
    }
    if (depth === 0) return;
    const other = this.#segmentOf(hash ^ (1 << (32 - depth)));
    const size = segments.sizeOf(segment) + segments.sizeOf(other);
    if (segments.depthOf(other) !== depth || size * 2 > SEGMENT_SLOTS || segments.capacityOf(other) > SEGMENT_SLOTS) {
      return;
    }
    segments.join(segment, other);
    this.#put(segment, hash);
    while (this.#depth > 0 && this.#directory.every((each) => segments.depthOf(each) < this.#depth)) {
      this.#halveDirectory();
    }
  }

  /** Enters a segment in all places of the directory that belong to it. */
  #put(segment: number, hash: number): void {
    const depth = this.#segments.depthOf(segment);
    const places = 1 << (this.#depth - depth);
    const first = depth === 0 ? 0 : (hash >>> (32 - depth)) * places;
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

/**
 * Hash tables with open addressing, each named by a number: an id's slot is the first free one from the lower bits of
 * its hash on. A slot is two words: an id, 0 when it is free, and the hash of its key.
 *
 * Those of the usual capacity lie side by side in blocks of memory, and a freed one is used again. A larger one has a
 * block of its own.
 */
class Segments {
  readonly #blocks: Int32Array[] = [];
  // Of each segment, by number.
  readonly #blockNumbers: number[] = [];
  readonly #offsets: number[] = [];
  /** Number of the last slot; all bits below its uppermost one are set. */
  readonly #masks: number[] = [];
  readonly #depths: number[] = [];
  readonly #sizes: number[] = [];
  readonly #freeSegments: number[] = [];
  readonly #freeBlocks: number[] = [];
  /** Places for segments of the usual capacity that are not used: pairs of block and offset. */
  readonly #places: number[] = [];

  add(depth: number, capacity: number): number {
    const segment = this.#freeSegments.pop() ?? this.#masks.length;
    this.#depths[segment] = depth;
    this.#sizes[segment] = 0;
    this.#place(segment, capacity);
    return segment;
  }

  slotsOf(segment: number): Int32Array {
    return this.#blocks[this.#blockNumbers[segment]!]!;
  }

  /** Where its slots begin. */
  offsetOf(segment: number): number {
    return this.#offsets[segment]!;
  }

  maskOf(segment: number): number {
    return this.#masks[segment]!;
  }

  depthOf(segment: number): number {
    return this.#depths[segment]!;
  }

  sizeOf(segment: number): number {
    return this.#sizes[segment]!;
  }

  capacityOf(segment: number): number {
    return this.#masks[segment]! + 1;
  }

  isFull(segment: number): boolean {
    return this.#sizes[segment]! * 16 >= this.capacityOf(segment) * 13;
  }

  insert(segment: number, hash: number, id: number): void {
    const slots = this.slotsOf(segment);
    const base = this.#offsets[segment]!;
    const mask = this.#masks[segment]!;
    let slot = hash & mask;
    while (slots[base + 2 * slot] !== 0) slot = (slot + 1) & mask;
    slots[base + 2 * slot] = id;
    slots[base + 2 * slot + 1] = hash;
    this.#sizes[segment]!++;
  }

  replace(segment: number, hash: number, id: number, to: number): void {
    this.slotsOf(segment)[this.#offsets[segment]! + 2 * this.#slotOf(segment, hash, id)] = to;
  }

  remove(segment: number, hash: number, id: number): void {
    const slots = this.slotsOf(segment);
    const base = this.#offsets[segment]!;
    const mask = this.#masks[segment]!;
    let slot = this.#slotOf(segment, hash, id);
    // Closes the gap: following ids move up, unless that would put one before its own first slot.
    for (let next = (slot + 1) & mask; slots[base + 2 * next] !== 0; next = (next + 1) & mask) {
      const home = slots[base + 2 * next + 1]! & mask;
      if (((next - home) & mask) >= ((next - slot) & mask)) {
        slots[base + 2 * slot] = slots[base + 2 * next]!;
        slots[base + 2 * slot + 1] = slots[base + 2 * next + 1]!;
        slot = next;
      }
    }
    slots[base + 2 * slot] = 0;
    this.#sizes[segment]!--;
  }

  /** Moves the ids whose hash has the bit after `depth` bits to a new segment, and returns that. */
  divide(segment: number): number {
    const depth = this.#depths[segment]!;
    const other = this.add(depth + 1, this.capacityOf(segment));
    const content = this.#takeAll(segment);
    this.#depths[segment] = depth + 1;
    for (let at = 0; at < content.length; at += 2) {
      const id = content[at]!;
      const hash = content[at + 1]!;
      if (id !== 0) this.insert(((hash >>> (31 - depth)) & 1) === 1 ? other : segment, hash, id);
    }
    return other;
  }

  /** Moves the ids of `other` to the segment that it was divided from. */
  join(segment: number, other: number): void {
    const content = this.#takeAll(other);
    this.#free(other);
    this.#depths[segment]!--;
    this.#insertAll(segment, content);
  }

  resize(segment: number, capacity: number): void {
    const content = this.#takeAll(segment);
    this.#leave(segment);
    this.#place(segment, capacity);
    this.#insertAll(segment, content);
  }

  /** The slot of an id that is in the segment. */
  #slotOf(segment: number, hash: number, id: number): number {
    const slots = this.slotsOf(segment);
    const base = this.#offsets[segment]!;
    const mask = this.#masks[segment]!;
    let slot = hash & mask;
    while (slots[base + 2 * slot] !== id) {
      invariant(slots[base + 2 * slot] !== 0, "a key of the index is in its table", id);
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  /** Empties the segment, and returns a copy of its slots. */
  #takeAll(segment: number): Int32Array {
    const base = this.#offsets[segment]!;
    const own = this.slotsOf(segment).subarray(base, base + 2 * this.capacityOf(segment));
    const content = own.slice();
    own.fill(0);
    this.#sizes[segment] = 0;
    return content;
  }

  #insertAll(segment: number, content: Int32Array): void {
    for (let at = 0; at < content.length; at += 2) {
      if (content[at] !== 0) this.insert(segment, content[at + 1]!, content[at]!);
    }
  }

  /** Gives the segment memory, all free slots. */
  #place(segment: number, capacity: number): void {
    this.#masks[segment] = capacity - 1;
    if (capacity > SEGMENT_SLOTS) {
      this.#blockNumbers[segment] = this.#addBlock(2 * capacity);
      this.#offsets[segment] = 0;
      return;
    }
    if (this.#places.length === 0) {
      const block = this.#addBlock(BLOCK_SEGMENTS * SEGMENT_WORDS);
      for (let i = BLOCK_SEGMENTS - 1; i >= 0; i--) this.#places.push(block, i * SEGMENT_WORDS);
    }
    this.#offsets[segment] = this.#places.pop()!;
    this.#blockNumbers[segment] = this.#places.pop()!;
  }

  /** Takes the memory of an empty segment. */
  #leave(segment: number): void {
    const block = this.#blockNumbers[segment]!;
    if (this.capacityOf(segment) === SEGMENT_SLOTS) {
      this.#places.push(block, this.#offsets[segment]!);
      return;
    }
    this.#blocks[block] = NO_SLOTS;
    this.#freeBlocks.push(block);
  }

  #free(segment: number): void {
    this.#leave(segment);
    this.#freeSegments.push(segment);
  }

  #addBlock(words: number): number {
    const block = this.#freeBlocks.pop() ?? this.#blocks.length;
    this.#blocks[block] = new Int32Array(words);
    return block;
  }
}

const SEGMENT_WORDS = 2 * SEGMENT_SLOTS;
/** 512 KiB, which a small store does not fill: memory that was never written costs nothing. */
const BLOCK_SEGMENTS = 64;
const NO_SLOTS = new Int32Array(0);
