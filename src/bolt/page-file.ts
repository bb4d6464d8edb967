/**
 * The pages of an open bbolt file, read singly or many adjacent ones at once, and the current meta. It caches nothing.
 * Damage is a BoltError that names file, bucket and page.
 */
import type { DiskFile } from "../base/disk.ts";
import {
  BoltError,
  type BoltMeta,
  FREELIST_PAGE,
  META_BYTES,
  type MetaProblem,
  PAGE_HEADER_BYTES,
  readMetaPage,
  readUint64,
} from "./format.ts";
import { overflowOf, u64At } from "./raw-page.ts";

export class PageFile {
  readonly path: string;
  readonly pageSize: number;
  /** Pages that the newest state may refer to. */
  pageCount = 0;
  readonly #file: DiskFile;
  readonly #pageBytesMax: number;

  /** `pageBytesMax` limits a page with its overflow, and so also an entry. */
  constructor(file: DiskFile, pageSize: number, pageBytesMax = 2 ** 31) {
    this.path = file.path;
    this.pageSize = pageSize;
    this.#file = file;
    this.#pageBytesMax = pageBytesMax;
  }

  /** A page with its overflow, in newly allocated memory. Throws BoltError. */
  read(id: number, bucket?: string): { readonly bytes: Buffer; readonly span: number } {
    this.checkId(id, bucket);
    const bytes = Buffer.allocUnsafeSlow(this.pageSize);
    this.fill(bytes, id, 0);
    const span = this.spanOf(bytes, 0, id, bucket);
    if (span === 1) return { bytes, span };
    const whole = Buffer.allocUnsafeSlow(span * this.pageSize);
    bytes.copy(whole);
    this.fill(whole.subarray(this.pageSize), id, this.pageSize);
    return { bytes: whole, span };
  }

  checkId(id: number, bucket?: string): void {
    if (id >= 2 && id < this.pageCount) return;
    throw new BoltError(
      "damaged",
      this.path,
      undefined,
      `a page${inBucket(bucket)} points at page ${id}, outside 2 to ${this.pageCount - 1}`,
    );
  }

  /** The number of pages that the one at `at` spans, by its header, which is checked. Throws BoltError. */
  spanOf(bytes: Uint8Array, at: number, id: number, bucket?: string): number {
    const stored = u64At(bytes, at);
    if (stored !== id) this.damaged(id, `says that it is page ${stored}`, bucket);
    const overflow = overflowOf(bytes, at);
    if (id + overflow >= this.pageCount) {
      this.damaged(id, `spans ${overflow + 1} pages, beyond the last, ${this.pageCount - 1}`, bucket);
    }
    const total = (overflow + 1) * this.pageSize;
    if (total > this.#pageBytesMax) {
      throw new BoltError("limit", this.path, id, `has ${total} bytes; at most ${this.#pageBytesMax} are accepted`);
    }
    return overflow + 1;
  }

  /** Fills `bytes` from `offset` after the start of page `id`. Throws BoltError at the end of the file. */
  fill(bytes: Uint8Array, id: number, offset: number): void {
    const count = this.#file.read(bytes, id * this.pageSize + offset);
    if (count < bytes.length) this.damaged(id, `the file ends inside it: ${bytes.length - count} bytes are missing`);
  }

  /** Ids of the free pages as listed in the freelist page. Throws BoltError. */
  freeList(id: number): { readonly ids: readonly number[]; readonly span: number } {
    const { bytes, span } = this.read(id);
    const flags = bytes.readUInt16LE(8);
    if (flags !== FREELIST_PAGE) this.damaged(id, `is of type 0x${flags.toString(16)} where the freelist belongs`);
    let at = PAGE_HEADER_BYTES;
    let count = bytes.readUInt16LE(10);
    if (count === 0xffff) {
      count = readUint64(bytes, at);
      at += 8;
    }
    if (at + count * 8 > bytes.length) this.damaged(id, `claims ${count} free pages, more than it can hold`);
    const ids: number[] = [];
    for (let i = 0; i < count; i++) ids.push(readUint64(bytes, at + i * 8));
    return { ids, span };
  }

  damaged(page: number, problem: string, bucket?: string): never {
    throw new BoltError("damaged", this.path, page, `${problem}${inBucket(bucket)}`);
  }
}

function inBucket(bucket: string | undefined): string {
  if (bucket === undefined) return "";
  return bucket === "" ? " (of the list of buckets)" : ` (of bucket "${bucket}")`;
}

/** The current meta: the valid one with the higher transaction id. Throws BoltError. */
export function findMeta(file: DiskFile): BoltMeta {
  const size = file.size();
  const read = (at: number): BoltMeta | MetaProblem => {
    const page = Buffer.alloc(PAGE_HEADER_BYTES + META_BYTES);
    return readMetaPage(page.subarray(0, file.read(page, at)));
  };
  const first = read(0);
  let second: BoltMeta | MetaProblem = "not-bolt";
  if (typeof first === "object") second = read(first.pageSize);
  // If the first meta is damaged, the page size is not known: try each that bbolt could have used.
  else for (let at = 1024; at <= 2 ** 24 && typeof second === "string" && at < size; at *= 2) second = read(at);
  const valid = [first, second].filter((meta) => typeof meta === "object").sort((a, b) => b.txid - a.txid);
  const meta = valid[0];
  if (meta === undefined) {
    if (first === "version" || second === "version") {
      throw new BoltError("version", file.path, undefined, "is a bbolt file of another version than 2");
    }
    if (first === "not-bolt" && second === "not-bolt") {
      throw new BoltError(
        "not-bolt",
        file.path,
        undefined,
        "is not a bbolt database: no meta page has its magic number",
      );
    }
    throw new BoltError("damaged", file.path, 0, "neither meta page is valid (checksum or values are wrong)");
  }
  const needed = meta.pageCount * meta.pageSize;
  if (needed > size) {
    const problem = `is cut short: ${meta.pageCount} pages need ${needed} bytes, the file has ${size}`;
    throw new BoltError("damaged", file.path, undefined, problem);
  }
  return meta;
}
