import type { RevisionVisitor } from "../model/types.ts";
import { type BackendSnapshot, BUCKETS, type BucketName, type SnapshotEntry, type SnapshotImage } from "./backend.ts";
import type { LmdbEnv } from "./lmdb-env.ts";
import { closedError } from "./lmdb-file.ts";
import { memoryImage } from "./memory-image.ts";

/**
 * A read transaction on one LMDB file that lasts as long as its reader needs. Closing it ends unfinished iterations:
 * their cursors must not outlive the transaction.
 */
export class LmdbSnapshot implements BackendSnapshot {
  readonly sizeBytes: number;
  readonly #env: LmdbEnv;
  readonly #onClose: () => void;
  readonly #transaction: unknown;
  readonly #iterations = new Set<Iterator<unknown>>();
  #isClosed = false;

  constructor(env: LmdbEnv, sizeBytes: number, onClose: () => void) {
    this.#env = env;
    this.sizeBytes = sizeBytes;
    this.#onClose = onClose;
    this.#transaction = env.acquireTransaction();
  }

  buckets(): readonly BucketName[] {
    return BUCKETS;
  }

  forEachRevision(fromMain: number, fromSub: number, visit: RevisionVisitor): void {
    this.#checkOpen();
    this.#env.forEachRow(fromMain, fromSub, Number.MAX_SAFE_INTEGER, 0, visit, this.#transaction);
  }

  *entries(bucket: BucketName, chunkBytes = 1024 * 1024): IterableIterator<readonly SnapshotEntry[]> {
    this.#checkOpen();
    const iteration =
      bucket === "key" ? this.#env.rowEntries(this.#transaction) : this.#env.smallEntries(bucket, this.#transaction);
    this.#iterations.add(iteration);
    try {
      let chunk: SnapshotEntry[] = [];
      let size = 0;
      for (const entry of iteration) {
        chunk.push(entry);
        size += entry.key.length + entry.value.length;
        if (size < chunkBytes) continue;
        yield chunk;
        this.#checkOpen();
        chunk = [];
        size = 0;
      }
      if (chunk.length > 0) yield chunk;
    } finally {
      this.#iterations.delete(iteration);
    }
  }

  image(): SnapshotImage {
    this.#checkOpen();
    return memoryImage(this);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const iteration of this.#iterations) iteration.return?.();
    this.#env.releaseTransaction(this.#transaction);
    this.#onClose();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closedError(this.#env.path);
  }
}
