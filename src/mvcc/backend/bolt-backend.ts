import { dirname, resolve } from "node:path";
import type { Clock, Timer } from "../../base/clock.ts";
import { type Disk, systemDisk } from "../../base/disk.ts";
import { spentOn } from "../../base/doing.ts";
import { invariant } from "../../base/fatal.ts";
import { type FileLock, lockFile } from "../../base/file-locks.ts";
import type { Logger } from "../../base/log.ts";
import { type Waiter, waiter } from "../../base/waiter.ts";
import { ThreadWriter } from "../../bolt/thread-writer.ts";
import { fromByteString, type RevisionVisitor } from "../model/types.ts";
import {
  type Backend,
  BackendError,
  type BackendSnapshot,
  KEY_LENGTH_MAX,
  type RawSlot,
  type SmallBucket,
} from "./backend.ts";
import { Batch } from "./batch.ts";
import { batchRecords, knownBuckets } from "./batch-records.ts";
import { closedError, defragPathOf, removeLeftovers, toBackendError } from "./database-file.ts";
import { FileSnapshot, readError } from "./file-snapshot.ts";
import { forEachRow, getSmall, smallEntries } from "./layers.ts";
import { isMarked, isUnfinished, LongWrite } from "./long-write.ts";
import { type OpenBolt, OpenFile, takeLock } from "./open-file.ts";
import { type BoltBackendOptions, usualCacheBytes } from "./options.ts";

/**
 * The production backend: a bbolt file as stock etcd's, and the uncommitted writes in two batches: one being committed,
 * and one that collects new writes.
 *
 * A sealed batch goes to the writer in slices, one per turn. Reads are executed here, from cached pages and the file.
 */
export class BoltBackend implements Backend {
  #path: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #batchIntervalMs: number;
  readonly #batchLimit: number;
  readonly #pendingBytesMax: number;
  readonly #onFailure: (error: BackendError) => void;
  readonly #onCommit: ((milliseconds: number) => void) | undefined;
  readonly #disk: Disk;
  readonly #openOptions: Omit<OpenBolt, "path">;
  #file: OpenFile;
  #batch = new Batch();
  #committing: Batch | null = null;
  /** Settles when the batch under `#committing` is durable. */
  #commitDone: Promise<void> = Promise.resolve();
  /** A commit was asked for while another was running. */
  #queued: Promise<void> | null = null;
  #timer: Timer | null = null;
  #hook: () => void = () => {};
  #isSealing = false;
  /** A full batch will be committed after this turn. */
  #isDeferred = false;
  #failure: BackendError | null = null;
  #isClosed = false;
  #closing: Promise<void> | null = null;
  #defragmenting: Promise<void> | null = null;
  /** While set, no commit starts. */
  #writerHold: Promise<void> | null = null;
  readonly #longWrite = new LongWrite();
  readonly #snapshots = new Set<FileSnapshot>();
  #drained: Waiter<void> | null = null;
  #room: Waiter<void> | null = null;

