import type { Disk, DiskFile } from "../../base/disk.ts";
import { type FileLock, FileLockedError } from "../../base/file-locks.ts";
import { createBoltFile } from "../../bolt/engine.ts";
import type { BoltMeta } from "../../bolt/format.ts";
import { PageCache } from "../../bolt/page-cache.ts";
import { findMeta, PageFile } from "../../bolt/page-file.ts";
import { StateReader } from "../../bolt/state-reader.ts";
import type { StoreWriter, Written } from "../../bolt/store-writer.ts";
import { inUseError } from "./database-file.ts";
import { FileRows } from "./file-rows.ts";

/** The dependencies for opening a database file. */
export interface OpenBolt {
  readonly disk: Disk;
  readonly path: string;
  readonly cacheBytes: number;
  /** Locks the file for this process; absent where no other process can have it. Throws FileLockedError. */
  readonly lock: ((path: string) => FileLock) | undefined;
  readonly writer: (path: string) => StoreWriter;
}

/**
 * One open database file: read here at its newest state and at pinned ones, written by its writer. A defragmentation
 * replaces it by another; it then stays open while a pinned state of it is being read.
 */
export class OpenFile {
  readonly writer: StoreWriter;
  readonly #file: DiskFile;
  readonly #pages: PageFile;
  readonly #cache: PageCache;
  readonly #lock: FileLock | undefined;
  /** States being read: transaction id to number of readers. */
  readonly #pinned = new Map<number, number>();
  #state: StateReader;
  #rows: FileRows;
  #freePages = 0;
  #isRetired = false;

  /**
   * Creates the file if it is absent or empty, as left by a crash at the very first start. Throws BoltError,
   * BackendError and node's.
   */
  constructor({ disk, path, cacheBytes, lock, writer }: OpenBolt) {
    if (!disk.exists(path)) createBoltFile(disk, path);
    else if (isEmpty(disk, path)) {
      takeLock(lock, path)?.release();
      createBoltFile(disk, path);
    }
    this.#lock = takeLock(lock, path);
    let file: DiskFile | undefined;
    try {
      file = disk.open(path, "r");
      const meta = findMeta(file);
      this.#file = file;
      this.#pages = new PageFile(file, meta.pageSize);
      this.#pages.pageCount = meta.pageCount;
      this.#cache = new PageCache(this.#pages, cacheBytes);
      this.#state = new StateReader(this.#cache, meta);
      this.#rows = new FileRows(this.#state);
      this.#state.checkBuckets();
      this.writer = writer(path);
      this.writer.opened.then(
        ({ freePages }) => (this.#freePages = freePages),
        () => {},
      );
    } catch (error) {
      file?.close();
      this.#lock?.release();
      throw error;
    }
  }

  get meta(): BoltMeta {
    return this.#state.meta;
  }

  get state(): StateReader {
    return this.#state;
  }

  get rows(): FileRows {
    return this.#rows;
  }

  /** Size of all pages up to the last, as etcd's quota counts it. */
  get sizeBytes(): number {
    return this.meta.pageCount * this.meta.pageSize;
  }

  get inUseBytes(): number {
    return (this.meta.pageCount - this.#freePages) * this.meta.pageSize;
  }

  /** Transaction ids of the states being read. */
  get readers(): readonly number[] {
    return [...this.#pinned.keys()];
  }

  /** The file has a new state. */
  written({ meta, writtenRuns, freePages }: Written): void {
    this.#pages.pageCount = meta.pageCount;
    this.#cache.forget(writtenRuns);
    this.#state = new StateReader(this.#cache, meta);
    this.#rows = new FileRows(this.#state);
    this.#freePages = freePages;
  }

  /** Pins the newest state; call the returned function when it is no longer needed. */
  pin(): { readonly file: DiskFile; readonly state: StateReader; readonly release: () => void } {
    const { txid } = this.meta;
    this.#pinned.set(txid, (this.#pinned.get(txid) ?? 0) + 1);
    const release = (): void => {
      const left = this.#pinned.get(txid)! - 1;
      if (left > 0) this.#pinned.set(txid, left);
      else this.#pinned.delete(txid);
      this.#closeIfUnused();
    };
    return { file: this.#file, state: this.#state, release };
  }

  /** Stops the writer; the file itself is closed when no pinned state is being read. */
  async retire(): Promise<void> {
    await this.writer.close();
    this.#isRetired = true;
    this.#closeIfUnused();
  }

  #closeIfUnused(): void {
    if (!this.#isRetired || this.#pinned.size > 0) return;
    this.#isRetired = false;
    this.#lock?.release();
    // Last, because the last close of a file without a name waits until its space is free.
    this.#file.closeAsync();
  }
}

function isEmpty(disk: Disk, path: string): boolean {
  const file = disk.open(path, "r");
  try {
    return file.size() === 0;
  } finally {
    file.close();
  }
}

/** Throws BackendError and node's errors. */
export function takeLock(lock: OpenBolt["lock"], path: string): FileLock | undefined {
  try {
    return lock?.(path);
  } catch (error) {
    if (error instanceof FileLockedError) throw inUseError(path, error.holder);
    throw error;
  }
}
