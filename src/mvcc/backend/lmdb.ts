import * as fs from "node:fs";
import { dirname, resolve } from "node:path";
import type { Clock, Timer } from "../../base/clock.ts";
import { spentOn } from "../../base/doing.ts";
import type { Logger } from "../../base/log.ts";
import { type ByteString, fromByteString, type RevisionVisitor, toByteString } from "../model/types.ts";
import {
  type Backend,
  BackendError,
  type BackendSnapshot,
  KEY_LENGTH_MAX,
  type RawSlot,
  type SmallBucket,
} from "./backend.ts";
import { Batch, type DeletedRow } from "./batch.ts";
import { LmdbCopy } from "./lmdb-copy.ts";
import { LmdbEnv, UnreadableError } from "./lmdb-env.ts";
import {
  acquireOwnership,
  checkFile,
  checkLockFile,
  closedError,
  corrupt,
  defragPathOf,
  markOwned,
  releaseOwnership,
  removeLeftovers,
  toBackendError,
} from "./lmdb-file.ts";
import { LmdbSnapshot } from "./lmdb-snapshot.ts";
import { isUnfinished, LongWrite } from "./long-write.ts";

export interface LmdbBackendOptions {
  /** The file. Its directory must exist; `<path>-lock` and `<path>-owner` are created beside it. */
  readonly path: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A batch is committed this long after its first write (`--backend-batch-interval`). Default 100. */
  readonly batchIntervalMs?: number;
  /**
   * A batch of this many operations is committed as soon as the previous one is (`--backend-batch-limit`). Default
   * 10000.
   */
  readonly batchLimit?: number;
  /** `overloaded` is true from this many non-durable bytes on. Default 64 MiB. */
  readonly pendingBytesMax?: number;
  /** Address space to reserve; the file may grow beyond it. Default 10 GiB. */
  readonly mapSizeBytes?: number;
  /** Called once when a background commit failed: the state in memory is then permanently ahead of the disk. */
  readonly onFailure: (error: BackendError) => void;
  /** Called with the duration of each commit. */
  readonly onCommit?: (milliseconds: number) => void;
}

/**
 * The production backend: one LMDB file, and the uncommitted writes in two batches: one being committed on the
 * library's thread, and one that collects new writes.
 */
export class LmdbBackend implements Backend {
  #path: string;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #batchIntervalMs: number;
  readonly #batchLimit: number;
  readonly #pendingBytesMax: number;
  readonly #mapSizeBytes: number;
  readonly #onFailure: (error: BackendError) => void;
  readonly #onCommit: ((milliseconds: number) => void) | undefined;
  #env: LmdbEnv;
  #batch = new Batch();
  #committing: Batch | null = null;
  /** Settles when the batch in `#committing` is durable. */
  #commitDone: Promise<void> = Promise.resolve();
  /** A commit was requested while another was running. */
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
  /** Rows whose deletion was committed during a defragmentation: the copy may have them. */
  #deletedDuringDefrag: DeletedRow[] | null = null;
  /** While set, no commit starts. */
  #writerHold: Promise<void> | null = null;
  readonly #longWrite = new LongWrite();
  readonly #snapshots = new Set<LmdbSnapshot>();
  #sizes: { totalBytes: number; inUseBytes: number };
  #drained: Waiting | null = null;
  #room: Waiting | null = null;

