import type { ByteString } from "../model/types.ts";
import type { KeyEntry } from "./key-entry.ts";

/**
 * Key entries in key order: an in-memory B+tree whose nodes also count the live keys under them, so that counting a
 * range at the current revision needs no walk.
 *
 * It owns the order and the counts, not the meaning of an entry: the caller reports when an entry becomes live or dead
 * (`adjustLive`). Nodes split in half, except at the right edge, where only the last entry moves, so that keys inserted
 * in order fill their nodes. Neighbours merge when they fit into one node.
 */
export class KeyTree {
  #root: Node = new Leaf();

  get liveCount(): number {
    return this.#root.live;
  }

  /** Adds an entry whose key is not in the tree. */
  insert(entry: KeyEntry): void {
    const { key } = entry;
    const live = entry.live ? 1 : 0;
    const depth = this.#descend(key);
    for (let i = 0; i < depth; i++) pathNodes[i]!.live += live;
    const leaf = pathLeaf!;
    leaf.live += live;
    const at = lowerBound(leaf.entries, key);
    leaf.entries.splice(at, 0, entry);
    if (leaf.entries.length > NODE_LENGTH_MAX) this.#split(depth, at === leaf.entries.length - 1);
    releasePath(depth);
  }

  /** Reports that the entry of `key` became live (+1) or dead (-1). */
  adjustLive(key: ByteString, delta: 1 | -1): void {
    let node = this.#root;
    while (node instanceof Inner) {
      node.live += delta;
      node = node.children[upperBound(node.keys, key)]!;
    }
    node.live += delta;
  }

  /** Removes a dead entry. Returns whether it was there. */
  remove(key: ByteString): boolean {
    const depth = this.#descend(key);
    const { entries } = pathLeaf!;
    const at = lowerBound(entries, key);
    const found = at < entries.length && entries[at]!.key === key;
    if (found) {
      entries.splice(at, 1);
      this.#shrink(depth);
    }
    releasePath(depth);
    return found;
  }

  /**
   * Visits ascending from `start`, below `end` (null: to the last key), until the visitor returns false; then returns
   * false too. The visitor may change entries, but must not insert or remove any.
   */
  visit(start: ByteString, end: ByteString | null, visitor: (entry: KeyEntry) => boolean): boolean {
    return visitNode(this.#root, start, end, visitor, false) !== STOPPED;
  }

  /** Visits live entries only, and skips subtrees without any. */
  visitLive(start: ByteString, end: ByteString | null, visitor: (entry: KeyEntry) => boolean): boolean {
    return visitNode(this.#root, start, end, visitor, true) !== STOPPED;
  }

  /** The same range, descending. */
  visitDescending(start: ByteString, end: ByteString | null, visitor: (entry: KeyEntry) => boolean): boolean {
    return visitNodeDescending(this.#root, start, end, visitor) !== STOPPED;
  }

  /** Live keys in [start, end); end null means to the last key. */
  countLive(start: ByteString, end: ByteString | null): number {
    const above = end === null ? this.#root.live : this.#liveBelow(end);
    return Math.max(0, above - this.#liveBelow(start));
  }

  #liveBelow(key: ByteString): number {
    let count = 0;
    let node = this.#root;
    while (node instanceof Inner) {
      const at = upperBound(node.keys, key);
      const { children } = node;
      // Counts from the nearer end.
      if (at < children.length >> 1) {
        for (let i = 0; i < at; i++) count += children[i]!.live;
      } else {
        count += node.live;
        for (let i = at; i < children.length; i++) count -= children[i]!.live;
      }
      node = children[at]!;
    }
    const { entries } = node;
    const at = lowerBound(entries, key);
    for (let i = 0; i < at; i++) if (entries[i]!.live) count++;
    return count;
  }

  /** Records the path to the leaf of `key` in pathNodes, pathSlots and pathLeaf; returns the number of inner nodes. */
  #descend(key: ByteString): number {
    let depth = 0;
    let node = this.#root;
    while (node instanceof Inner) {
      const slot = upperBound(node.keys, key);
      pathNodes[depth] = node;
      pathSlots[depth] = slot;
      depth++;
      node = node.children[slot]!;
    }
    pathLeaf = node;
    return depth;
  }

  #split(depth: number, atEnd: boolean): void {
    const leaf = pathLeaf!;
    let rightmost = atEnd;
    for (let i = 0; i < depth && rightmost; i++) rightmost = pathSlots[i] === pathNodes[i]!.children.length - 1;
    const firstRight = splitLeaf(leaf, rightmost ? leaf.entries.length - 1 : leaf.entries.length >> 1);
    let separator = firstRight.entries[0]!.key;
    let right: Node = firstRight;
    for (let i = depth - 1; i >= 0; i--) {
      const parent = pathNodes[i]!;
      const slot = pathSlots[i]!;
      parent.keys.splice(slot, 0, separator);
      parent.children.splice(slot + 1, 0, right);
      if (parent.children.length <= NODE_LENGTH_MAX) return;
      const middle = rightmost ? parent.keys.length - 1 : parent.keys.length >> 1;
      separator = parent.keys[middle]!;
      right = splitInner(parent, middle);
    }
    this.#root = new Inner([separator], [this.#root, right]);
  }

  /** Merges the leaf, and then its parents, with a neighbour when both fit into one node. */
  #shrink(depth: number): void {
    for (let i = depth - 1; i >= 0; i--) {
      const parent = pathNodes[i]!;
      const slot = pathSlots[i]!;
      if (nodeLength(parent.children[slot]!) > NODE_LENGTH_MAX >> 2) return;
      const left = slot > 0 ? slot - 1 : slot;
      if (left + 1 < parent.children.length) {
        const a = parent.children[left]!;
        const b = parent.children[left + 1]!;
        if (nodeLength(a) + nodeLength(b) > (NODE_LENGTH_MAX * 3) >> 2) return;
        mergeInto(a, b, parent.keys[left]!);
        parent.keys.splice(left, 1);
        parent.children.splice(left + 1, 1);
      }
      if (i === 0 && parent.children.length === 1) this.#root = parent.children[0]!;
    }
  }
}

