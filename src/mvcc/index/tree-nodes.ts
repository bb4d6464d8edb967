/**
 * Memory of the tree's nodes, 64 words each, in chunks outside V8's heap. A node is a number; `wordsOf` and `offsetOf`
 * say where it is.
 *
 * Words: the number of its entries | the live keys under it | for a leaf, ids, with
 * the uppermost bit set for a live key; for an inner node, child nodes, and from
 * FIRSTS on for each child but the first the id of the smallest key under it.
 */
export class TreeNodes {
  readonly #chunks: Uint32Array[] = [];
  readonly #free: number[] = [];
  #count = 0;

  wordsOf(node: number): Uint32Array {
    return this.#chunks[node >>> CHUNK_BITS]!;
  }

  /** An empty node. */
  add(): number {
    const node = this.#free.pop() ?? this.#count++;
    if (node >>> CHUNK_BITS === this.#chunks.length) this.#chunks.push(new Uint32Array(NODE_WORDS << CHUNK_BITS));
    const words = this.wordsOf(node);
    words[offsetOf(node)] = 0;
    words[offsetOf(node) + LIVE] = 0;
    return node;
  }

  free(node: number): void {
    this.#free.push(node);
  }
}

const NODE_BITS = 6;
const NODE_WORDS = 1 << NODE_BITS;
const CHUNK_BITS = 8;

export const LIVE = 1;
/** Bit of a leaf's entry. */
export const LIVE_BIT = 0x80000000;
/** Ids of a leaf, children of an inner node. */
export const ENTRIES = 2;
export const LEAF_LENGTH_MAX = NODE_WORDS - ENTRIES - 1;
const INNER_SLOTS = (NODE_WORDS - ENTRIES) >> 1;
export const INNER_LENGTH_MAX = INNER_SLOTS - 1;
/** Smallest keys under an inner node's children. */
export const FIRSTS = ENTRIES + INNER_SLOTS;

/** Offset of the node in its words. */
export function offsetOf(node: number): number {
  return (node & ((1 << CHUNK_BITS) - 1)) << NODE_BITS;
}

/** Makes room for one word at `at`; the words up to `end` move. */
export function insertWord(words: Uint32Array, at: number, end: number, value: number): void {
  for (let i = end; i > at; i--) words[i] = words[i - 1]!;
  words[at] = value;
}

/** Removes the word at `at`; those up to `end` move. */
export function removeWord(words: Uint32Array, at: number, end: number): void {
  for (let i = at + 1; i < end; i++) words[i - 1] = words[i]!;
}
