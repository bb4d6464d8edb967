/**
 * The writer of the file: takes batches of records, one at a time, and resolves each when it is durable.
 *
 * `StoreWriter` is the common interface, `InlineWriter` runs in this thread over any disk, `ThreadWriter`
 * (thread-writer.ts) on a separate thread over the real one. Both use the file exclusively, except for readers of
 * committed states.
 */
import type { Disk } from "../base/disk.ts";
import { commitInTurns } from "./commit.ts";
import { BoltEngine, openBoltFile } from "./engine.ts";
import type { BoltMeta } from "./format.ts";
import { applyRecords, type KnownBucket } from "./records.ts";
import { REWRITE_STEP_BYTES, Rewrite } from "./rewrite.ts";
import type { WriteTransaction } from "./transaction.ts";

/** A durable state. */
export interface Written {
  readonly meta: BoltMeta;
  /** As in Committed: cached copies of these pages are outdated. */
  readonly writtenRuns: readonly number[];
  /** Free pages. */
  readonly freePages: number;
}

export interface CommitOptions {
  /** Store the free list in the file: it is being closed. */
  readonly writeFreeList?: boolean;
}

export interface StoreWriter {
  /** Resolves when the file is open for writing and its free pages are known. Rejects when that fails. */
  readonly opened: Promise<{ readonly freePages: number }>;
  /** Begins a batch, given the transaction ids of the states being read. */
  begin(readers: readonly number[]): void;
  /** Adds records; the memory passes to the writer. */
  add(records: Uint8Array<ArrayBuffer>): void;
  /** Ends the batch. Rejects when it, or anything before it, failed: this writer cannot use the file any more. */
  commit(options?: CommitOptions): Promise<Written>;
  /**
   * Copies the file to another one without its free pages, while batches continue. Resolves when little is missing;
   * later changes are followed until `finishRewrite`, which must not be called with an uncommitted batch. Only then is
   * the copy complete and durable, and takes the name `path`. Rejects, and leaves no copy, on failure; if that is the
   * failure of `finishRewrite`, `path` may already be the copy.
   */
  rewrite(target: string): Promise<void>;
  finishRewrite(path: string): Promise<void>;
  /** Aborts the copy. */
  abandonRewrite(): void;
  /** Closes the file, after the work in progress. */
  close(): Promise<void>;
}

/** The file's side of both kinds: one engine, one batch at a time. */
export class BatchEngine {
  readonly engine: BoltEngine;
  readonly #disk: Disk;
  readonly #buckets: readonly KnownBucket[];
  readonly #rewriteStepBytes: number;
  #transaction: WriteTransaction | undefined;
  #rewrite: Rewrite | undefined;
  #hasAllBuckets = false;

  /** A copy is made in steps of `rewriteStepBytes`; batches are held for the last. */
  constructor(
    disk: Disk,
    path: string,
    buckets: readonly KnownBucket[],
    rewriteStepBytes: number = REWRITE_STEP_BYTES,
  ) {
    const { file, meta } = openBoltFile(disk, path);
    this.#disk = disk;
    this.#buckets = buckets;
    this.#rewriteStepBytes = rewriteStepBytes;
    try {
      this.engine = new BoltEngine(file, meta);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  begin(readers: readonly number[]): void {
    const rewrite = this.#rewrite;
    const isCopying = rewrite !== undefined && !rewrite.isCopied;
    this.#transaction = this.engine.begin(isCopying ? [...readers, rewrite.txid] : readers);
    if (this.#hasAllBuckets) return;
    // Missing ones are created.
    for (const { name, sequential } of this.#buckets) this.#transaction.bucket(name, sequential);
    this.#hasAllBuckets = true;
  }

  add(records: Uint8Array): void {
    applyRecords(records, this.#buckets, this.#open());
    this.#rewrite?.note(records);
  }

  /** The transaction to commit; it is then over. */
  end(): WriteTransaction {
    const transaction = this.#open();
    this.#transaction = undefined;
    return transaction;
  }

  /** Only between two batches. */
  startRewrite(target: string): void {
    if (this.#transaction !== undefined || this.#rewrite !== undefined)
      throw new Error("a batch or a copy is in progress");
    this.#rewrite = new Rewrite(this.#disk, this.engine, target, this.#buckets, this.#rewriteStepBytes);
  }

  /** One step of the copy; false when only little is missing. */
  stepRewrite(): boolean {
    const rewrite = this.#rewrite;
    if (rewrite === undefined) return false;
    if (!rewrite.isCopied) rewrite.copy();
    else if (rewrite.behindBytes > this.#rewriteStepBytes) rewrite.catchUp();
    else return false;
    return true;
  }

  finishRewrite(path: string): void {
    if (this.#transaction !== undefined) throw new Error("a batch is in progress");
    this.#rewrite?.finish(path);
    this.#rewrite = undefined;
  }

  abandonRewrite(): void {
    this.#rewrite?.abandon();
    this.#rewrite = undefined;
  }

  #open(): WriteTransaction {
    if (this.#transaction === undefined) throw new Error("no batch has begun");
    return this.#transaction;
  }
}

/** Writes in the caller's thread; only syncs take time. */
export class InlineWriter implements StoreWriter {
  readonly opened: Promise<{ readonly freePages: number }>;
  readonly #batches: BatchEngine;
  #last: Promise<unknown> = Promise.resolve();
  #failure: Error | undefined;

  readonly #turn: () => Promise<void>;

  /** `turn` yields between steps of long work. Throws BoltError and node's errors. */
  constructor(
    disk: Disk,
    path: string,
    buckets: readonly KnownBucket[],
    turn: () => Promise<void>,
    rewriteStepBytes?: number,
  ) {
    this.#turn = turn;
    this.#batches = new BatchEngine(disk, path, buckets, rewriteStepBytes);
    this.opened = Promise.resolve({ freePages: this.#batches.engine.freePages });
  }

  begin(readers: readonly number[]): void {
    this.#attempt(() => this.#batches.begin(readers));
  }

  add(records: Uint8Array<ArrayBuffer>): void {
    this.#attempt(() => this.#batches.add(records));
  }

  commit(options: CommitOptions = {}): Promise<Written> {
    const done = this.#commit(options);
    this.#last = done.catch(() => {});
    return done;
  }

  async #commit(options: CommitOptions): Promise<Written> {
    if (this.#failure !== undefined) throw this.#failure;
    const { engine } = this.#batches;
    try {
      const { steps, committed } = this.#batches.end().prepare(options);
      await commitInTurns(engine.file, steps);
      engine.committed(committed);
      return { ...committed, freePages: engine.freePages };
    } catch (error) {
      this.#failure = error as Error;
      throw error;
    }
  }

  async rewrite(target: string): Promise<void> {
    await this.#last;
    try {
      this.#batches.startRewrite(target);
      while (this.#batches.stepRewrite()) await this.#turn();
    } catch (error) {
      this.#batches.abandonRewrite();
      throw error;
    }
  }

  async finishRewrite(path: string): Promise<void> {
    await this.#last;
    try {
      this.#batches.finishRewrite(path);
    } catch (error) {
      this.#batches.abandonRewrite();
      throw error;
    }
  }

  abandonRewrite(): void {
    this.#batches.abandonRewrite();
  }

  async close(): Promise<void> {
    await this.#last;
    this.#batches.engine.file.close();
  }

  /** An error here is reported at the end of the batch. */
  #attempt(action: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      action();
    } catch (error) {
      this.#failure = error as Error;
    }
  }
}
