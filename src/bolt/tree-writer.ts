/**
 * Builds one B+tree from entries that come in ascending order, and emits each page as soon as it is full.
 *
 * Promises: pages are filled to the end; memory is one page (or two rows of 32 KiB, or one larger row) per level of the
 * tree; every branch page has at least two children, because bbolt fails when it later deletes under one with fewer. A
 * tree without entries is one empty leaf. Entries are copied, so the caller may reuse its buffers.
 */
import { KvorumError } from "../base/errors.ts";
import {
  BRANCH_PAGE,
  ELEMENT_BYTES,
  isFullLeaf,
  KEY_BYTES_MAX,
  LEAF_PAGE,
  PAGE_HEADER_BYTES,
  PAGE_SIZE,
  readUint64,
  VALUE_BYTES_MAX,
  writePageHeader,
  writeUint64,
} from "./format.ts";

/** Receives finished pages, in the order of their ids. */
export interface PageOutput {
  /** Takes the next `pages` ids and returns the first. */
  allocate(pages: number): number;
  /** The zeroed bytes of the pages last allocated; undefined when only the layout is wanted. */
  readonly target: { readonly buffer: Buffer; readonly at: number } | undefined;
}

/** The entries are out of order, or a bbolt file cannot hold them. */
export class BoltInputError extends KvorumError {
  override name = "BoltInputError";
  readonly code = "ERR_BOLT_INPUT";
}

export class TreeWriter {
  readonly #output: PageOutput;
  readonly #keepsData: boolean;
  readonly #leaf: PendingPage;
  /** Branch levels, the one above the leaves first. */
  readonly #branches: PendingPage[] = [];
  #last: Buffer = Buffer.alloc(0);

  constructor(output: PageOutput, keepsData: boolean) {
    this.#output = output;
    this.#keepsData = keepsData;
    this.#leaf = new PendingPage(LEAF_PAGE, keepsData);
  }

