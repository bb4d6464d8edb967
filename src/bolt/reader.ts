/**
 * Reads bbolt files page by page, however large, and trusts nothing in them.
 *
 * Promises: it uses memory only for the page cache and the current page; every walk ends, whatever the pages point at;
 * damage is a BoltError that names file and page. Opening a truncated file fails. Does not write.
 */
import type { Disk, DiskFile } from "../base/disk.ts";
import { BoltBucket, type PageSource } from "./bucket.ts";
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
import { TreePage } from "./page.ts";

export interface OpenBoltOptions {
  readonly disk: Disk;
  readonly path: string;
  /** Pages kept in memory; 4 MiB when absent. */
  readonly cacheBytesMax?: number;
  /** Largest page with its overflow, and so largest entry; 1 GiB when absent. */
  readonly pageBytesMax?: number;
}

export class BoltReader implements PageSource {
  readonly path: string;
  readonly meta: BoltMeta;
  /** The bucket of buckets. */
  readonly root: BoltBucket;
  readonly #file: DiskFile;
  readonly #cacheBytesMax: number;
  readonly #pageBytesMax: number;
  readonly #cache = new Map<number, TreePage>();
  #cacheBytes = 0;

  /** Throws BoltError, and node's errors when the file cannot be opened. */
  constructor({ disk, path, cacheBytesMax = 4 * 2 ** 20, pageBytesMax = 2 ** 30 }: OpenBoltOptions) {
    this.path = path;
    this.#cacheBytesMax = cacheBytesMax;
    this.#pageBytesMax = pageBytesMax;
    this.#file = disk.open(path, "r");
    try {
      this.meta = findMeta(this.#file);
    } catch (error) {
      this.#file.close();
      throw error;
    }
    this.root = new BoltBucket(this, this.meta.rootPage, 0);
  }

  get pageCount(): number {
    return this.meta.pageCount;
  }

  /** Bytes of the database itself: the file may be longer, by a checksum or by reserved space. */
  get sizeBytes(): number {
    return this.meta.pageCount * this.meta.pageSize;
  }

  /** The top-level bucket of that name. */
  bucket(name: Uint8Array): BoltBucket | undefined {
    return this.root.bucket(name);
  }

  close(): void {
    this.#cache.clear();
    this.#file.close();
  }

  /** A branch or leaf page. Throws BoltError. */
  page(id: number): TreePage {
    const cached = this.#cache.get(id);
    if (cached !== undefined) {
      this.#cache.delete(id);
      this.#cache.set(id, cached);
      return cached;
    }
    const { bytes, span } = this.#read(id);
    const page = new TreePage(this.path, id, bytes, span);
    this.#keep(page);
    return page;
  }

  /** Ids of the free pages as listed in the freelist page; undefined without a freelist. Throws BoltError. */
  freelist(): { readonly ids: readonly number[]; readonly span: number } | undefined {
    const id = this.meta.freelistPage;
    if (id === undefined) return undefined;
    const { bytes, span } = this.#read(id);
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

  damaged(page: number, problem: string): never {
    throw new BoltError("damaged", this.path, page, problem);
  }

  #read(id: number): { bytes: Buffer; span: number } {
    const { pageSize, pageCount } = this.meta;
    if (!(id >= 2 && id < pageCount)) {
      throw new BoltError(
        "damaged",
        this.path,
        undefined,
        `a page points at page ${id}, outside 2 to ${pageCount - 1}`,
      );
    }
    let bytes: Buffer = Buffer.allocUnsafeSlow(pageSize);
    this.#fill(bytes, id, 0);
    const stored = readUint64(bytes, 0);
    if (stored !== id) this.damaged(id, `says that it is page ${stored}`);
    const overflow = bytes.readUInt32LE(12);
    if (overflow === 0) return { bytes, span: 1 };
    if (id + overflow >= pageCount) this.damaged(id, `spans ${overflow + 1} pages, beyond the last, ${pageCount - 1}`);
    const total = (overflow + 1) * pageSize;
    if (total > this.#pageBytesMax) {
      throw new BoltError("limit", this.path, id, `has ${total} bytes; at most ${this.#pageBytesMax} are accepted`);
    }
    const whole = Buffer.allocUnsafeSlow(total);
    bytes.copy(whole);
    this.#fill(whole.subarray(pageSize), id, pageSize);
    bytes = whole;
    return { bytes, span: overflow + 1 };
  }

  #fill(bytes: Buffer, id: number, offset: number): void {
    const count = this.#file.read(bytes, id * this.meta.pageSize + offset);
    if (count < bytes.length) this.damaged(id, `the file ends inside it: ${bytes.length - count} bytes are missing`);
  }

  #keep(page: TreePage): void {
    if (page.byteLength > this.#cacheBytesMax / 4) return;
    this.#cache.set(page.id, page);
    this.#cacheBytes += page.byteLength;
    for (const [id, oldest] of this.#cache) {
      if (this.#cacheBytes <= this.#cacheBytesMax) break;
      this.#cache.delete(id);
      this.#cacheBytes -= oldest.byteLength;
    }
  }
}

/** The current meta: the valid one with the higher transaction id. */
function findMeta(file: DiskFile): BoltMeta {
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
