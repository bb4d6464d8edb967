import { KvorumError } from "../../base/errors.ts";
import type { MaybeFatal } from "../../base/fatal.ts";
import type { RevisionVisitor } from "../model/types.ts";

/**
 * The storage under mvcc/: a few sorted buckets of bytes, with etcd's names, and atomic batches.
 *
 * Writes are visible to reads at once and collected in a batch. Batches become durable in order, each completely or not
 * at all, in the background: after a crash the backend holds a prefix of the batches. The pre-commit hook adds the
 * consistent index to every batch, so the state and its index always agree.
 *
 * The key bucket is special because it must be fast: its keys are revisions, written in ascending order, so it is
 * addressed by number. Its logical keys are etcd's: 8 bytes main, '_', 8 bytes sub, and 't' for a tombstone.
 *
 * Implementations: bolt-backend.ts; for tests of what lies above also test/harness/memory-backend.ts.
 */
export interface Backend {
  /** The value of `key` in `bucket`, copied; undefined when absent. Not for the key bucket. */
  get(bucket: SmallBucket, key: Uint8Array): Uint8Array | undefined;
  /** Keys must have 1 to KEY_LENGTH_MAX bytes. Both arguments are copied. */
  put(bucket: SmallBucket, key: Uint8Array, value: Uint8Array): void;
  delete(bucket: SmallBucket, key: Uint8Array): void;
  /** Visits ascending, the batch included. The visitor must not write. The arguments are copies. */
  forEach(bucket: SmallBucket, visit: (key: Uint8Array, value: Uint8Array) => void): void;

  /**
   * Appends to the key bucket; (main, sub) must be above all earlier ones. The encoded KeyValue `bytes[start .. end)`
   * is not copied: it must never be overwritten.
   */
  putRevision(main: number, sub: number, tombstone: boolean, bytes: Uint8Array, start: number, end: number): void;
  /**
   * Reads a row that is not a tombstone into `out`; false when there is none. The bytes are valid until the next call.
   */
  getRevision(main: number, sub: number, out: RawSlot): boolean;
  deleteRevision(main: number, sub: number, tombstone: boolean): void;
  /**
   * Visits (main, sub) from the first pair up to, but excluding, `toMain`, the batch included. The visitor must not
   * write.
   */
  forEachRevision(fromMain: number, fromSub: number, toMain: number, visit: RevisionVisitor): void;

  /**
   * Called before each batch is sealed; adds what must be in the same batch (the consistent index and term). It is
   * never called inside a write, only from `commit`, timers and completions, so the writes of one event loop turn and
   * the index reported at its end are never separated. (A write of many turns marks its beginning and end.)
   */
  setPreCommitHook(hook: () => void): void;
  /** Seals the current batch; resolves when it and all before it are durable. Rejects with BackendError. */
  commit(): Promise<void>;
  /** True while more bytes wait for the disk than the limit: the caller must stop applying until `drained`. */
  readonly overloaded: boolean;
  /** Resolves once `overloaded` is false. */
  drained(): Promise<void>;

  /**
   * Starts writing the rows of revision `main` over many turns. Batches sealed meanwhile may contain part of them; a
   * file left in this state is marked in meta, and `dropUnfinished` repairs it. `snapshot` waits for the end.
   */
  beginLongWrite(main: number): void;
  /** Call it in the same turn in which the hook begins to report the write. */
  endLongWrite(): void;
  /**
   * The member stops: an open long write will not end, and calls of `snapshot` that wait for that reject with
   * ERR_BACKEND_CLOSED.
   */
  abandonLongWrite(): void;
  /** False while a long write has added more than one turn can hand over to the library. */
  readonly hasRoom: boolean;
  /** Resolves once `hasRoom` is true. */
  roomLeft(): Promise<void>;

  /** Size of the file, free pages included: the size that the quota limits. */
  sizeBytes(): number;
  /** The same without free pages. */
  sizeInUseBytes(): number;
  /** Open snapshots. */
  openReadCount(): number;