  /**
   * Adds an entry whose key is above all before it and whose value is `bytes[start .. end)`. Throws BoltInputError,
   * except when only the layout is wanted: the writing pass checks.
   */
  add(key: Uint8Array, bytes: Uint8Array, start = 0, end = bytes.length, flags = 0): void {
    if (this.#keepsData) this.#check(key, end - start);
    const leaf = this.#leaf;
    if (isFullLeaf(leaf.count, leaf.sizeWith(key.length + end - start), PAGE_SIZE)) this.#emit(leaf, leaf.count, 0);
    leaf.addLeaf(key, bytes, start, end, flags);
  }

  /** The tree as a page within a value, when it is a single leaf of at most `most` bytes; all of it is then in there. */
  inline(most: number): Buffer | undefined {
    if (this.#branches.length > 0 || this.#leaf.usedBytes(this.#leaf.count) > most) return undefined;
    return this.#leaf.toBytes();
  }

  /** Writes the rest; returns the page id of the tree's root. */
  finish(): number {
    if (this.#branches.length === 0) return this.#leaf.write(this.#output, this.#leaf.count);
    this.#emit(this.#leaf, this.#leaf.count, 0);
    for (let level = 0; ; level++) {
      const branch = this.#branches[level]!;
      if (level === this.#branches.length - 1) return branch.write(this.#output, branch.count);
      this.#emit(branch, branch.count, level + 1);
    }
  }

  #check(key: Uint8Array, valueBytes: number): void {
    if (key.length === 0) throw new BoltInputError("a key is empty, which a bbolt file cannot hold");
    if (key.length > KEY_BYTES_MAX) {
      throw new BoltInputError(`a key has ${key.length} bytes; a bbolt file holds at most ${KEY_BYTES_MAX}`);
    }
    if (valueBytes > VALUE_BYTES_MAX) {
      throw new BoltInputError(`a value has ${valueBytes} bytes; a bbolt file holds at most ${VALUE_BYTES_MAX}`);
    }
    const last = this.#last;
    if (last.length > 0 && last.compare(key) >= 0) {
      const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
      throw new BoltInputError(`key ${hex(key)} comes after ${hex(last)}: entries must be in strictly ascending order`);
    }
    // Reuses the buffer if it fits, because this runs once for each entry.
    if (last.length === key.length) last.set(key);
    else this.#last = Buffer.from(key);
  }

  /** Writes the first `count` entries of a page and adds its first key to branch level `parent`. */
  #emit(page: PendingPage, count: number, parent: number): void {
    const firstKey = page.key(0);
    const id = page.write(this.#output, count);
    page.drop(count);
    const branch = (this.#branches[parent] ??= new PendingPage(BRANCH_PAGE, true));
    if (branch.count >= 3 && branch.sizeWith(firstKey.length) > PAGE_SIZE) {
      // The last child stays, so that the next page never has only one.
      this.#emit(branch, branch.count - 1, parent + 1);
    }
    branch.addBranch(firstKey, id);
  }
}

/** The entries of a page that is not yet written. */
class PendingPage {
  readonly #flags: number;
  /** False for leaves when only the layout is wanted: all keys but the first are dropped. */
  readonly #keepsData: boolean;
  count = 0;
  /** Elements in their final form, except that `pos` holds the offset in `#data`. */
  #elements = Buffer.alloc(PAGE_SIZE);
  #data = Buffer.alloc(PAGE_SIZE);
  #dataBytes = 0;
  #firstKey: Buffer = Buffer.alloc(0);

  constructor(flags: number, keepsData: boolean) {
    this.#flags = flags;
    this.#keepsData = keepsData;
  }

  sizeWith(bytes: number): number {
    return PAGE_HEADER_BYTES + ELEMENT_BYTES * (this.count + 1) + this.#dataBytes + bytes;
  }

  addLeaf(key: Uint8Array, bytes: Uint8Array, start: number, end: number, flags: number): void {
    const at = this.#append(key);
    const length = end - start;
    if (!this.#keepsData) {
      this.#dataBytes += length;
      return;
    }
    this.#reserve(length);
    const value = length === bytes.length ? bytes : new Uint8Array(bytes.buffer, bytes.byteOffset + start, length);
    this.#data.set(value, this.#dataBytes);
    this.#dataBytes += length;
    this.#elements.writeUInt32LE(flags, at);
    this.#elements.writeUInt32LE(this.#dataBytes - length - key.length, at + 4);
    this.#elements.writeUInt32LE(key.length, at + 8);
    this.#elements.writeUInt32LE(length, at + 12);
  }

  addBranch(key: Uint8Array, id: number): void {
    const at = this.#append(key);
    this.#elements.writeUInt32LE(this.#dataBytes - key.length, at);
    this.#elements.writeUInt32LE(key.length, at + 4);
    writeUint64(this.#elements, at + 8, id);
  }

  /** Stores the key; returns where its element goes. */
  #append(key: Uint8Array): number {
    if (this.count === 0) this.#firstKey = Buffer.from(key);
    const at = this.count++ * ELEMENT_BYTES;
    if (this.#keepsData) {
      if (at + ELEMENT_BYTES > this.#elements.length) {
        this.#elements = Buffer.concat([this.#elements], this.#elements.length * 2);
      }
      this.#reserve(key.length);
      this.#data.set(key, this.#dataBytes);
    }
    this.#dataBytes += key.length;
    return at;
  }

  #reserve(bytes: number): void {
    const needed = this.#dataBytes + bytes;
    if (needed <= this.#data.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#data.length * 2));
    this.#data.copy(grown, 0, 0, this.#dataBytes);
    this.#data = grown;
  }

  /** A copy of the key of entry `index`; only of index 0 when the page keeps no data. */
  key(index: number): Buffer {
    if (index === 0) return this.#firstKey;
    const start = this.#start(index);
    return Buffer.from(this.#data.subarray(start, start + this.#elements.readUInt32LE(index * ELEMENT_BYTES + 4)));
  }

  /** Where the data of entry `index` starts. */
  #start(index: number): number {
    if (index === this.count) return this.#dataBytes;
    return this.#elements.readUInt32LE(index * ELEMENT_BYTES + (this.#flags === LEAF_PAGE ? 4 : 0));
  }

  /** Bytes of a page with the first `count` entries. */
  usedBytes(count: number): number {
    return PAGE_HEADER_BYTES + ELEMENT_BYTES * count + this.#dataBytesOf(count);
  }

  /** Writes the first `count` entries as a page; returns its id. */
  write(output: PageOutput, count: number): number {
    const pages = Math.ceil(this.usedBytes(count) / PAGE_SIZE);
    const id = output.allocate(pages);
    if (output.target === undefined) return id;
    const { buffer, at } = output.target;
    writePageHeader(buffer, at, id, this.#flags, count, pages - 1);
    this.#writeEntries(buffer, at, count);
    return id;
  }

  /** All entries as a page of just their size, without an id; zeros when the page keeps no data. */
  toBytes(): Buffer {
    const bytes = Buffer.alloc(this.usedBytes(this.count));
    if (!this.#keepsData) return bytes;
    writePageHeader(bytes, 0, 0, this.#flags, this.count, 0);
    this.#writeEntries(bytes, 0, this.count);
    return bytes;
  }

  #dataBytesOf(count: number): number {
    return count === this.count ? this.#dataBytes : this.#start(count);
  }

  #writeEntries(buffer: Buffer, at: number, count: number): void {
    const elements = at + PAGE_HEADER_BYTES;
    this.#elements.copy(buffer, elements, 0, count * ELEMENT_BYTES);
    this.#data.copy(buffer, elements + count * ELEMENT_BYTES, 0, this.#dataBytesOf(count));
    const positionAt = this.#flags === LEAF_PAGE ? 4 : 0;
    for (let i = 0; i < count; i++) {
      // The format counts a position relative to its element.
      const position = (count - i) * ELEMENT_BYTES + this.#start(i);
      buffer.writeUInt32LE(position, elements + i * ELEMENT_BYTES + positionAt);
    }
  }

  /** Drops the first `count` entries: all, or for a branch all but one. */
  drop(count: number): void {
    const keeps = count < this.count;
    const key = keeps ? this.key(count) : undefined;
    const id = keeps ? readUint64(this.#elements, count * ELEMENT_BYTES + 8) : 0;
    this.count = 0;
    this.#dataBytes = 0;
    if (key !== undefined) this.addBranch(key, id);
  }
}
