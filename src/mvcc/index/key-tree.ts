import { invariant } from "../../base/fatal.ts";
import type { KeyRecords } from "./key-records.ts";
import {
  ENTRIES,
  FIRSTS,
  INNER_LENGTH_MAX,
  insertWord,
  LEAF_LENGTH_MAX,
  LIVE,
  LIVE_BIT,
  offsetOf,
  removeWord,
  TreeNodes,
} from "./tree-nodes.ts";
import { ADDRESS_MASK } from "./word-chunks.ts";

/**
 * Ids in the order of their keys: an in-memory B+tree whose nodes also count the live keys under them, so that counting
 * a range needs no walk. The keys stay in the records; a search compares only what two keys may not have in common.
 *
 * It owns the order and the counts, not the meaning of an id: the caller reports when a key becomes live or dead
 * (`setLive`). Nodes split in half, except at the right edge, where only the last entry moves, so that keys inserted
 * in order fill their nodes. Neighbours merge when they fit into one node. No node but the root is empty.
 */
export class KeyTree {
  readonly #records: KeyRecords;
  readonly #nodes = new TreeNodes();
  #root = this.#nodes.add();
  /** Inner nodes above a leaf. */
  #height = 0;

  // The path of the current search: inner nodes with the chosen children, the leaf, and the position in it.
  readonly #pathNodes: number[] = [];
  readonly #pathSlots: number[] = [];
  #leaf = 0;
  #position = 0;
  /**
   * The path is that of the id inserted, or reported as live or dead, last, and nothing else was changed since: the next
   * key often follows it.
   */
  #isAtLast = false;
  // Bytes that the key searched for has in common with the nearest keys below and above that it was compared with: all
  // keys between them begin with the smaller number of bytes, too.
  #lowCommon = 0;
  #highCommon = 0;

  constructor(records: KeyRecords) {
    this.#records = records;
  }

  get liveCount(): number {
    return this.#nodes.wordsOf(this.#root)[offsetOf(this.#root) + LIVE]!;
  }

