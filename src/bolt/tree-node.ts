/**
 * A B+tree page in a write transaction, with its entries separated so that they can be changed. Entries refer to their
 * original bytes, in a page or a batch; nothing is copied until a page is written.
 */
import { BRANCH_PAGE, ELEMENT_BYTES, LEAF_PAGE, PAGE_HEADER_BYTES, writePageHeader, writeUint64 } from "./format.ts";
import {
  branchChild,
  branchKeyBytes,
  branchKeyStart,
  compareBytes,
  countOf,
  elementAt,
  isLeafPage,
  leafFlags,
  leafKeyBytes,
  leafKeyStart,
  leafValueBytes,
} from "./raw-page.ts";

/**
 * The key is `bytes[start .. keyEnd)`, followed by the value up to `end`. A branch entry has a child instead of a
 * value.
 */
export interface Entry {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly keyEnd: number;
  readonly end: number;
  /** Of a leaf. */
  readonly flags: number;
  /** For a branch: page of the child, 0 while it has none. */
  readonly child: number;
  /** For a branch: the child, if it is in memory. */
  node: TreeNode | undefined;
}

export class TreeNode {
  readonly isLeaf: boolean;
  /** Its original page; 0 for a new one, or one within its parent's leaf. */
  readonly page: number;
  /** Pages that it spanned there. */
  readonly span: number;
  entries: Entry[] = [];
  /** Its size in the file. */
  sizeBytes = PAGE_HEADER_BYTES;
  /** It, or a descendant, differs from the file. */
  isChanged = false;
  /** It has lost entries, and may be too small now. */
  hasLost = false;

  constructor(isLeaf: boolean, page: number, span: number) {
    this.isLeaf = isLeaf;
    this.page = page;
    this.span = span;
  }

  /** Separates a checked page into entries. Its bytes must not change during the transaction. */
  static read(bytes: Uint8Array, at: number, page: number, span: number): TreeNode {
    const isLeaf = isLeafPage(bytes, at);
    const node = new TreeNode(isLeaf, page, span);
    const count = countOf(bytes, at);
    for (let i = 0; i < count; i++) {
      const element = elementAt(at, i);
      if (isLeaf) {
        const start = leafKeyStart(bytes, element);
        const keyEnd = start + leafKeyBytes(bytes, element);
        const end = keyEnd + leafValueBytes(bytes, element);
        node.push({ bytes, start, keyEnd, end, flags: leafFlags(bytes, element), child: 0, node: undefined });
      } else {
        const start = branchKeyStart(bytes, element);
        const keyEnd = start + branchKeyBytes(bytes, element);
        const child = branchChild(bytes, element);
        node.push({ bytes, start, keyEnd, end: keyEnd, flags: 0, child, node: undefined });
      }
    }
    return node;
  }

  push(entry: Entry): void {
    this.entries.push(entry);
    this.sizeBytes += entryBytes(entry);
  }

  /** Inserts the entry at `index`, or replaces the one there if `replaces`. */
  put(index: number, entry: Entry, replaces: boolean): void {
    if (replaces) this.sizeBytes -= entryBytes(this.entries[index]!);
    this.sizeBytes += entryBytes(entry);
    if (replaces) this.entries[index] = entry;
    else this.entries.splice(index, 0, entry);
  }

  remove(index: number): void {
    this.sizeBytes -= entryBytes(this.entries[index]!);
    this.entries.splice(index, 1);
  }

  /** Takes over the entries of its right neighbour. */
  append(right: TreeNode): void {
    for (const entry of right.entries) this.entries.push(entry);
    this.sizeBytes += right.sizeBytes - PAGE_HEADER_BYTES;
  }

  setEntries(entries: Entry[]): void {
    this.entries = entries;
    this.sizeBytes = PAGE_HEADER_BYTES;
    for (const entry of entries) this.sizeBytes += entryBytes(entry);
  }

  /** Index of the first entry at or above the key. */
  lowerBound(bytes: Uint8Array, start: number, keyEnd: number): number {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const entry = this.entries[middle]!;
      if (compareBytes(entry.bytes, entry.start, entry.keyEnd, bytes, start, keyEnd) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** For a branch: index of the child that the key belongs to. */
  childFor(bytes: Uint8Array, start: number, keyEnd: number): number {
    const bound = this.lowerBound(bytes, start, keyEnd);
    return bound < this.entries.length && this.isAt(bound, bytes, start, keyEnd) ? bound : Math.max(0, bound - 1);
  }

  /** Whether the entry at `index` has this key. */
  isAt(index: number, bytes: Uint8Array, start: number, keyEnd: number): boolean {
    const entry = this.entries[index];
    return entry !== undefined && compareBytes(entry.bytes, entry.start, entry.keyEnd, bytes, start, keyEnd) === 0;
  }
}

export function entryBytes(entry: Entry): number {
  return ELEMENT_BYTES + entry.end - entry.start;
}

/** Writes entries as page `id` with `overflow` further pages. The memory after the written bytes must be zeroed. */
export function writeTreePage(
  out: Buffer,
  at: number,
  id: number,
  isLeaf: boolean,
  overflow: number,
  entries: readonly Entry[],
  from: number,
  to: number,
): void {
  const count = to - from;
  writePageHeader(out, at, id, isLeaf ? LEAF_PAGE : BRANCH_PAGE, count, overflow);
  let data = elementAt(at, count);
  for (let i = 0; i < count; i++) {
    const entry = entries[from + i]!;
    const element = elementAt(at, i);
    if (isLeaf) {
      setU32(out, element, entry.flags);
      setU32(out, element + 4, data - element);
      setU32(out, element + 8, entry.keyEnd - entry.start);
      setU32(out, element + 12, entry.end - entry.keyEnd);
    } else {
      setU32(out, element, data - element);
      setU32(out, element + 4, entry.keyEnd - entry.start);
      writeUint64(out, element + 8, entry.child);
    }
    copyBytes(entry.bytes, entry.start, entry.end, out, data);
    data += entry.end - entry.start;
  }
}

/** Faster than the method of Buffer, which checks its arguments. */
export function setU32(out: Uint8Array, at: number, value: number): void {
  out[at] = value;
  out[at + 1] = value >>> 8;
  out[at + 2] = value >>> 16;
  out[at + 3] = value >>> 24;
}

/** A loop is faster than a call for short data. */
export function copyBytes(from: Uint8Array, start: number, end: number, to: Uint8Array, at: number): void {
  if (end - start > 64) to.set(new Uint8Array(from.buffer, from.byteOffset + start, end - start), at);
  else for (let i = start; i < end; i++) to[at++] = from[i]!;
}
