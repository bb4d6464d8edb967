import type { Clock } from "../../src/base/clock.ts";
import {
  type Backend,
  BackendError,
  type BackendSnapshot,
  BUCKETS,
  type BucketName,
  KEY_LENGTH_MAX,
  type RawSlot,
  type SmallBucket,
  type SnapshotEntry,
  type SnapshotImage,
} from "../../src/mvcc/backend/backend.ts";
import { Batch } from "../../src/mvcc/backend/batch.ts";
import { LongWrite } from "../../src/mvcc/backend/long-write.ts";
import { RevisionRows } from "../../src/mvcc/backend/revision-rows.ts";
import { revisionBytes } from "../../src/mvcc/model/revision.ts";
import { type ByteString, fromByteString, type RevisionVisitor, toByteString } from "../../src/mvcc/model/types.ts";
import { memoryImage } from "./memory-image.ts";

/** The committed batches of a MemoryBackend, which survive a crash. Pass it to the next MemoryBackend. */
export class MemoryBackendFile {
  readonly state = new State();
}

/**
 * A backend without a disk, for tests of what lies above the backend: a file in memory with explicit commit points. A
 * write is visible at once and durable when its batch is committed, `commitDelayMs` after sealing; `crash` drops
 * everything else. Members and the simulator run on the real one, src/mvcc/backend/bolt-backend.ts;
 * test/mvcc/backend/backend.test.ts holds both to the same contract.
 */
export class MemoryBackend implements Backend {
  readonly #file: MemoryBackendFile;
  readonly #clock: Clock;
  readonly #batchIntervalMs: number;
  readonly #batchLimit: number;
  readonly #commitDelayMs: () => number;
  /** The visible state: the file plus all batches. */
  #visible: State;
  #batch = new Batch();
  #hook: () => void = () => {};
  #last: Promise<void> = Promise.resolve();
  #timerIsSet = false;
  /** Writes made by the running hook do not trigger another commit. */
  #sealing = false;
  readonly #longWrite = new LongWrite();
  readonly #snapshots = new Set<MemorySnapshot>();
  #closed = false;

  constructor(options: {
    clock: Clock;
    file?: MemoryBackendFile;
    batchIntervalMs?: number;
    batchLimit?: number;
    /** Duration of a commit; called for each. */
    commitDelayMs?: () => number;
  }) {
    this.#file = options.file ?? new MemoryBackendFile();
    this.#clock = options.clock;
    this.#batchIntervalMs = options.batchIntervalMs ?? 100;
    this.#batchLimit = options.batchLimit ?? 10000;
    this.#commitDelayMs = options.commitDelayMs ?? (() => 0);
    this.#visible = this.#file.state.copy();
  }

  moveTo(): void {
    this.#check();
  }

  /** Drops uncommitted data and closes. Returns the file for the next backend. */
  crash(): MemoryBackendFile {
    this.#closed = true;
    return this.#file;
  }

  get(bucket: SmallBucket, key: Uint8Array): Uint8Array | undefined {
    this.#check();
    return this.#visible.small(bucket).get(toByteString(key))?.slice();
  }

  put(bucket: SmallBucket, key: Uint8Array, value: Uint8Array): void {
    this.#check();
    if (key.length === 0 || key.length > KEY_LENGTH_MAX) {
      throw new BackendError("ERR_BACKEND_KEY_LENGTH", `a key of bucket ${bucket} has ${key.length} bytes`);
    }
    this.#batch.put(bucket, key, value);
    this.#visible.put(bucket, toByteString(key), Uint8Array.prototype.slice.call(value));
    this.#written();
  }

  delete(bucket: SmallBucket, key: Uint8Array): void {
    this.#check();
    this.#batch.delete(bucket, key);
    this.#visible.delete(bucket, toByteString(key));
    this.#written();
  }