  /**
   * Opens or creates the file. Throws BackendError: ERR_BACKEND_IN_USE, ERR_BACKEND_CORRUPT, ERR_BACKEND_NOT_WRITABLE,
   * ERR_BACKEND_NO_SPACE, ERR_BACKEND_IO.
   */
  constructor(options: LmdbBackendOptions) {
    this.#path = resolve(options.path);
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#batchIntervalMs = options.batchIntervalMs ?? 100;
    this.#batchLimit = options.batchLimit ?? 10_000;
    this.#pendingBytesMax = options.pendingBytesMax ?? 64 * 1024 * 1024;
    this.#mapSizeBytes = options.mapSizeBytes ?? 10 * 1024 ** 3;
    this.#onFailure = options.onFailure;
    this.#onCommit = options.onCommit;
    acquireOwnership(this.path);
    try {
      removeLeftovers(this.path);
      checkFile(this.path);
      checkLockFile(this.path);
      this.#env = new LmdbEnv(this.path, this.#mapSizeBytes);
      this.#sizes = this.#env.sizes();
      markOwned(this.path);
    } catch (error) {
      releaseOwnership(this.path);
      throw toBackendError(error, this.path, "open");
    }
  }

  get path(): string {
    return this.#path;
  }

  get(bucket: SmallBucket, key: Uint8Array): Uint8Array | undefined {
    const name = toByteString(key);
    for (const batch of [this.#batch, this.#committing]) {
      const value = batch?.small(bucket)?.get(name);
      if (value !== undefined) return value === null ? undefined : value.slice();
    }
    return this.#reading(() => this.#env.get(bucket, key));
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
    const entries = new Map<ByteString, Uint8Array>();
    this.#reading(() => {
      for (const { key, value } of this.#env.smallEntries(bucket)) entries.set(toByteString(key), value);
    });
    let isSorted = true;
    for (const batch of [this.#committing, this.#batch]) {
      for (const [key, value] of batch?.small(bucket) ?? []) {
        if (value === null) entries.delete(key);
        else entries.set(key, value.slice());
        isSorted = false;
      }
    }
    const all = [...entries];
    if (!isSorted) all.sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [key, value] of all) visit(fromByteString(key), value);
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
      return this.#env.getRow(main, sub, out);
    } catch (error) {
      throw toBackendError(error, this.path, "read");
    }
  }

  deleteRevision(main: number, sub: number, tombstone: boolean): void {
    this.#checkWritable();
    this.#batch.deleteRevision(main, sub, tombstone);
    this.#written();
  }

  forEachRevision(fromMain: number, fromSub: number, toMain: number, visit: RevisionVisitor): void {
    const batch = this.#batch;
    const committing = this.#committing;
    const visitBelowBatch: RevisionVisitor = (main, sub, tombstone, bytes, start, end) =>
      batch.deletes(main, sub) || visit(main, sub, tombstone, bytes, start, end);
    const visitBelowBoth: RevisionVisitor =
      committing === null
        ? visitBelowBatch
        : (main, sub, tombstone, bytes, start, end) =>
            committing.deletes(main, sub) || visitBelowBatch(main, sub, tombstone, bytes, start, end);
    // A batch may become visible in the file shortly before it is dropped here: read from the file only what is older
    // than both batches.
    const pending = committing !== null && committing.rows.firstMain < Number.POSITIVE_INFINITY ? committing : batch;
    const { firstMain, firstSub } = pending.rows;
    const endsBefore = toMain <= firstMain;
    const stop = endsBefore ? { main: toMain, sub: 0 } : { main: firstMain, sub: firstSub };
    if (fromMain < stop.main || (fromMain === stop.main && fromSub < stop.sub)) {
      const goesOn = this.#reading(() => this.#env.forEachRow(fromMain, fromSub, stop.main, stop.sub, visitBelowBoth));
      if (!goesOn || endsBefore) return;
    }
    if (committing !== null && !committing.forEachRevision(fromMain, fromSub, toMain, visitBelowBatch)) return;
    batch.forEachRevision(fromMain, fromSub, toMain, visit);
  }

  setPreCommitHook(hook: () => void): void {
    this.#hook = hook;
  }

  commit(): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#isClosed) return Promise.reject(closedError(this.path));
    if (this.#committing === null && this.#writerHold === null) return this.#startCommit();
    // One more commit after the running one serves all requests made meanwhile.
    this.#queued ??= this.#afterRunning();
    return this.#queued;
  }

  async #afterRunning(): Promise<void> {
    await (this.#writerHold ?? this.#commitDone);
    while (this.#writerHold !== null || this.#committing !== null) await (this.#writerHold ?? this.#commitDone);
    this.#queued = null;
    await this.#startCommit();
  }

  #startCommit(): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
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
    try {
      const durable = this.#env.write(batch);
      spentOn("commit of the backend", this.#clock.nowMs() - startMs);
      await durable;
      this.#onCommit?.(this.#clock.nowMs() - startMs);
      this.#committing = null;
      if (this.#deletedDuringDefrag !== null) for (const row of batch.deletedRows) this.#deletedDuringDefrag.push(row);
      this.#sizes = this.#env.sizes();
    } catch (error) {
      throw this.#fail(await rootCause(error));
    } finally {
      if (!this.#pendingIsOver() || this.#failure !== null) this.#settleDrained();
      this.#room?.resolve();
      this.#room = null;
    }
    if (this.#pendingIsOver() || this.#batch.opCount >= this.#commitThreshold()) this.#commitInBackground();
  }

  /** After this the process must stop: the failed batch stays readable, and no further one is accepted. */
  #fail(cause: unknown): BackendError {
    const error = toBackendError(cause, this.path, "commit");
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

  /** Never commits immediately: the caller may be inside a write transaction. */
  #written(): void {
    if (this.#isSealing) return;
    if (this.#batch.opCount >= this.#commitThreshold()) {
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

  /**
   * Handing a batch to the library takes about 1.5 us per operation, in one turn: so hand over early when the library
   * is idle.
   */
  #commitThreshold(): number {
    return Math.min(this.#batchLimit, HAND_OVER_OPS);
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
    this.#drained ??= waiting();
    return this.#drained.promise;
  }

  beginLongWrite(main: number): void {
    this.#longWrite.begin(main);
  }

  endLongWrite(): void {
    this.#longWrite.end((bucket, key) => this.delete(bucket, key));
  }

  get hasRoom(): boolean {
    return this.#batch.opCount < HAND_OVER_OPS_MAX || (this.#committing === null && this.#writerHold === null);
  }

  roomLeft(): Promise<void> {
    if (this.hasRoom) return Promise.resolve();
    this.#room ??= waiting();
    return this.#room.promise;
  }

  #settleDrained(): void {
    this.#drained?.resolve();
    this.#drained = null;
  }

  sizeBytes(): number {
    return this.#sizes.totalBytes;
  }

  sizeInUseBytes(): number {
    return this.#sizes.inUseBytes;
  }

  openReadCount(): number {
    return this.#snapshots.size;
  }

  async snapshot(): Promise<BackendSnapshot> {
    for (;;) {
      while (this.#longWrite.isOpen && !this.#isClosed) await this.#longWrite.whenEnded();
      await this.commit();
      this.#checkOpen();
      const snapshot = new LmdbSnapshot(this.#env, this.#sizes.inUseBytes, () => this.#snapshots.delete(snapshot));
      this.#snapshots.add(snapshot);
      // A long write may have started, and been committed in part, since the awaited commit.
      if (!isUnfinished(snapshot)) return snapshot;
      snapshot.close();
    }
  }

  defragment(): Promise<void> {
    this.#defragmenting ??= this.#defragment().finally(() => {
      this.#defragmenting = null;
    });
    return this.#defragmenting;
  }

  async #defragment(): Promise<void> {
    const before = this.#sizes;
    const startMs = this.#clock.nowMs();
    const temporary = defragPathOf(this.path);
    this.#deletedDuringDefrag = [];
    try {
      await this.#rewriteInto(temporary);
    } catch (error) {
      fs.rmSync(temporary, { force: true });
      fs.rmSync(`${temporary}-lock`, { force: true });
      throw toBackendError(error, this.path, "copy");
    } finally {
      this.#deletedDuringDefrag = null;
    }
    this.#logger.info("finished defragmenting", {
      path: this.path,
      "current-db-size-bytes": this.#sizes.totalBytes,
      "current-db-size-bytes-diff": this.#sizes.totalBytes - before.totalBytes,
      "took-ms": Math.round(this.#clock.nowMs() - startMs),
    });
  }

  /**
   * Copies to a new file, catches up, holds commits for the rest, and only then renames the new file: at any time the
   * name refers to a complete file with every batch reported as durable.
   */
  async #rewriteInto(temporary: string): Promise<void> {
    const next = new LmdbEnv(temporary, this.#mapSizeBytes);
    let release = (): void => {};
    try {
      const copy = new LmdbCopy(next);
      const isAborted = (): boolean => this.#failure !== null || this.#closing !== null;
      for (let pass = 0; pass < DEFRAG_PASSES_MAX; pass++) {
        await this.commit();
        if ((await copy.copyRows(this.#env, isAborted)) < DEFRAG_REST_ROWS) break;
      }
      while (this.#committing !== null) await this.#commitDone;
      this.#writerHold = new Promise((resolve) => (release = resolve));
      await copy.copyRows(this.#env, isAborted);
      await copy.finish(this.#env, this.#deletedDuringDefrag!);
      fs.renameSync(temporary, this.path);
      fs.renameSync(`${temporary}-lock`, `${this.path}-lock`);
      syncDirectory(dirname(this.path));
      this.#env.retire();
      this.#env = next;
      this.#sizes = next.sizes();
    } finally {
      this.#writerHold = null;
      release();
      if (this.#env !== next) await next.close();
      if (!this.#batch.isEmpty) this.#commitInBackground();
    }
  }

  moveTo(path: string): void {
    const target = resolve(path);
    acquireOwnership(target);
    try {
      fs.renameSync(this.#path, target);
      fs.renameSync(`${this.#path}-lock`, `${target}-lock`);
      syncDirectory(dirname(target));
    } catch (error) {
      releaseOwnership(target);
      throw toBackendError(error, this.#path, "open");
    }
    markOwned(target);
    releaseOwnership(this.#path);
    this.#path = target;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      // It detects that the backend is closing.
      await this.#defragmenting?.catch(() => {});
      if (this.#failure === null) await this.commit();
    } finally {
      this.#isClosed = true;
      this.#longWrite.release();
      this.#timer?.cancel();
      // The library would crash on a cursor or a transaction that outlives the file.
      for (const snapshot of this.#snapshots) snapshot.close();
      await this.#env.close();
      releaseOwnership(this.path);
    }
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
      if (error instanceof UnreadableError) throw corrupt(this.path, error.message, error);
      if (error instanceof Error && /MDB_|LMDB|database/.test(error.message)) {
        throw toBackendError(error, this.path, "read");
      }
      throw error;
    }
  }
}

/** Passes over new rows before commits wait for the last one. */
const DEFRAG_PASSES_MAX = 10;
/** Maximum number of rows copied while commits wait. */
const DEFRAG_REST_ROWS = 5000;
const HAND_OVER_OPS = 2500;
/** Operations that a long write may collect while another batch is being committed. */
const HAND_OVER_OPS_MAX = 10_000;
/** Beyond 300,000 operations in a batch, the library makes the thread sleep for each further one. */
const PENDING_OPS_MAX = 200_000;

interface Waiting {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

function waiting(): Waiting {
  let resolve = (): void => {};
  const promise = new Promise<void>((r) => (resolve = r));
  return { promise, resolve };
}

/** The library wraps the reason of a failed commit in a rejecting promise. */
async function rootCause(error: unknown): Promise<unknown> {
  const inner = (error as { commitError?: Promise<never> } | null)?.commitError;
  return inner === undefined ? error : inner.catch((cause: unknown) => cause);
}

function syncDirectory(path: string): void {
  const fd = fs.openSync(path, "r");
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
