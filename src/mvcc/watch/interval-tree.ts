import type { ByteString } from "../model/types.ts";

/**
 * Key ranges with values, searchable for those that contain a key: a height-balanced (AVL) search tree ordered by
 * (start, end), where each node stores the greatest end below it. An end of "" means no end.
 *
 * Insert, find and remove are logarithmic; `stab` is logarithmic for each range found.
 */
export class IntervalTree<T> {
  #root: Node<T> | undefined = undefined;
  #size = 0;

  /** Number of different ranges. */
  get size(): number {
    return this.#size;
  }

  get(start: ByteString, end: ByteString): T | undefined {
    let node = this.#root;
    while (node !== undefined) {
      const order = compare(start, end, node);
      if (order === 0) return node.value;
      node = order < 0 ? node.left : node.right;
    }
    return undefined;
  }

  /** The range must not exist yet. */
  insert(start: ByteString, end: ByteString, value: T): void {
    this.#root = insert(this.#root, new Node(start, end, value));
    this.#size++;
  }

  /** The range must exist. */
  remove(start: ByteString, end: ByteString): void {
    this.#root = remove(this.#root, start, end);
    this.#size--;
  }

  /** Appends the value of every range to `out`, in the order of the ranges. */
  values(out: T[]): void {
    if (this.#root !== undefined) walk(this.#root, out);
  }

  /** Appends the value of every range that contains the key to `out`, in the order of the ranges. */
  stab(key: ByteString, out: T[]): void {
    if (this.#root !== undefined) stab(this.#root, key, out);
  }
}

class Node<T> {
  start: ByteString;
  end: ByteString;
  value: T;
  /** Greatest end in this subtree. */
  maxEnd: ByteString;
  height = 1;
  left: Node<T> | undefined = undefined;
  right: Node<T> | undefined = undefined;

  constructor(start: ByteString, end: ByteString, value: T) {
    this.start = start;
    this.end = end;
    this.value = value;
    this.maxEnd = end;
  }
}

function stab<T>(node: Node<T>, key: ByteString, out: T[]): void {
  const { left, right } = node;
  if (left !== undefined && isBelow(key, left.maxEnd)) stab(left, key, out);
  // Everything to the right starts later still.
  if (key < node.start) return;
  if (isBelow(key, node.end)) out.push(node.value);
  if (right !== undefined && isBelow(key, right.maxEnd)) stab(right, key, out);
}

function walk<T>(node: Node<T>, out: T[]): void {
  if (node.left !== undefined) walk(node.left, out);
  out.push(node.value);
  if (node.right !== undefined) walk(node.right, out);
}

function isBelow(key: ByteString, end: ByteString): boolean {
  return end === "" || key < end;
}

function compareEnds(a: ByteString, b: ByteString): number {
  if (a === b) return 0;
  if (a === "") return 1;
  if (b === "") return -1;
  return a < b ? -1 : 1;
}

function compare<T>(start: ByteString, end: ByteString, node: Node<T>): number {
  if (start !== node.start) return start < node.start ? -1 : 1;
  return compareEnds(end, node.end);
}

function insert<T>(node: Node<T> | undefined, added: Node<T>): Node<T> {
  if (node === undefined) return added;
  if (compare(added.start, added.end, node) < 0) node.left = insert(node.left, added);
  else node.right = insert(node.right, added);
  return balance(node);
}

function remove<T>(node: Node<T> | undefined, start: ByteString, end: ByteString): Node<T> | undefined {
  if (node === undefined) return undefined;
  const order = compare(start, end, node);
  if (order < 0) node.left = remove(node.left, start, end);
  else if (order > 0) node.right = remove(node.right, start, end);
  else {
    if (node.left === undefined) return node.right;
    if (node.right === undefined) return node.left;
    let next = node.right;
    while (next.left !== undefined) next = next.left;
    node.start = next.start;
    node.end = next.end;
    node.value = next.value;
    node.right = remove(node.right, next.start, next.end);
  }
  return balance(node);
}

function heightOf<T>(node: Node<T> | undefined): number {
  return node === undefined ? 0 : node.height;
}

function update<T>(node: Node<T>): void {
  const { left, right } = node;
  node.height = Math.max(heightOf(left), heightOf(right)) + 1;
  let maxEnd = node.end;
  if (left !== undefined && compareEnds(left.maxEnd, maxEnd) > 0) maxEnd = left.maxEnd;
  if (right !== undefined && compareEnds(right.maxEnd, maxEnd) > 0) maxEnd = right.maxEnd;
  node.maxEnd = maxEnd;
}

function rotateRight<T>(node: Node<T>): Node<T> {
  const top = node.left!;
  node.left = top.right;
  top.right = node;
  update(node);
  update(top);
  return top;
}

function rotateLeft<T>(node: Node<T>): Node<T> {
  const top = node.right!;
  node.right = top.left;
  top.left = node;
  update(node);
  update(top);
  return top;
}

function balance<T>(node: Node<T>): Node<T> {
  const lean = heightOf(node.left) - heightOf(node.right);
  if (lean > 1) {
    const left = node.left!;
    if (heightOf(left.left) < heightOf(left.right)) node.left = rotateLeft(left);
    return rotateRight(node);
  }
  if (lean < -1) {
    const right = node.right!;
    if (heightOf(right.right) < heightOf(right.left)) node.right = rotateRight(right);
    return rotateLeft(node);
  }
  update(node);
  return node;
}
