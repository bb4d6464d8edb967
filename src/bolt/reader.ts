/**
 * Reads bbolt files page by page, however large, and trusts nothing in them.
 *
 * Promises: it uses memory only for the page cache and the current page; every walk ends, whatever the pages point at;
 * damage is a BoltError that names file and page. Opening a truncated file fails. Does not write.
 */
import type { Disk, DiskFile } from "../base/disk.ts";
import { BoltBucket, type PageSource } from "./bucket.ts";
import type { BoltMeta } from "./format.ts";
import { TreePage } from "./page.ts";
import { findMeta, PageFile } from "./page-file.ts";

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
  /** The pages of the file, unchecked. */
  readonly pages: PageFile;
  readonly #cache = new Map<number, TreePage>();
  #cacheBytes = 0;

  /** Throws BoltError, and node's errors when the file cannot be opened. */
  constructor({ disk, path, cacheBytesMax = 4 * 2 ** 20, pageBytesMax = 2 ** 30 }: OpenBoltOptions) {
    this.path = path;
    this.#cacheBytesMax = cacheBytesMax;
    this.#file = disk.open(path, "r");
    try {
      this.meta = findMeta(this.#file);
      this.pages = new PageFile(this.#file, this.meta.pageSize, pageBytesMax);
      this.pages.pageCount = this.meta.pageCount;
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
    const { bytes, span } = this.pages.read(id);
    const page = new TreePage(this.path, id, bytes, span);
    this.#keep(page);
    return page;
  }

  /** Ids of the free pages as listed in the freelist page; undefined without a freelist. Throws BoltError. */
  freelist(): { readonly ids: readonly number[]; readonly span: number } | undefined {
    const id = this.meta.freelistPage;
    return id === undefined ? undefined : this.pages.freeList(id);
  }

  damaged(page: number, problem: string): never {
    return this.pages.damaged(page, problem);
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