  /** Adds an id whose key is not in the tree. */
  insert(id: number, isLive: boolean): void {
    const records = this.#records;
    records.locate(id);
    const { bytes, keyStart, keyEnd } = records;
    if (!this.#isAtLast || !this.#stepForward(bytes, keyStart, keyEnd)) this.#descend(bytes, keyStart, keyEnd);
    const leaf = this.#leaf;
    const words = this.#nodes.wordsOf(leaf);
    const at = offsetOf(leaf);
    const length = words[at]!;
    insertWord(words, at + ENTRIES + this.#position, at + ENTRIES + length, isLive ? id | LIVE_BIT : id);
    words[at] = length + 1;
    if (isLive) this.#addLive(1);
    if (length === LEAF_LENGTH_MAX) this.#split(this.#position === length && this.#nextFirst() === 0);
    else this.#isAtLast = true;
  }

  /** Moves one position on if the key belongs there, between the id of the path and its successor. */
  #stepForward(bytes: Uint8Array, start: number, end: number): boolean {
    const records = this.#records;
    const words = this.#nodes.wordsOf(this.#leaf);
    const at = offsetOf(this.#leaf);
    const last = at + ENTRIES + this.#position;
    if (records.compare(words[last]! & ADDRESS_MASK, bytes, start, end, 0) > 0) return false;
    const next = this.#position + 1 < words[at]! ? words[last + 1]! & ADDRESS_MASK : this.#nextFirst();
    if (next !== 0 && records.compare(next, bytes, start, end, 0) < 0) return false;
    this.#position++;
    return true;
  }

  /** The smallest key right of the path's leaf; 0 when it is the last leaf. */
  #nextFirst(): number {
    for (let i = this.#height - 1; i >= 0; i--) {
      const node = this.#pathNodes[i]!;
      const words = this.#nodes.wordsOf(node);
      const next = this.#pathSlots[i]! + 1;
      if (next < words[offsetOf(node)]!) return words[offsetOf(node) + FIRSTS + next]!;
    }
    return 0;
  }

  /** Reports that a key became live or dead. */
  setLive(id: number, isLive: boolean): void {
    if (!this.#isNext(id)) this.#descendTo(id);
    const words = this.#nodes.wordsOf(this.#leaf);
    const entry = offsetOf(this.#leaf) + ENTRIES + this.#position;
    invariant(words[entry] === (isLive ? id : (id | LIVE_BIT) >>> 0), "a key of the index is in its tree", id);
    words[entry]! ^= LIVE_BIT;
    this.#addLive(isLive ? 1 : -1);
    this.#isAtLast = true;
  }

  /** Moves one position on if that is the id's, as it is for the next key of a range that is deleted. */
  #isNext(id: number): boolean {
    if (!this.#isAtLast) return false;
    const words = this.#nodes.wordsOf(this.#leaf);
    const at = offsetOf(this.#leaf);
    const next = this.#position + 1;
    if (next >= words[at]! || (words[at + ENTRIES + next]! & ADDRESS_MASK) !== id) return false;
    this.#position = next;
    return true;
  }

  /** Returns whether the id was there. */
  remove(id: number): boolean {
    this.#descendTo(id);
    const words = this.#nodes.wordsOf(this.#leaf);
    const at = offsetOf(this.#leaf);
    const length = words[at]!;
    const entry = at + ENTRIES + this.#position;
    if (this.#position === length || (words[entry]! & ADDRESS_MASK) !== id) return false;
    if (words[entry] !== id) this.#addLive(-1);
    removeWord(words, entry, at + ENTRIES + length);
    words[at] = length - 1;
    if (this.#position === 0 && length > 1) this.#setFirst(this.#height, words[at + ENTRIES]! & ADDRESS_MASK);
    this.#shrink();
    return true;
  }

  /** The record of `id` was copied to `to`; both are still there. */
  replace(id: number, to: number): void {
    this.#descendTo(to);
    const words = this.#nodes.wordsOf(this.#leaf);
    const entry = offsetOf(this.#leaf) + ENTRIES + this.#position;
    invariant((words[entry]! & ADDRESS_MASK) === id, "a key of the index is in its tree", id);
    words[entry] = to | (words[entry]! & LIVE_BIT);
    if (this.#position === 0) this.#setFirst(this.#height, to);
  }

  /**
   * Visits ascending from `start`, below `end` (null: to the last key), until the visitor returns false; then returns
   * false too. The visitor may change revisions, but must not insert or remove any id.
   */
  visit(start: Uint8Array, end: Uint8Array | null, visitor: (id: number) => boolean): boolean {
    return this.#visit(this.#root, this.#height, start, end, visitor, false) !== STOPPED;
  }

  /** Visits live keys only, and skips subtrees without any. */
  visitLive(start: Uint8Array, end: Uint8Array | null, visitor: (id: number) => boolean): boolean {
    return this.#visit(this.#root, this.#height, start, end, visitor, true) !== STOPPED;
  }

  /** The same range, descending. */
  visitDescending(start: Uint8Array, end: Uint8Array | null, visitor: (id: number) => boolean): boolean {
    return this.#visitDescending(this.#root, this.#height, start, end, visitor) !== STOPPED;
  }

  /** Live keys in [start, end); end null means to the last key. */
  countLive(start: Uint8Array, end: Uint8Array | null): number {
    const above = end === null ? this.liveCount : this.#liveBelow(end);
    return Math.max(0, above - this.#liveBelow(start));
  }

  #liveBelow(key: Uint8Array): number {
    let count = 0;
    this.#lowCommon = this.#highCommon = 0;
    let node = this.#root;
    for (let level = this.#height; level > 0; level--) {
      const words = this.#nodes.wordsOf(node);
      const at = offsetOf(node);
      const length = words[at]!;
      const slot = this.#childFor(words, at, key, 0, key.length);
      // Counts from the nearer end.
      if (slot < length >> 1) {
        for (let i = 0; i < slot; i++) count += this.#liveOf(words[at + ENTRIES + i]!);
      } else {
        count += words[at + LIVE]!;
        for (let i = slot; i < length; i++) count -= this.#liveOf(words[at + ENTRIES + i]!);
      }
      node = words[at + ENTRIES + slot]!;
    }
    const words = this.#nodes.wordsOf(node);
    const first = offsetOf(node) + ENTRIES;
    const end = first + this.#lowerBound(words, first - ENTRIES, key, 0, key.length);
    for (let i = first; i < end; i++) count += words[i]! >>> 31;
    return count;
  }

  #liveOf(node: number): number {
    return this.#nodes.wordsOf(node)[offsetOf(node) + LIVE]!;
  }

  // ---- searching

  #descendTo(id: number): void {
    const records = this.#records;
    records.locate(id);
    this.#descend(records.bytes, records.keyStart, records.keyEnd);
  }

  /** Records the path to the key `bytes[start .. end)`, or to where it would be. */
  #descend(bytes: Uint8Array, start: number, end: number): void {
    this.#isAtLast = false;
    this.#lowCommon = this.#highCommon = 0;
    let node = this.#root;
    for (let depth = 0; depth < this.#height; depth++) {
      const words = this.#nodes.wordsOf(node);
      const at = offsetOf(node);
      const slot = this.#childFor(words, at, bytes, start, end);
      this.#pathNodes[depth] = node;
      this.#pathSlots[depth] = slot;
      node = words[at + ENTRIES + slot]!;
    }
    this.#leaf = node;
    this.#position = this.#lowerBound(this.#nodes.wordsOf(node), offsetOf(node), bytes, start, end);
  }

  /** Slot of the last child whose smallest key is not above the key; 0 when there is none. */
  #childFor(words: Uint32Array, at: number, key: Uint8Array, start: number, end: number): number {
    const records = this.#records;
    let low = 0;
    let high = words[at]!;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      const common = Math.min(this.#lowCommon, this.#highCommon);
      if (records.compare(words[at + FIRSTS + middle]!, key, start, end, common) <= 0) {
        low = middle;
        this.#lowCommon = records.common;
      } else {
        high = middle;
        this.#highCommon = records.common;
      }
    }
    return low;
  }

  /** First position of a leaf whose key is not below the key. */
  #lowerBound(words: Uint32Array, at: number, key: Uint8Array, start: number, end: number): number {
    const records = this.#records;
    let low = 0;
    let high = words[at]!;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const common = Math.min(this.#lowCommon, this.#highCommon);
      if (records.compare(words[at + ENTRIES + middle]! & ADDRESS_MASK, key, start, end, common) < 0) {
        low = middle + 1;
        this.#lowCommon = records.common;
      } else {
        high = middle;
        this.#highCommon = records.common;
      }
    }
    return low;
  }

  // ---- changing nodes, along the recorded path

  #addLive(delta: number): void {
    for (let i = 0; i < this.#height; i++) {
      const node = this.#pathNodes[i]!;
      this.#nodes.wordsOf(node)[offsetOf(node) + LIVE]! += delta;
    }
    this.#nodes.wordsOf(this.#leaf)[offsetOf(this.#leaf) + LIVE]! += delta;
  }

  /** The smallest key under the path's node at `depth` is now that of `id`. */
  #setFirst(depth: number, id: number): void {
    for (let i = depth - 1; i >= 0; i--) {
      const slot = this.#pathSlots[i]!;
      if (slot === 0) continue;
      const node = this.#pathNodes[i]!;
      this.#nodes.wordsOf(node)[offsetOf(node) + FIRSTS + slot] = id;
      return;
    }
  }

  #split(atEnd: boolean): void {
    this.#isAtLast = false;
    const leaf = this.#leaf;
    const leafLength = LEAF_LENGTH_MAX + 1;
    let right = this.#splitNode(leaf, atEnd ? leafLength - 1 : leafLength >> 1, true);
    let first = this.#nodes.wordsOf(right)[offsetOf(right) + ENTRIES]! & ADDRESS_MASK;
    for (let i = this.#height - 1; i >= 0; i--) {
      const node = this.#pathNodes[i]!;
      const words = this.#nodes.wordsOf(node);
      const at = offsetOf(node);
      const length = words[at]!;
      const slot = this.#pathSlots[i]! + 1;
      insertWord(words, at + ENTRIES + slot, at + ENTRIES + length, right);
      insertWord(words, at + FIRSTS + slot, at + FIRSTS + length, first);
      words[at] = length + 1;
      if (length < INNER_LENGTH_MAX) return;
      const middle = atEnd ? length : (length + 1) >> 1;
      first = words[at + FIRSTS + middle]!;
      right = this.#splitNode(node, middle, false);
    }
    const root = this.#nodes.add();
    const words = this.#nodes.wordsOf(root);
    const at = offsetOf(root);
    words[at] = 2;
    words[at + LIVE] = this.#liveOf(this.#root) + this.#liveOf(right);
    words[at + ENTRIES] = this.#root;
    words[at + ENTRIES + 1] = right;
    words[at + FIRSTS + 1] = first;
    this.#root = root;
    this.#height++;
  }

  /** Moves the entries from `from` on to a new node. */
  #splitNode(node: number, from: number, isLeaf: boolean): number {
    const right = this.#nodes.add();
    const source = this.#nodes.wordsOf(node);
    const target = this.#nodes.wordsOf(right);
    const sourceAt = offsetOf(node);
    const targetAt = offsetOf(right);
    const length = source[sourceAt]! - from;
    let live = 0;
    for (let i = 0; i < length; i++) {
      const entry = source[sourceAt + ENTRIES + from + i]!;
      target[targetAt + ENTRIES + i] = entry;
      if (isLeaf) live += entry >>> 31;
      else {
        live += this.#liveOf(entry);
        target[targetAt + FIRSTS + i] = source[sourceAt + FIRSTS + from + i]!;
      }
    }
    target[targetAt] = length;
    target[targetAt + LIVE] = live;
    source[sourceAt] = from;
    source[sourceAt + LIVE]! -= live;
    return right;
  }