  /**
   * Opens or creates the file. Throws BackendError: ERR_BACKEND_IN_USE, ERR_BACKEND_CORRUPT, ERR_BACKEND_NOT_WRITABLE,
   * ERR_BACKEND_NO_SPACE, ERR_BACKEND_IO. Damage detected later fails the affected read, or the next commit.
   */
  constructor(options: BoltBackendOptions) {
    this.#path = resolve(options.path);
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#batchIntervalMs = options.batchIntervalMs ?? 100;
    this.#batchLimit = options.batchLimit ?? 10_000;
    this.#pendingBytesMax = options.pendingBytesMax ?? 64 * 1024 * 1024;
    this.#onFailure = options.onFailure;
    this.#onCommit = options.onCommit;
    this.#disk = options.storage?.disk ?? systemDisk;
    this.#openOptions = {
      disk: this.#disk,
      cacheBytes: options.cacheBytes ?? usualCacheBytes(),
      lock: options.storage === undefined ? lockFile : undefined,
      writer: options.storage?.writer ?? ((path) => new ThreadWriter(path, knownBuckets)),
    };
    try {
      this.#file = this.#open();
    } catch (error) {
      throw toBackendError(error, this.path, "open");
    }
    this.#watchWriter();
  }

  #open(): OpenFile {
    // Leftovers belong to no other process: this one holds the lock.
    const file = new OpenFile({ ...this.#openOptions, path: this.#path });
    removeLeftovers(this.#disk, this.#path);
    return file;
  }

  /** A file with invalid pages accepts no writes: the member must not continue on it. */
  #watchWriter(): void {
    this.#file.writer.opened.catch((error: unknown) => {
      if (!this.#isClosed && this.#closing === null) this.#fail(error, "open");
    });
  }

  get path(): string {
    return this.#path;
  }

  /** Resolves when the file's free pages are known, so that its sizes are exact. Rejects with BackendError. */
  async ready(): Promise<void> {
    try {
      await this.#file.writer.opened;
    } catch (error) {
      throw toBackendError(error, this.path, "open");
    }
  }

  get(bucket: SmallBucket, key: Uint8Array): Uint8Array | undefined {
    return this.#reading(() => getSmall([this.#batch, this.#committing], this.#file.state, bucket, key));
  }

  put(bucket: SmallBucket, key: Uint8Array, value: Uint8Array): void {
    this.#checkWritable();
    if (key.length === 0 || key.length > KEY_LENGTH_MAX) {
      throw new BackendError(
        "ERR_BACKEND_KEY_LENGTH",
        `a key of bucket ${bucket} has ${key.length} bytes; 1 to ${KEY_LENGTH_MAX} are possible`,
      );
    }
    this.#batch.put(bucket, key, value);
    this.#written();
  }

  delete(bucket: SmallBucket, key: Uint8Array): void {
    this.#checkWritable();
    this.#batch.delete(bucket, key);
    this.#written();
  }

  forEach(bucket: SmallBucket, visit: (key: Uint8Array, value: Uint8Array) => void): void {
    const entries = this.#reading(() => smallEntries([this.#committing, this.#batch], this.#file.state, bucket));
    for (const [key, value] of entries) visit(fromByteString(key), value);
  }

  putRevision(main: number, sub: number, tombstone: boolean, bytes: Uint8Array, start: number, end: number): void {
    this.#checkWritable();
    this.#batch.putRevision(main, sub, tombstone, bytes, start, end);
    this.#written();
  }

  getRevision(main: number, sub: number, out: RawSlot): boolean {
    if (this.#batch.findRevision(main, sub, out)) return true;
    if (this.#committing?.findRevision(main, sub, out)) return true;
    this.#checkOpen();
    try {
      return this.#file.rows.get(main, sub, out);
    } catch (error) {
      throw readError(error, this.path);
    }
  }

  deleteRevision(main: number, sub: number, tombstone: boolean): void {
    this.#checkWritable();
    this.#batch.deleteRevision(main, sub, tombstone);
    this.#written();
  }

  forEachRevision(fromMain: number, fromSub: number, toMain: number, visit: RevisionVisitor): void {
    this.#reading(() => forEachRow(this.#batch, this.#committing, this.#file.rows, fromMain, fromSub, toMain, visit));
  }

  setPreCommitHook(hook: () => void): void {
    this.#hook = hook;
  }

  commit(): Promise<void> {
    if (this.#isClosed) return Promise.reject(closedError(this.path));
    if (this.#committing === null && this.#writerHold === null) return this.#startCommit();
    // One more commit after the running one serves all requests made meanwhile.
    return (this.#queued ??= this.#afterRunning());
  }

  async #afterRunning(): Promise<void> {
    await (this.#writerHold ?? this.#commitDone);
    while (this.#writerHold !== null || this.#committing !== null) await (this.#writerHold ?? this.#commitDone);
    this.#queued = null;
    await this.#startCommit();
  }

  #startCommit(): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    // Closed meanwhile: everything that the close found is durable.
    if (this.#isClosed) return this.#batch.isEmpty ? Promise.resolve() : Promise.reject(closedError(this.path));
    this.#timer?.cancel();
    this.#timer = null;
    this.#isSealing = true;
    try {
      this.#hook();
      this.#longWrite.seal((bucket, key, value) => this.put(bucket, key, value));
    } finally {
      this.#isSealing = false;
    }
    if (this.#batch.isEmpty) return Promise.resolve();
    const batch = this.#batch;
    this.#committing = batch;
    this.#batch = new Batch();
    this.#commitDone = this.#write(batch);
    return this.#commitDone;
  }

  async #write(batch: Batch): Promise<void> {
    const startMs = this.#clock.nowMs();
    const file = this.#file;
    try {
      file.writer.begin(file.readers);
      let turnMs = startMs;
      for (const records of batchRecords(batch)) {
        file.writer.add(records);
        spentOn("commit of the backend", this.#clock.nowMs() - turnMs);
        await new Promise<void>((resolve) => this.#clock.defer(resolve));
        turnMs = this.#clock.nowMs();
      }
      file.written(await file.writer.commit());
      this.#onCommit?.(this.#clock.nowMs() - startMs);
      this.#committing = null;
    } catch (error) {
      throw this.#fail(error, "commit");
    } finally {
      if (!this.#pendingIsOver() || this.#failure !== null) this.#settleDrained();
      this.#room?.resolve();
      this.#room = null;
    }
    if (this.#pendingIsOver() || this.#batch.opCount >= this.#batchLimit) this.#commitInBackground();
  }

  /** After this the process must stop: the failed batch stays readable, and no further one is accepted. */
  #fail(cause: unknown, action: "open" | "commit"): BackendError {
    const error = toBackendError(cause, this.path, action);
    if (this.#failure === null) {
      this.#failure = error;
      this.#onFailure(error);
    }
    return error;
  }

  #commitInBackground(): void {
    // The failure is reported once, through onFailure.
    if (this.#failure === null && !this.#isClosed) this.commit().catch(() => {});
  }

  /** Never commits at once: the caller may be in the middle of a write transaction. */
  #written(): void {
    if (this.#isSealing) return;
    if (this.#batch.opCount >= this.#batchLimit) {
      if (this.#isDeferred || this.#committing !== null || this.#writerHold !== null) return;
      this.#isDeferred = true;
      this.#clock.defer(() => {
        this.#isDeferred = false;
        this.#commitInBackground();
      });
    } else if (this.#timer === null) {
      this.#timer = this.#clock.after(this.#batchIntervalMs, () => {
        this.#timer = null;
        this.#commitInBackground();
      });
    }
  }

  #pendingIsOver(): boolean {
    const bytes = this.#batch.byteCount + (this.#committing?.byteCount ?? 0);
    return bytes > this.#pendingBytesMax || this.#batch.opCount > PENDING_OPS_MAX;
  }

  get overloaded(): boolean {
    return this.#pendingIsOver();
  }

  drained(): Promise<void> {
    if (!this.overloaded) return Promise.resolve();
    this.#commitInBackground();
    this.#drained ??= waiter();
    return this.#drained.promise;
  }

  beginLongWrite(main: number): void {
    this.#longWrite.begin(main);
  }

  endLongWrite(): void {
    this.#longWrite.end((bucket, key) => this.delete(bucket, key));
  }

  abandonLongWrite(): void {
    this.#longWrite.abandon();
  }

  get hasRoom(): boolean {
    return this.#batch.opCount < LONG_WRITE_OPS_MAX || (this.#committing === null && this.#writerHold === null);
  }

  roomLeft(): Promise<void> {
    if (this.hasRoom) return Promise.resolve();
    this.#room ??= waiter();
    return this.#room.promise;
  }

  #settleDrained(): void {
    this.#drained?.resolve();
    this.#drained = null;
  }

  sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  sizeInUseBytes(): number {
    return this.#file.inUseBytes;
  }

  openReadCount(): number {
    return this.#snapshots.size;
  }

  async snapshot(): Promise<BackendSnapshot> {
    for (;;) {
      while (this.#longWrite.isOpen) {
        if (this.#longWrite.isAbandoned) throw closedError(this.path);
        await this.#longWrite.whenEnded();
      }
      await this.commit();
      this.#checkOpen();
      const { file, state, release } = this.#file.pin();
      const snapshot = new FileSnapshot(this.path, file, state, this.sizeInUseBytes(), () => {
        this.#snapshots.delete(snapshot);
        release();
      });
      this.#snapshots.add(snapshot);
      if (!isUnfinished(snapshot)) return snapshot;
      await snapshot.close();
      // A long write has begun, and was committed in part, since the commit that was waited for.
      invariant(this.#longWrite.isOpen || !isMarked(this), "a start drops unfinished rows before it takes a view");
    }
  }

  defragment(): Promise<void> {
    return (this.#defragmenting ??= this.#defragment().finally(() => (this.#defragmenting = null)));
  }

  async #defragment(): Promise<void> {
    this.#checkWritable();
    if (this.#closing !== null) throw closedError(this.path);
    const sizeBefore = this.sizeBytes();
    const startMs = this.#clock.nowMs();
    try {
      await this.#rewriteInto(defragPathOf(this.path));
    } catch (error) {
      throw toBackendError(error, this.path, "copy");
    }
    this.#logger.info("finished defragmenting", {
      path: this.path,
      "current-db-size-bytes": this.sizeBytes(),
      "current-db-size-bytes-diff": this.sizeBytes() - sizeBefore,
      "took-ms": Math.round(this.#clock.nowMs() - startMs),
    });
  }

  /**
   * Copies to a new file, holds commits for the rest, and only then renames the new file: at any time the name refers
   * to a complete file with every batch reported as durable.
   */
  async #rewriteInto(temporary: string): Promise<void> {
    const old = this.#file;
    const oldIdentity = this.#disk.identityOf(this.path);
    await old.writer.opened;
    const startsHold = this.#holdCommits();
    await this.#idle();
    const copied = old.writer.rewrite(temporary);
    startsHold();
    await copied;
    if (this.#failure !== null || this.#closing !== null) {
      old.writer.abandonRewrite();
      throw this.#failure ?? closedError(this.path);
    }
    const release = this.#holdCommits();
    let lock: FileLock | undefined;
    try {
      await this.#idle();
      // Taken before the copy has its final name.
      lock = takeLock(this.#openOptions.lock, temporary);
      await old.writer.finishRewrite(this.path);
      this.#file = new OpenFile({ ...this.#openOptions, path: this.path, lock: lock && (() => lock!) });
      this.#watchWriter();
      await this.#file.writer.opened;
    } catch (error) {
      if (this.#file === old) lock?.release();
      // What is written to a file that has lost its name would be lost with the process.
      if (this.#identity() !== oldIdentity) throw this.#fail(error, "open");
      throw error;
    } finally {
      release();
      if (!this.#batch.isEmpty) this.#commitInBackground();
    }
    await old.retire();
  }

  /** Undefined if it cannot be known, as for a file that is gone. */
  #identity(): ReturnType<Disk["identityOf"]> | undefined {
    try {
      return this.#disk.identityOf(this.path);
    } catch {
      return undefined;
    }
  }

  /** No commit starts until the returned function is called. */
  #holdCommits(): () => void {
    const hold = waiter<void>();
    this.#writerHold = hold.promise;
    return () => {
      this.#writerHold = null;
      hold.resolve();
    };
  }

  async #idle(): Promise<void> {
    while (this.#committing !== null && this.#failure === null) await this.#commitDone.catch(() => {});
  }

  moveTo(path: string): void {
    const target = resolve(path);
    try {
      if (this.#disk.exists(target)) takeLock(this.#openOptions.lock, target)?.release();
      this.#disk.rename(this.#path, target);
      this.#disk.syncDir(dirname(target));
    } catch (error) {
      throw toBackendError(error, `${this.#path} to ${target}`, "move");
    }
    this.#path = target;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // It notices that the backend is closing.
    if (this.#defragmenting !== null) this.#file.writer.abandonRewrite();
    await this.#defragmenting?.catch(() => {});
    // Others ask for commits until the file is closed: those would never end, and one could run beside the free list's.
    const release = this.#holdCommits();
    try {
      await this.#idle();
      if (this.#failure === null) await this.#startCommit();
      if (this.#failure === null) await this.#keepFreeList();
    } finally {
      this.#isClosed = true;
      release();
      this.#longWrite.abandon();
      this.#timer?.cancel();
      await Promise.all([...this.#snapshots].map((snapshot) => snapshot.close()));
      await this.#file.retire();
    }
  }

  /** So that the next start need not search for free pages. */
  async #keepFreeList(): Promise<void> {
    if (this.#file.meta.freelistPage !== undefined) return;
    const { writer } = this.#file;
    writer.begin([]);
    this.#file.written(await writer.commit({ writeFreeList: true }));
  }

  #checkWritable(): void {
    if (this.#failure !== null) throw this.#failure;
    this.#checkOpen();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closedError(this.path);
  }

  #reading<T>(read: () => T): T {
    this.#checkOpen();
    try {
      return read();
    } catch (error) {
      throw readError(error, this.path);
    }
  }
}

/** What a long write lets gather while another batch is being committed. */
const LONG_WRITE_OPS_MAX = 20_000;
const PENDING_OPS_MAX = 200_000;
