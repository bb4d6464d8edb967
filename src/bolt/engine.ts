/**
 * A bbolt file that is open for writing: its newest state, its free pages, and the one write transaction at a time.
 *
 * Uses neither threads nor time: `begin` gives a transaction, its `prepare` the file operations for its executor, and
 * `committed` makes the result the newest state. After any error the engine is unusable: the next open determines the
 * state of the file.
 *
 * Promises: pages that the newest state, the one before a commit, or a reader's state consist of are never overwritten.
 */
import { dirname } from "node:path";
import type { Disk, DiskFile } from "../base/disk.ts";
import { commitNow } from "./commit.ts";
import {
  BoltError,
  type BoltMeta,
  FREELIST_PAGE,
  LEAF_PAGE,
  PAGE_SIZE,
  writeMetaPage,
  writePageHeader,
} from "./format.ts";
import { FreeList } from "./free-list.ts";
import { findMeta, PageFile } from "./page-file.ts";
import { PageMemory } from "./page-memory.ts";
import { findReachable } from "./reachable.ts";
import { type Committed, type TransactionFile, WriteTransaction } from "./transaction.ts";

export class BoltEngine implements TransactionFile {
  readonly path: string;
  readonly file: DiskFile;
  readonly memory = new PageMemory();
  readonly #pages: PageFile;
  #meta: BoltMeta;
  #fileBytes: number;
  readonly #freeList: FreeList;
  #freeListSpan: number;
  #open: WriteTransaction | undefined;

  /** Takes an open file and its current meta. Reads its free list, or searches for free pages. Throws BoltError. */
  constructor(file: DiskFile, meta: BoltMeta) {
    this.path = file.path;
    this.file = file;
    this.#meta = meta;
    this.#fileBytes = file.size();
    this.#pages = new PageFile(file, meta.pageSize);
    this.#pages.pageCount = meta.pageCount;
    this.#freeListSpan = freeListSpan(this.#pages, meta);
    this.#freeList = loadFreeList(this.#pages, meta, this.#freeListSpan);
  }

  get meta(): BoltMeta {
    return this.#meta;
  }

  get fileBytes(): number {
    return this.#fileBytes;
  }

  /** Pages of the stored free list. */
  get freeListSpan(): number {
    return this.#freeListSpan;
  }

  /** Free pages, including those that readers of older states still need. */
  get freePages(): number {
    return this.#freeList.freeCount + this.#freeList.pendingCount;
  }

  /** Begins a transaction, given the transaction ids of the states being read. */
  begin(readers: readonly number[] = []): WriteTransaction {
    if (this.#open !== undefined) throw new Error(`${this.path}: a transaction is open`);
    this.#freeList.release(readers);
    return (this.#open = new WriteTransaction(this, this.#meta, this.#freeList));
  }

  /** All operations of the open transaction are done. */
  committed(committed: Committed): void {
    this.#open = undefined;
    this.memory.release();
    this.#meta = committed.meta;
    this.#pages.pageCount = committed.meta.pageCount;
    this.#freeListSpan = freeListSpan(this.#pages, committed.meta);
    this.#fileBytes = this.file.size();
  }

  /** Commits the open transaction, blocking the thread. Throws BoltError and node's errors. */
  commit(transaction: WriteTransaction, options: { readonly writeFreeList?: boolean } = {}): Committed {
    const { steps, committed } = transaction.prepare(options);
    commitNow(this.file, steps);
    this.committed(committed);
    return committed;
  }

  readPage(id: number): { readonly bytes: Buffer; readonly span: number } {
    return this.#pages.read(id);
  }

  damaged(page: number, problem: string, bucket?: string): never {
    return this.#pages.damaged(page, problem, bucket);
  }
}

/** Opens a file for writing and finds its meta; reads nothing else. Throws BoltError and node's errors. */
export function openBoltFile(disk: Disk, path: string): { readonly file: DiskFile; readonly meta: BoltMeta } {
  const file = disk.open(path, "r+");
  try {
    return { file, meta: findMeta(file) };
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * Creates an empty file, as bbolt does: two metas, an empty free list, an empty bucket of buckets. It gets its name
 * when it is complete. Replaces an existing one.
 */
export function createBoltFile(disk: Disk, path: string, options: { mode?: number; pageSize?: number } = {}): void {
  const { mode = 0o600, pageSize = PAGE_SIZE } = options;
  const bytes = Buffer.alloc(pageSize * 4);
  for (const id of [0, 1] as const) {
    writeMetaPage(bytes, id * pageSize, id, { pageSize, rootPage: 3, freelistPage: 2, pageCount: 4, txid: id });
  }
  writePageHeader(bytes, 2 * pageSize, 2, FREELIST_PAGE, 0, 0);
  writePageHeader(bytes, 3 * pageSize, 3, LEAF_PAGE, 0, 0);
  const temporary = `${path}.new`;
  const file = disk.open(temporary, "w", mode);
  try {
    file.write(bytes, 0);
    file.dataSync();
  } finally {
    file.close();
  }
  disk.rename(temporary, path);
  disk.syncDir(dirname(path));
}

/** The file's free list, if valid; otherwise the pages without references. */
function loadFreeList(pages: PageFile, meta: BoltMeta, span: number): FreeList {
  const list = new FreeList(pages.path);
  const start = meta.freelistPage;
  const stored = start === undefined ? undefined : storedFreeList(pages, meta, start, span);
  if (stored !== undefined) {
    for (const id of stored) list.add(id);
    return list;
  }
  const reached = findReachable(pages, meta);
  // The next transaction frees it.
  if (start !== undefined) reached.fill(1, start, start + span);
  for (let id = 2; id < meta.pageCount; id++) if (reached[id] === 0) list.add(id);
  return list;
}

/** Pages of the stored list: for an unreadable list, its first page is not used while the file refers to it. */
function freeListSpan(pages: PageFile, meta: BoltMeta): number {
  if (meta.freelistPage === undefined) return 0;
  try {
    return pages.read(meta.freelistPage).span;
  } catch (error) {
    if (error instanceof BoltError) return 1;
    throw error;
  }
}

/** Undefined when damaged: its content can be determined without it. */
function storedFreeList(pages: PageFile, meta: BoltMeta, page: number, span: number): readonly number[] | undefined {
  try {
    const { ids } = pages.freeList(page);
    const isUsed = (id: number): boolean => id === meta.rootPage || (id >= page && id < page + span);
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      // Ascending, as bbolt writes them.
      if (!(id >= 2 && id < meta.pageCount) || (i > 0 && id <= ids[i - 1]!) || isUsed(id)) return undefined;
    }
    return ids;
  } catch (error) {
    if (error instanceof BoltError) return undefined;
    throw error;
  }
}