  /** Removes the leaf when it is empty, or merges it with a neighbour when both fit into one node; so with its parents. */
  #shrink(): void {
    let lengthMax = LEAF_LENGTH_MAX;
    for (let i = this.#height - 1; i >= 0; i--) {
      const parent = this.#pathNodes[i]!;
      const words = this.#nodes.wordsOf(parent);
      const at = offsetOf(parent);
      const slot = this.#pathSlots[i]!;
      const childLength = this.#lengthOf(words[at + ENTRIES + slot]!);
      if (childLength === 0) {
        this.#removeChild(parent, slot);
        if (slot === 0 && words[at]! > 0) this.#setFirst(i, words[at + FIRSTS]!);
      } else if (childLength <= lengthMax >> 2) {
        const left = slot > 0 ? slot - 1 : 0;
        if (left + 1 === words[at]) break;
        const a = words[at + ENTRIES + left]!;
        const b = words[at + ENTRIES + left + 1]!;
        if (this.#lengthOf(a) + this.#lengthOf(b) > (lengthMax * 3) >> 2) break;
        this.#mergeInto(a, b, words[at + FIRSTS + left + 1]!, lengthMax === LEAF_LENGTH_MAX);
        this.#removeChild(parent, left + 1);
      } else break;
      lengthMax = INNER_LENGTH_MAX;
    }
    while (this.#height > 0 && this.#lengthOf(this.#root) <= 1) {
      const old = this.#root;
      if (this.#lengthOf(old) === 0) {
        this.#root = this.#nodes.add();
        this.#height = 0;
      } else {
        this.#root = this.#nodes.wordsOf(old)[offsetOf(old) + ENTRIES]!;
        this.#height--;
      }
      this.#nodes.free(old);
    }
  }

