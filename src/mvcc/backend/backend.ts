import type { MaybeFatal } from "../../base/fatal.ts";
import type { RevisionVisitor } from "../model/types.ts";

/**
 * The storage under mvcc/: a few sorted buckets of bytes, as etcd names them, with atomic batches.
 *
 * Writes take effect at once for reads and gather in a batch. Batches become durable one after the other, each
 * completely or not at all, in the background: after a crash the backend holds some prefix of the batches. The
 * pre-commit hook adds the consistent index to every batch, so the state and its index always agree.
 *
 * The key bucket is special because everything fast happens there: its keys are revisions, written in ascending order,
 * so it is addressed by number. Its logical keys are etcd's: 8 bytes main, '_', 8 bytes sub, and 't' for a tombstone.
 *
 * Implementations: backend/lmdb.ts for production, backend/memory.ts for simulation.
 */
export interface Backend {
  /** What `bucket` holds under `key`, in memory of its own; undefined when absent. Not for the key bucket. */
  get(bucket: SmallBucket, key: Uint8Array): Uint8Array | undefined;
  /** Keys must have 1 to KEY_LENGTH_MAX bytes. Both arguments are copied. */
  put(bucket: SmallBucket, key: Uint8Array, value: Uint8Array): void;
  delete(bucket: SmallBucket, key: Uint8Array): void;
  /** Visits ascending, the batch included. The visitor may not write. The arguments are in memory of their own. */
  forEach(bucket: SmallBucket, visit: (key: Uint8Array, value: Uint8Array) => void): void;

  /**
   * Appends to the key bucket; (main, sub) must be above all before. The encoded KeyValue `bytes[start .. end)` is not
   * copied: it must never be overwritten.
   */
  putRevision(main: number, sub: number, tombstone: boolean, bytes: Uint8Array, start: number, end: number): void;
  /** Reads what is not a tombstone into `out`; false when there is none. The bytes are valid until the next call. */
  getRevision(main: number, sub: number, out: RawSlot): boolean;
  deleteRevision(main: number, sub: number, tombstone: boolean): void;
  /** Visits (main, sub) from the first pair to, but without, `toMain`, the batch included. The visitor may not write. */
  forEachRevision(fromMain: number, fromSub: number, toMain: number, visit: RevisionVisitor): void;

  /**
   * Called before each batch is sealed; puts what must be in the same batch (the consistent index and term). It is never
   * called inside a write: only from `commit`, timers and completions, so what one turn of the event loop writes and
   * what the hook reports at its end are never apart. (A write of many turns says where it begins and ends.)
   */
  setPreCommitHook(hook: () => void): void;
  /** Seals the current batch; resolves when it and all before it are durable. Rejects with BackendError. */
  commit(): Promise<void>;
  /** True while more bytes wait for the disk than the limit: the caller must stop applying until `drained`. */
  readonly overloaded: boolean;
  /** Resolves when `overloaded` is false. */
  drained(): Promise<void>;

  /**
   * The rows of revision `main` are going to be written over many turns. Batches meanwhile may be sealed with a part of
   * them; a file that was left so says it in meta, and `dropUnfinished` makes it whole. `snapshot` waits for the end.
   */
  beginLongWrite(main: number): void;
  /** In the same turn in which the hook begins to report it. */
  endLongWrite(): void;
  /** False while what a long write adds would have to be handed over with more than one turn can take. */
  readonly hasRoom: boolean;
  /** Resolves when `hasRoom`. */
  roomLeft(): Promise<void>;

  /** Bytes that the file takes, free pages included: what the quota is about. */
  sizeBytes(): number;
  /** The same without free pages. */
  sizeInUseBytes(): number;
  /** Open snapshots. */
  openReadCount(): number;

  /**
   * A consistent view of all buckets as of the last change before the call. Commits first; a write transaction of many turns
   * is waited for. Close it.
   */
  snapshot(): Promise<BackendSnapshot>;
  /** Rewrites the file without its free pages while reads and writes go on. Rejects with BackendError. */
  defragment(): Promise<void>;
  /**
   * Gives the file another name, durably; what had it before, which nobody may have open any more, is gone. Throws
   * BackendError.
   */
  moveTo(path: string): void;
  /** Commits and lets go of the file. Idempotent. */
  close(): Promise<void>;
}

/** Where `getRevision` puts what it found: `bytes[start .. end)`. */
export interface RawSlot {
  bytes: Uint8Array;
  start: number;
  end: number;
}

/** A view that does not move while the store goes on. Keeping it open keeps free pages from being reused. */
export interface BackendSnapshot {
  /** Sum of the lengths of keys and values, for progress; an estimate. */
  readonly sizeBytes: number;
  /** All buckets that exist, ascending by name, empty ones too. */
  buckets(): readonly BucketName[];
  /** Visits rows of the key bucket from (fromMain, fromSub) on, as Backend.forEachRevision does, without copies. */
  forEachRevision(fromMain: number, fromSub: number, visit: RevisionVisitor): void;
  /**
   * Entries of one bucket, ascending, in chunks of about `chunkBytes`: pull one, give the event loop a turn, pull the
   * next. Keys and values are in memory of their own.
   */
  entries(bucket: BucketName, chunkBytes?: number): IterableIterator<readonly SnapshotEntry[]>;
  close(): void;
}

export interface SnapshotEntry {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** etcd's buckets, ascending by name, which is the order of its hash and of its file. */
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

/** Longest key of a small bucket, in bytes (user and role names are the only ones that a client chooses). */
export const KEY_LENGTH_MAX = 1978;

/** Keys of the bucket meta. */
export const metaKeys = {
  consistentIndex: Buffer.from("consistent_index"),
  term: Buffer.from("term"),
  confState: Buffer.from("confState"),
  storageVersion: Buffer.from("storageVersion"),
  scheduledCompact: Buffer.from("scheduledCompactRev"),
  finishedCompact: Buffer.from("finishedCompactRev"),
  /** Ours: the revision of a write transaction whose rows are not all there yet. Never in what others get. */
  unfinished: Buffer.from("kvorumUnfinishedRev"),
} as const;

export type BackendErrorCode =
  /** The file is not a database of ours, or is damaged. */
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

/** The message names the file and says what to do. After a failed commit the backend takes no more writes. */
export class BackendError extends Error implements MaybeFatal {
  override name = "BackendError";
  readonly code: BackendErrorCode;

  constructor(code: BackendErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  /** A damaged database must not be served from. A commit that fails is reported, and ends the member, by its own way. */
  get fatal(): boolean {
    return this.code === "ERR_BACKEND_CORRUPT";
  }
}