/** Maximum entries of a leaf and children of an inner node. With 1M keys, 32 to 128 perform about the same. */
const NODE_LENGTH_MAX = 64;

class Leaf {
  entries: KeyEntry[] = [];
  live = 0;
}

/** `keys[i]` is at or below every key under `children[i + 1]` and above every key under `children[i]`. */
class Inner {
  keys: ByteString[];
  children: Node[];
  live: number;

  constructor(keys: ByteString[], children: Node[]) {
    this.keys = keys;
    this.children = children;
    let live = 0;
    for (const child of children) live += child.live;
    this.live = live;
  }
}

type Node = Leaf | Inner;

// Path of the current change. Module-wide because there is one at a time: this code is not reentrant.
const pathNodes: (Inner | null)[] = [];
const pathSlots: number[] = [];
let pathLeaf: Leaf | null = null;

function releasePath(depth: number): void {
  for (let i = 0; i < depth; i++) pathNodes[i] = null;
  pathLeaf = null;
}

/** First position whose key is not below `key`. */
function lowerBound(entries: readonly KeyEntry[], key: ByteString): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (entries[middle]!.key < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** First position whose key is above `key`. */
function upperBound(keys: readonly ByteString[], key: ByteString): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (key < keys[middle]!) high = middle;
    else low = middle + 1;
  }
  return low;
}

function nodeLength(node: Node): number {
  return node instanceof Inner ? node.children.length : node.entries.length;
}

function splitLeaf(leaf: Leaf, at: number): Leaf {
  const right = new Leaf();
  right.entries = leaf.entries.splice(at);
  for (const entry of right.entries) if (entry.live) right.live++;
  leaf.live -= right.live;
  return right;
}

/** The separator at `at` moves up: it stays in neither half. */
function splitInner(node: Inner, at: number): Inner {
  const keys = node.keys.splice(at);
  keys.shift();
  const right = new Inner(keys, node.children.splice(at + 1));
  node.live -= right.live;
  return right;
}

function mergeInto(left: Node, right: Node, separator: ByteString): void {
  if (left instanceof Leaf && right instanceof Leaf) {
    for (const entry of right.entries) left.entries.push(entry);
  } else if (left instanceof Inner && right instanceof Inner) {
    left.keys.push(separator);
    for (const key of right.keys) left.keys.push(key);
    for (const child of right.children) left.children.push(child);
  }
  left.live += right.live;
}

/** Result of visiting a node: continue with the next, the range ends in this one, or the visitor stopped. */
const GO_ON = 0;
const RANGE_ENDS = 1;
const STOPPED = 2;

function visitNode(
  node: Node,
  start: ByteString | null,
  end: ByteString | null,
  visitor: (entry: KeyEntry) => boolean,
  liveOnly: boolean,
): number {
  if (liveOnly && node.live === 0) return GO_ON;
  if (node instanceof Inner) {
    const { children, keys } = node;
    const first = start === null ? 0 : upperBound(keys, start);
    for (let i = first; i < children.length; i++) {
      // A child entirely below the end needs no key comparisons.
      const within = end === null || (i < keys.length && keys[i]! <= end);
      const how = visitNode(children[i]!, i === first ? start : null, within ? null : end, visitor, liveOnly);
      if (how !== GO_ON) return how;
      if (!within) return RANGE_ENDS;
    }
    return GO_ON;
  }
  const { entries } = node;
  const stop = end === null ? entries.length : lowerBound(entries, end);
  for (let i = start === null ? 0 : lowerBound(entries, start); i < stop; i++) {
    const entry = entries[i]!;
    if ((!liveOnly || entry.live) && !visitor(entry)) return STOPPED;
  }
  return GO_ON;
}

function visitNodeDescending(
  node: Node,
  start: ByteString | null,
  end: ByteString | null,
  visitor: (entry: KeyEntry) => boolean,
): number {
  if (node instanceof Inner) {
    const { children, keys } = node;
    const last = end === null ? children.length - 1 : upperBound(keys, end);
    for (let i = last; i >= 0; i--) {
      // A child entirely above the start needs no key comparisons.
      const within = start === null || (i > 0 && keys[i - 1]! >= start);
      const how = visitNodeDescending(children[i]!, within ? null : start, i === last ? end : null, visitor);
      if (how !== GO_ON) return how;
      if (!within) return RANGE_ENDS;
    }
    return GO_ON;
  }
  const { entries } = node;
  const first = start === null ? 0 : lowerBound(entries, start);
  for (let i = (end === null ? entries.length : lowerBound(entries, end)) - 1; i >= first; i--) {
    if (!visitor(entries[i]!)) return STOPPED;
  }
  return GO_ON;
}