  forEach(bucket: SmallBucket, visit: (key: Uint8Array, value: Uint8Array) => void): void {
    this.#check();
    for (const [key, value] of sortedEntries(this.#visible.small(bucket))) visit(fromByteString(key), value.slice());
  }

  putRevision(main: number, sub: number, tombstone: boolean, bytes: Uint8Array, start: number, end: number): void {
    this.#check();
    this.#batch.putRevision(main, sub, tombstone, bytes, start, end);
    this.#visible.rows.append(main, sub, tombstone, bytes, start, end);
    this.#written();
  }

  getRevision(main: number, sub: number, out: RawSlot): boolean {
    this.#check();
    return this.#visible.rows.find(main, sub, out);
  }

  deleteRevision(main: number, sub: number, tombstone: boolean): void {
    this.#check();
    this.#batch.deleteRevision(main, sub, tombstone);
    this.#visible.rows.delete(main, sub, tombstone);
    this.#written();
  }

  forEachRevision(fromMain: number, fromSub: number, toMain: number, visit: RevisionVisitor): void {
    this.#check();
    this.#visible.rows.forEach(fromMain, fromSub, toMain, visit);
  }

  setPreCommitHook(hook: () => void): void {
    this.#hook = hook;
  }

  async commit(): Promise<void> {
    this.#check();
    this.#sealing = true;
    this.#hook();
    this.#longWrite.seal((bucket, key, value) => this.put(bucket, key, value));
    this.#sealing = false;
    const batch = this.#batch;
    if (batch.isEmpty) return this.#last;
    this.#batch = new Batch();
    const before = this.#last;
    const delayMs = this.#commitDelayMs();
    const done = new Promise<void>((resolve) => {
      this.#clock.after(delayMs, () => {
        // A crash leaves the promise pending, as it leaves its caller.
        if (this.#closed) return;
        void before.then(() => {
          if (this.#closed) return;
          this.#file.state.apply(batch);
          resolve();
        });
      });
    });
    this.#last = done;
    return done;
  }

  get overloaded(): boolean {
    return false;
  }

  drained(): Promise<void> {
    return Promise.resolve();
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
    return true;
  }

  roomLeft(): Promise<void> {
    return Promise.resolve();
  }

  sizeBytes(): number {
    return this.#visible.sizeBytes();
  }

  sizeInUseBytes(): number {
    return this.#visible.sizeBytes();
  }

  openReadCount(): number {
    return this.#snapshots.size;
  }

  async snapshot(): Promise<BackendSnapshot> {
    while (this.#longWrite.isOpen) {
      if (this.#longWrite.isAbandoned) throw closedError();
      await this.#longWrite.whenEnded();
    }
    // The hook's index must be in the view: it says which log entries the view contains.
    const committed = this.commit();
    const state = this.#visible.copy();
    await committed;
    const snapshot = new MemorySnapshot(state, () => this.#snapshots.delete(snapshot));
    this.#snapshots.add(snapshot);
    return snapshot;
  }

  defragment(): Promise<void> {
    return this.commit();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.commit();
    this.#closed = true;
    this.#longWrite.abandon();
    for (const snapshot of this.#snapshots) snapshot.close();
  }

  #check(): void {
    if (this.#closed) throw closedError();
  }

  #written(): void {
    if (this.#sealing) return;
    const isFull = this.#batch.opCount === this.#batchLimit;
    if (this.#timerIsSet && !isFull) return;
    this.#timerIsSet = true;
    // Never immediately: the caller may be inside a write transaction.
    this.#clock.after(isFull ? 0 : this.#batchIntervalMs, () => {
      this.#timerIsSet = false;
      if (!this.#closed) void this.commit();
    });
  }
}

function closedError(): BackendError {
  return new BackendError("ERR_BACKEND_CLOSED", "the backend in memory is closed");
}

class MemorySnapshot implements BackendSnapshot {
  readonly sizeBytes: number;
  readonly #state: State;
  readonly #onClose: () => void;
  #isClosed = false;

  constructor(state: State, onClose: () => void) {
    this.#state = state;
    this.sizeBytes = state.sizeBytes();
    this.#onClose = onClose;
  }

  buckets(): readonly BucketName[] {
    return BUCKETS;
  }

  forEachRevision(fromMain: number, fromSub: number, visit: RevisionVisitor): void {
    this.#checkOpen();
    this.#state.rows.forEach(fromMain, fromSub, Number.POSITIVE_INFINITY, visit);
  }

  *entries(bucket: BucketName, chunkBytes = 1024 * 1024): IterableIterator<readonly SnapshotEntry[]> {
    this.#checkOpen();
    for (const chunk of this.#state.entries(bucket, chunkBytes)) {
      yield chunk;
      this.#checkOpen();
    }
  }

  image(): SnapshotImage {
    this.#checkOpen();
    return memoryImage(this);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#onClose();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closedError();
  }
}

class State {
  rows = new RevisionRows();
  readonly #small = new Map<SmallBucket, Map<ByteString, Uint8Array>>();
  #smallBytes = 0;

  put(bucket: SmallBucket, key: ByteString, value: Uint8Array): void {
    this.delete(bucket, key);
    this.small(bucket).set(key, value);
    this.#smallBytes += key.length + value.length;
  }

  delete(bucket: SmallBucket, key: ByteString): void {
    const old = this.small(bucket).get(key);
    if (old === undefined) return;
    this.small(bucket).delete(key);
    this.#smallBytes -= key.length + old.length;
  }

  small(bucket: SmallBucket): Map<ByteString, Uint8Array> {
    let entries = this.#small.get(bucket);
    if (entries === undefined) this.#small.set(bucket, (entries = new Map()));
    return entries;
  }

  apply(batch: Batch): void {
    for (const { main, sub, tombstone } of batch.deletedRows) this.rows.delete(main, sub, tombstone);
    batch.rows.forEach(0, 0, Number.POSITIVE_INFINITY, (...row) => {
      this.rows.append(...row);
      return true;
    });
    for (const [bucket, entries] of batch.smallBuckets) {
      for (const [key, value] of entries) {
        if (value === null) this.delete(bucket, key);
        else this.put(bucket, key, value);
      }
    }
  }

  copy(): State {
    const other = new State();
    this.rows.forEach(0, 0, Number.POSITIVE_INFINITY, (...row) => {
      other.rows.append(...row);
      return true;
    });
    for (const [bucket, entries] of this.#small) for (const [key, value] of entries) other.put(bucket, key, value);
    return other;
  }

  sizeBytes(): number {
    return this.rows.byteCount + this.#smallBytes;
  }

  *entries(bucket: BucketName, chunkBytes: number): IterableIterator<readonly SnapshotEntry[]> {
    let chunk: SnapshotEntry[] = [];
    let size = 0;
    for (const entry of this.#allEntries(bucket)) {
      chunk.push(entry);
      size += entry.key.length + entry.value.length;
      if (size >= chunkBytes) {
        yield chunk;
        chunk = [];
        size = 0;
      }
    }
    if (chunk.length > 0) yield chunk;
  }

  #allEntries(bucket: BucketName): SnapshotEntry[] {
    const all: SnapshotEntry[] = [];
    if (bucket !== "key") {
      for (const [key, value] of sortedEntries(this.small(bucket))) all.push({ key: fromByteString(key), value });
      return all;
    }
    this.rows.forEach(0, 0, Number.POSITIVE_INFINITY, (main, sub, tombstone, bytes, start, end) => {
      all.push({ key: revisionBytes(main, sub, tombstone), value: bytes.slice(start, end) });
      return true;
    });
    return all;
  }
}

function sortedEntries(entries: ReadonlyMap<ByteString, Uint8Array>): [ByteString, Uint8Array][] {
  return [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
}
