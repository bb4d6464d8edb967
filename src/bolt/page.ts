/**
 * One branch or leaf page of a bbolt file, checked once when it is read so that using it needs no checks.
 *
 * Promises: every key and value lies inside the page, no key is empty, keys ascend strictly.
 */
import {
  BoltError,
  BRANCH_PAGE,
  BUCKET_ELEMENT,
  ELEMENT_BYTES,
  LEAF_PAGE,
  PAGE_HEADER_BYTES,
  readUint64,
} from "./format.ts";
import { unknownKind } from "./raw-page.ts";

export class TreePage {
  readonly id: number;
  readonly isLeaf: boolean;
  readonly count: number;
  /** Pages that it spans. */
  readonly span: number;
  readonly #bytes: Buffer;
  readonly #keyStarts: Uint32Array;
  readonly #keyEnds: Uint32Array;

  /**
   * @param id page that damage is reported against
   * @param bytes the page with its overflow; for an inline bucket, the page within the value
   */
  constructor(file: string, id: number, bytes: Buffer, span: number) {
    const damaged = (problem: string): never => {
      throw new BoltError("damaged", file, id, problem);
    };
    if (bytes.length < PAGE_HEADER_BYTES) damaged(`has ${bytes.length} bytes, fewer than its header`);
    const flags = bytes.readUInt16LE(8);
    if (flags !== BRANCH_PAGE && flags !== LEAF_PAGE) {
      damaged(`is of type 0x${flags.toString(16)} where a branch or leaf page belongs`);
    }
    this.id = id;
    this.isLeaf = flags === LEAF_PAGE;
    this.count = bytes.readUInt16LE(10);
    this.span = span;
    this.#bytes = bytes;
    if (PAGE_HEADER_BYTES + this.count * ELEMENT_BYTES > bytes.length) {
      damaged(`claims ${this.count} elements, more than its ${bytes.length} bytes hold`);
    }
    if (!this.isLeaf && this.count === 0) damaged("is a branch without children");
    this.#keyStarts = new Uint32Array(this.count);
    this.#keyEnds = new Uint32Array(this.count);
    for (let i = 0; i < this.count; i++) {
      const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      const start = at + bytes.readUInt32LE(this.isLeaf ? at + 4 : at);
      const keyEnd = start + bytes.readUInt32LE(this.isLeaf ? at + 8 : at + 4);
      const end = keyEnd + (this.isLeaf ? bytes.readUInt32LE(at + 12) : 0);
      if (keyEnd === start) damaged(`element ${i} has an empty key`);
      const kind = this.isLeaf ? bytes.readUInt32LE(at) : 0;
      if (kind > BUCKET_ELEMENT) damaged(unknownKind(i, kind));
      if (end > bytes.length) damaged(`element ${i} ends at byte ${end} of ${bytes.length}`);
      this.#keyStarts[i] = start;
      this.#keyEnds[i] = keyEnd;
      if (i > 0 && bytes.compare(bytes, start, keyEnd, this.#keyStarts[i - 1], this.#keyEnds[i - 1]) >= 0) {
        damaged(`the key of element ${i} is not above the one before it`);
      }
    }
  }

  get byteLength(): number {
    return this.#bytes.length;
  }

  key(index: number): Buffer {
    return this.#bytes.subarray(this.#keyStarts[index], this.#keyEnds[index]);
  }

  /** For a leaf. */
  value(index: number): Buffer {
    const start = this.#keyEnds[index]!;
    const length = this.#bytes.readUInt32LE(PAGE_HEADER_BYTES + index * ELEMENT_BYTES + 12);
    return this.#bytes.subarray(start, start + length);
  }

  /** For a leaf: whether the value is a bucket. */
  isBucket(index: number): boolean {
    return (this.#bytes.readUInt32LE(PAGE_HEADER_BYTES + index * ELEMENT_BYTES) & BUCKET_ELEMENT) !== 0;
  }

  /** For a branch. */
  child(index: number): number {
    return readUint64(this.#bytes, PAGE_HEADER_BYTES + index * ELEMENT_BYTES + 8);
  }

  /** Index of the first key at or above `key`; `count` when there is none. */
  lowerBound(key: Uint8Array): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compare(middle, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** For a branch: index of the child that `key` belongs to. */
  childFor(key: Uint8Array): number {
    const bound = this.lowerBound(key);
    if (bound < this.count && this.#compare(bound, key) === 0) return bound;
    return Math.max(0, bound - 1);
  }

  #compare(index: number, key: Uint8Array): number {
    return this.#bytes.compare(key, 0, key.length, this.#keyStarts[index], this.#keyEnds[index]);
  }
}
