/**
 * Prepares the file of the next segment while the current one fills: written with zeros to its full size and synced, so
 * that the log never grows a file under load (a sync that also has to record a new file size takes twice as long) and a
 * full disk shows before anything depends on the space.
 *
 * Files alternate between `0.tmp` and `1.tmp`, so the one being published never collides with the one being prepared.
 * Background work uses the thread pool, one short write or sync at a time. Does not rename: the log does.
 */
import type { Disk, DiskFile } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import { walFileError } from "./errors.ts";

const CHUNK_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(CHUNK_BYTES);

export class SegmentAllocator {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #sizeBytes: number;
  readonly #logger: Logger;
  #count = 0;
  #pending: Preparation | undefined;

  constructor(disk: Disk, dir: string, sizeBytes: number, logger: Logger) {
    this.#disk = disk;
    this.#dir = dir;
    this.#sizeBytes = sizeBytes;
    this.#logger = logger;
  }

  /** Starts preparing the next file, unless it has started (or has failed, which `take` then retries). */
  start(): void {
    // Writing a file of one chunk is faster than scheduling it.
    if (this.#pending !== undefined || this.#sizeBytes <= CHUNK_BYTES) return;
    const preparation: Preparation = {
      path: this.#path(this.#count++),
      file: undefined,
      written: 0,
      busy: true,
      failed: false,
    };
    this.#pending = preparation;
    try {
      preparation.file = this.#disk.open(preparation.path, "w", 0o600);
    } catch (cause) {
      this.#fail(preparation, cause);
      return;
    }
    this.#step(preparation);
  }

  /** False while the file is being prepared: waiting for it would cost less than `take`. */
  get ready(): boolean {
    return this.#pending === undefined || !this.#pending.busy;
  }

  /**
   * The prepared file; writes it now, blocking, if it is not ready. Throws WalError, with nothing significant changed.
   */
  take(): DiskFile {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending !== undefined && !pending.busy && !pending.failed) return pending.file!;
    if (pending !== undefined) this.#abandon(pending);

    const path = this.#path(this.#count++);
    let file: DiskFile | undefined;
    try {
      file = this.#disk.open(path, "w", 0o600);
      for (let at = 0; at < this.#sizeBytes; at += CHUNK_BYTES) file.write(this.#zeros(at), at);
      file.dataSync();
      return file;
    } catch (cause) {
      file?.close();
      this.#discard(path);
      throw walFileError(`reserve ${this.#sizeBytes} bytes for the next segment in`, path, cause);
    }
  }

  /** Stops preparing and removes what was prepared. */
  close(): void {
    if (this.#pending !== undefined) this.#abandon(this.#pending);
    this.#pending = undefined;
  }

  #path(count: number): string {
    return `${this.#dir}/${count % 2}.tmp`;
  }

  #zeros(at: number): Buffer {
    return ZEROS.subarray(0, Math.min(CHUNK_BYTES, this.#sizeBytes - at));
  }

  /** Writes one chunk and syncs it, so that a sync of the log waits for no more than that. */
  #step(preparation: Preparation): void {
    const file = preparation.file!;
    const zeros = this.#zeros(preparation.written);
    file.writeAsync(zeros, preparation.written, (writeError) => {
      if (writeError !== null || this.#pending !== preparation) {
        this.#stop(preparation, writeError);
        return;
      }
      file.dataSyncAsync((syncError) => {
        if (syncError !== null || this.#pending !== preparation) {
          this.#stop(preparation, syncError);
          return;
        }
        preparation.written += zeros.length;
        if (preparation.written < this.#sizeBytes) this.#step(preparation);
        else preparation.busy = false;
      });
    });
  }

  /** A file must not be closed while the thread pool uses it; here it is no longer used. */
  #stop(preparation: Preparation, error: Error | null): void {
    if (error !== null && this.#pending === preparation) {
      this.#fail(preparation, error);
      return;
    }
    preparation.file?.close();
  }

  #fail(preparation: Preparation, cause: unknown): void {
    preparation.busy = false;
    preparation.failed = true;
    preparation.file?.close();
    preparation.file = undefined;
    // The remaining space is for the current segment.
    this.#discard(preparation.path);
    const error = walFileError(`reserve ${this.#sizeBytes} bytes for the next segment in`, preparation.path, cause);
    this.#logger.warn("failed to preallocate space for the next WAL segment; will retry when it is due", {
      path: preparation.path,
      size: this.#sizeBytes,
      error: error.message,
    });
  }

  #abandon(preparation: Preparation): void {
    if (preparation.failed) return;
    if (!preparation.busy) preparation.file?.close();
    this.#discard(preparation.path);
  }

  #discard(path: string): void {
    try {
      this.#disk.remove(path);
    } catch {
      // A leftover is truncated when its name is used again.
    }
  }
}

interface Preparation {
  readonly path: string;
  file: DiskFile | undefined;
  written: number;
  /** A call is running on the thread pool. */
  busy: boolean;
  failed: boolean;
}
