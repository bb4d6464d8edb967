/**
 * A branch or leaf page in place in memory: its fields by offset, without an object per entry. Every function takes
 * `at`, the page's offset in `bytes`.
 *
 * A page that `treePageProblem` has accepted needs no further checks: all keys and values lie inside it and ascend.
 */
import { BRANCH_PAGE, BUCKET_ELEMENT, ELEMENT_BYTES, LEAF_PAGE, PAGE_HEADER_BYTES } from "./format.ts";

const TWO_32 = 2 ** 32;

export function u16At(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

export function u32At(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

/** Exact below 2^53. */
export function u64At(bytes: Uint8Array, at: number): number {
  return u32At(bytes, at + 4) * TWO_32 + u32At(bytes, at);
}

export function flagsOf(bytes: Uint8Array, at: number): number {
  return u16At(bytes, at + 8);
}

export function isLeafPage(bytes: Uint8Array, at: number): boolean {
  return (bytes[at + 8]! & LEAF_PAGE) !== 0;
}

export function countOf(bytes: Uint8Array, at: number): number {
  return u16At(bytes, at + 10);
}

/** Overflow pages that it spans. */
export function overflowOf(bytes: Uint8Array, at: number): number {
  return u32At(bytes, at + 12);
}

/** Offset of element `index`. */
export function elementAt(at: number, index: number): number {
  return at + PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
}

/** The following take the offset of a leaf element. */
export function leafFlags(bytes: Uint8Array, element: number): number {
  return u32At(bytes, element);
}

export function leafKeyStart(bytes: Uint8Array, element: number): number {
  return element + u32At(bytes, element + 4);
}

export function leafKeyBytes(bytes: Uint8Array, element: number): number {
  return u32At(bytes, element + 8);
}

export function leafValueBytes(bytes: Uint8Array, element: number): number {
  return u32At(bytes, element + 12);
}

/** The following take the offset of a branch element. */
export function branchKeyStart(bytes: Uint8Array, element: number): number {
  return element + u32At(bytes, element);
}

export function branchKeyBytes(bytes: Uint8Array, element: number): number {
  return u32At(bytes, element + 4);
}

export function branchChild(bytes: Uint8Array, element: number): number {
  return u64At(bytes, element + 8);
}

/** Used bytes of the page: its entries are contiguous. */
export function usedBytes(bytes: Uint8Array, at: number): number {
  const count = countOf(bytes, at);
  let used = PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
  const isLeaf = isLeafPage(bytes, at);
  for (let i = 0; i < count; i++) {
    const element = elementAt(at, i);
    used += isLeaf ? leafKeyBytes(bytes, element) + leafValueBytes(bytes, element) : branchKeyBytes(bytes, element);
  }
  return used;
}

/** What is wrong with the page `bytes[at .. at + length)`; undefined for a valid branch or leaf page. */
export function treePageProblem(bytes: Uint8Array, at: number, length: number): string | undefined {
  if (length < PAGE_HEADER_BYTES) return `has ${length} bytes, fewer than its header`;
  const flags = flagsOf(bytes, at);
  if (flags !== BRANCH_PAGE && flags !== LEAF_PAGE) {
    return `is of type 0x${flags.toString(16)} where a branch or leaf page belongs`;
  }
  const isLeaf = flags === LEAF_PAGE;
  const count = countOf(bytes, at);
  const end = at + length;
  if (elementAt(at, count) > end) return `claims ${count} elements, more than its ${length} bytes hold`;
  if (!isLeaf && count === 0) return "is a branch without children";
  let lastStart = 0;
  let lastEnd = 0;
  for (let i = 0; i < count; i++) {
    const element = elementAt(at, i);
    const start = isLeaf ? leafKeyStart(bytes, element) : branchKeyStart(bytes, element);
    const keyEnd = start + (isLeaf ? leafKeyBytes(bytes, element) : branchKeyBytes(bytes, element));
    const entryEnd = isLeaf ? keyEnd + leafValueBytes(bytes, element) : keyEnd;
    if (keyEnd === start) return `element ${i} has an empty key`;
    if (isLeaf && leafFlags(bytes, element) > BUCKET_ELEMENT) return unknownKind(i, leafFlags(bytes, element));
    if (entryEnd > end) return `element ${i} ends at byte ${entryEnd - at} of ${length}`;
    if (i > 0 && compareBytes(bytes, lastStart, lastEnd, bytes, start, keyEnd) >= 0) {
      return `the key of element ${i} is not above the one before it`;
    }
    lastStart = start;
    lastEnd = keyEnd;
  }
  return undefined;
}

export function unknownKind(index: number, flags: number): string {
  return `element ${index} is of kind 0x${flags.toString(16)}, which is neither a value nor a bucket`;
}

/** Order of `a[aStart .. aEnd)` and `b[bStart .. bEnd)`, bytewise: below 0, 0 or above 0. */
export function compareBytes(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  const length = Math.min(aEnd - aStart, bEnd - bStart);
  for (let i = 0; i < length; i++) {
    const difference = a[aStart + i]! - b[bStart + i]!;
    if (difference !== 0) return difference;
  }
  return aEnd - aStart - (bEnd - bStart);
}