  #lengthOf(node: number): number {
    return this.#nodes.wordsOf(node)[offsetOf(node)]!;
  }

  #removeChild(parent: number, slot: number): void {
    const words = this.#nodes.wordsOf(parent);
    const at = offsetOf(parent);
    const length = words[at]!;
    this.#nodes.free(words[at + ENTRIES + slot]!);
    removeWord(words, at + ENTRIES + slot, at + ENTRIES + length);
    removeWord(words, at + FIRSTS + slot, at + FIRSTS + length);
    words[at] = length - 1;
  }

  /** Appends the entries of `b`, whose smallest key is that of `first`, to those of its left neighbour `a`. */
  #mergeInto(a: number, b: number, first: number, isLeaf: boolean): void {
    const target = this.#nodes.wordsOf(a);
    const source = this.#nodes.wordsOf(b);
    const targetAt = offsetOf(a);
    const sourceAt = offsetOf(b);
    const length = source[sourceAt]!;
    const targetLength = target[targetAt]!;
    for (let i = 0; i < length; i++) {
      target[targetAt + ENTRIES + targetLength + i] = source[sourceAt + ENTRIES + i]!;
      if (!isLeaf) target[targetAt + FIRSTS + targetLength + i] = i === 0 ? first : source[sourceAt + FIRSTS + i]!;
    }
    target[targetAt] = targetLength + length;
    target[targetAt + LIVE]! += source[sourceAt + LIVE]!;
  }

  // ---- visiting

  #visit(
    node: number,
    level: number,
    start: Uint8Array | null,
    end: Uint8Array | null,
    visitor: (id: number) => boolean,
    liveOnly: boolean,
  ): number {
    const words = this.#nodes.wordsOf(node);
    const at = offsetOf(node);
    if (liveOnly && words[at + LIVE] === 0) return GO_ON;
    const length = words[at]!;
    if (level > 0) {
      const first = start === null ? 0 : this.#slotOf(words, at, start);
      for (let i = first; i < length; i++) {
        // A child entirely below the end needs no key comparisons.
        const within = end === null || (i + 1 < length && this.#compare(words[at + FIRSTS + i + 1]!, end) <= 0);
        const child = words[at + ENTRIES + i]!;
        const how = this.#visit(child, level - 1, i === first ? start : null, within ? null : end, visitor, liveOnly);
        if (how !== GO_ON) return how;
        if (!within) return RANGE_ENDS;
      }
      return GO_ON;
    }
    const stop = end === null ? length : this.#positionOf(words, at, end);
    for (let i = start === null ? 0 : this.#positionOf(words, at, start); i < stop; i++) {
      const entry = words[at + ENTRIES + i]!;
      if ((!liveOnly || entry >>> 31 === 1) && !visitor(entry & ADDRESS_MASK)) return STOPPED;
    }
    return GO_ON;
  }

  #visitDescending(
    node: number,
    level: number,
    start: Uint8Array | null,
    end: Uint8Array | null,
    visitor: (id: number) => boolean,
  ): number {
    const words = this.#nodes.wordsOf(node);
    const at = offsetOf(node);
    if (level > 0) {
      const last = end === null ? words[at]! - 1 : this.#slotOf(words, at, end);
      for (let i = last; i >= 0; i--) {
        // A child entirely above the start needs no key comparisons.
        const within = start === null || (i > 0 && this.#compare(words[at + FIRSTS + i]!, start) >= 0);
        const child = words[at + ENTRIES + i]!;
        const how = this.#visitDescending(child, level - 1, within ? null : start, i === last ? end : null, visitor);
        if (how !== GO_ON) return how;
        if (!within) return RANGE_ENDS;
      }
      return GO_ON;
    }
    const first = start === null ? 0 : this.#positionOf(words, at, start);
    for (let i = (end === null ? words[at]! : this.#positionOf(words, at, end)) - 1; i >= first; i--) {
      if (!visitor(words[at + ENTRIES + i]! & ADDRESS_MASK)) return STOPPED;
    }
    return GO_ON;
  }

  #compare(id: number, key: Uint8Array): number {
    return this.#records.compare(id, key, 0, key.length, 0);
  }

  #slotOf(words: Uint32Array, at: number, key: Uint8Array): number {
    this.#lowCommon = this.#highCommon = 0;
    return this.#childFor(words, at, key, 0, key.length);
  }

  #positionOf(words: Uint32Array, at: number, key: Uint8Array): number {
    this.#lowCommon = this.#highCommon = 0;
    return this.#lowerBound(words, at, key, 0, key.length);
  }
}

/** Result of visiting a node: continue with the next, the range ends in this one, or the visitor stopped. */
const GO_ON = 0;
const RANGE_ENDS = 1;
const STOPPED = 2;