  /**
   * A consistent view of all buckets as of the last change before the call. Commits first, and waits for a write
   * transaction of many turns. Close it.
   */
  snapshot(): Promise<BackendSnapshot>;
  /** Rewrites the file without its free pages while reads and writes continue. Rejects with BackendError. */
  defragment(): Promise<void>;
  /** Renames the file, durably, replacing a file of that name, which must not be open any more. Throws BackendError. */
  moveTo(path: string): void;
  /** Commits and closes the file. Idempotent. */
  close(): Promise<void>;
}

/** Result of `getRevision`: `bytes[start .. end)`. */
export interface RawSlot {
  bytes: Uint8Array;
  start: number;
  end: number;
}

/** A view that does not change while the store continues. While it is open, free pages are not reused. */
export interface BackendSnapshot {
  /** Sum of the lengths of keys and values, for progress; an estimate. */
  readonly sizeBytes: number;
  /** All existing buckets, ascending by name, empty ones included. */
  buckets(): readonly BucketName[];
  /** Visits rows of the key bucket from (fromMain, fromSub) on, as Backend.forEachRevision does, without copies. */
  forEachRevision(fromMain: number, fromSub: number, visit: RevisionVisitor): void;
  /**
   * Entries of one bucket, ascending, in chunks of about `chunkBytes`: take one, yield to the event loop, take the
   * next. Keys and values are copies.
   */
  entries(bucket: BucketName, chunkBytes?: number): IterableIterator<readonly SnapshotEntry[]>;
  /** The whole view as a bbolt file. One reader at a time. */
  image(chunkBytes?: number): SnapshotImage;
  close(): void;
}

/** The bytes of a database file. */
export interface SnapshotImage {
  readonly sizeBytes: number;
  /** All bytes in order; a chunk belongs to the consumer. Rejects with BackendError. */
  chunks(): AsyncIterable<Uint8Array>;
}

export interface SnapshotEntry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** etcd's buckets, ascending by name: the order of its hash and of its file. */
export const BUCKETS = [
  "alarm",
  "auth",
  "authRoles",
  "authUsers",
  "cluster",
  "key",
  "lease",
  "members",
  "members_removed",
  "meta",
] as const;

export type BucketName = (typeof BUCKETS)[number];
export type SmallBucket = Exclude<BucketName, "key">;

/** Longest key of a bbolt file, in bytes. Of the small buckets' keys, clients choose only names of users and roles. */
export const KEY_LENGTH_MAX = 32_768;

/** Keys of the bucket meta. */
export const metaKeys = {
  consistentIndex: Buffer.from("consistent_index"),
  term: Buffer.from("term"),
  confState: Buffer.from("confState"),
  storageVersion: Buffer.from("storageVersion"),
  scheduledCompact: Buffer.from("scheduledCompactRev"),
  finishedCompact: Buffer.from("finishedCompactRev"),
  /** Ours: the revision of an incomplete write transaction. Never part of what others receive. */
  unfinished: Buffer.from("kvorumUnfinishedRev"),
} as const;

export type BackendErrorCode =
  /** The file is not one of our databases, or is damaged. */
  | "ERR_BACKEND_CORRUPT"
  /** Another process has it open. */
  | "ERR_BACKEND_IN_USE"
  /** No permission, or a read-only file system. */
  | "ERR_BACKEND_NOT_WRITABLE"
  /** The disk is full. */
  | "ERR_BACKEND_NO_SPACE"
  /** Any other failure of the disk or of the library. */
  | "ERR_BACKEND_IO"
  | "ERR_BACKEND_KEY_LENGTH"
  | "ERR_BACKEND_CLOSED";

/** The message names the file and says what to do. After a failed commit the backend accepts no more writes. */
export class BackendError extends KvorumError implements MaybeFatal {
  override name = "BackendError";
  readonly code: BackendErrorCode;

  constructor(code: BackendErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  /** A damaged database must not be served. A failed commit is reported, and ends the member, separately. */
  get fatal(): boolean {
    return this.code === "ERR_BACKEND_CORRUPT";
  }
}
