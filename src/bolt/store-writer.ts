/**
 * Who writes the file: takes batches of records, one after the other, and answers each when it is durable.
 *
 * `StoreWriter` is what both kinds promise, `InlineWriter` does it in this thread over any disk, `ThreadWriter`
 * (thread-writer.ts) on a thread of its own over the real one. Either has the file for itself, save for readers of
 * committed states.
 */
import type { Disk } from "../base/disk.ts";
import { commitInTurns } from "./commit.ts";
import { BoltEngine, openBoltFile } from "./engine.ts";
import type { BoltMeta } from "./format.ts";
import { applyRecords, type KnownBucket } from "./records.ts";
import { Rewrite } from "./rewrite.ts";
import type { WriteTransaction } from "./transaction.ts";

/** A state that is durable. */
export interface Written {
  readonly meta: BoltMeta;
  /** As in Committed: what was kept of these pages is out of date. */
  readonly writtenRuns: readonly number[];
  /** Pages that hold nothing. */
  readonly freePages: number;
}

export interface CommitOptions {
  /** Keep the list of free pages in the file: it is being closed. */
  readonly writeFreeList?: boolean;
}

export interface StoreWriter {
  /** Resolves when the file is open for writing and its free pages are known. Rejects when that fails. */
  readonly opened: Promise<{ readonly freePages: number }>;
  /** Begins a batch, given the transaction ids of the states that are being read. */
  begin(readers: readonly number[]): void;
  /** Adds to it. The memory is the writer's from now on. */
  add(records: Uint8Array<ArrayBuffer>): void;
  /** Ends it. Rejects when it, or anything before it, failed: the file is then of no use to this writer. */
  commit(options?: CommitOptions): Promise<Written>;
  /**
   * Copies the file without its free pages into another one, while batches go on. Resolves when little is missing; what comes
   * then is kept up with until `finishRewrite`, before which no batch may be begun that is not committed. Only then is the
   * copy complete and durable. Rejects, and leaves no copy, when that fails.
   */
  rewrite(target: string): Promise<void>;
  finishRewrite(): Promise<void>;
  /** Gives the copy up. */
  abandonRewrite(): void;
  /** Lets go of the file, when what is under way is through. */
  close(): Promise<void>;
}

/** So much may be missing of a copy when batches are held back for the rest of it. */
const REST_BYTES = 1024 * 1024;

/** The file's side of either kind: one engine, one batch at a time. */
export class BatchEngine {
  readonly engine: BoltEngine;
  readonly #disk: Disk;
  readonly #buckets: readonly KnownBucket[];
  #transaction: WriteTransaction | undefined;
  #rewrite: Rewrite | undefined;
  #hasAllBuckets = false;

  constructor(disk: Disk, path: string, buckets: readonly KnownBucket[]) {
    const { file, meta } = openBoltFile(disk, path);
    this.#disk = disk;
    this.#buckets = buckets;
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
    // Those that are missing are made.
    for (const { name, sequential } of this.#buckets) this.#transaction.bucket(name, sequential);
    this.#hasAllBuckets = true;
  }

  add(records: Uint8Array): void {
    applyRecords(records, this.#buckets, this.#open());
    this.#rewrite?.note(records);
  }

  /** The transaction that is to be committed; it is over then. */
  end(): WriteTransaction {
    const transaction = this.#open();
    this.#transaction = undefined;
    return transaction;
  }

  /** Between two batches. */
  startRewrite(target: string): void {
    if (this.#transaction !== undefined || this.#rewrite !== undefined)
      throw new Error("a batch or a copy is under way");
    this.#rewrite = new Rewrite(this.#disk, this.engine, target, this.#buckets);
  }

  /** A step of the copy; false when only little is missing. */
  stepRewrite(): boolean {
    const rewrite = this.#rewrite;
    if (rewrite === undefined) return false;
    if (!rewrite.isCopied) rewrite.copy();
    else if (rewrite.behindBytes > REST_BYTES) rewrite.catchUp();
    else return false;
    return true;
  }

  finishRewrite(): void {
    if (this.#transaction !== undefined) throw new Error("a batch is under way");
    this.#rewrite?.finish();
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

/** Writes in the thread of its caller; only syncs take time. */
export class InlineWriter implements StoreWriter {
  readonly opened: Promise<{ readonly freePages: number }>;
  readonly #batches: BatchEngine;
  #last: Promise<unknown> = Promise.resolve();
  #failure: Error | undefined;

  readonly #turn: () => Promise<void>;

  /** `turn` lets others have their turns between steps of long work. Throws BoltError and node's errors. */
  constructor(disk: Disk, path: string, buckets: readonly KnownBucket[], turn: () => Promise<void>) {
    this.#turn = turn;
    this.#batches = new BatchEngine(disk, path, buckets);
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

  async finishRewrite(): Promise<void> {
    await this.#last;
    try {
      this.#batches.finishRewrite();
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

  /** What fails here is told when the batch ends. */
  #attempt(action: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      action();
    } catch (error) {
      this.#failure = error as Error;
    }
  }
}
