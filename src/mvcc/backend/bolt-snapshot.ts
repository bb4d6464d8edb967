import type { StateReader } from "../../bolt/state-reader.ts";
import type { RevisionVisitor } from "../model/types.ts";
import { type BackendSnapshot, BUCKETS, type BucketName, type SnapshotEntry } from "./backend.ts";
import { closedError, toBackendError } from "./bolt-file.ts";
import { BoltRows } from "./bolt-rows.ts";

/** One state of the file, whose pages stay until it is closed. Each read runs within one turn. */
export class BoltSnapshot implements BackendSnapshot {
  readonly sizeBytes: number;
  readonly #path: string;
  readonly #state: StateReader;
  readonly #rows: BoltRows;
  readonly #onClose: () => void;
  #isClosed = false;

  constructor(path: string, state: StateReader, sizeBytes: number, onClose: () => void) {
    this.#path = path;
    this.#state = state;
    this.#rows = new BoltRows(state);
    this.sizeBytes = sizeBytes;
    this.#onClose = onClose;
  }

  buckets(): readonly BucketName[] {
    return BUCKETS;
  }

  forEachRevision(fromMain: number, fromSub: number, visit: RevisionVisitor): void {
    this.#checkOpen();
    this.#reading(() => this.#rows.forEach(fromMain, fromSub, Number.MAX_SAFE_INTEGER, 0, visit));
  }

  *entries(bucket: BucketName, chunkBytes = 1024 * 1024): IterableIterator<readonly SnapshotEntry[]> {
    let from: Buffer | undefined;
    for (;;) {
      this.#checkOpen();
      const chunk: SnapshotEntry[] = [];
      let size = 0;
      this.#reading(() =>
        this.#state.forEach(bucket, from, (key, value) => {
          chunk.push({ key: Buffer.from(key), value: Buffer.from(value) });
          size += key.length + value.length;
          return size < chunkBytes;
        }),
      );
      const last = chunk.at(-1);
      if (last === undefined) return;
      yield chunk;
      // The next possible key.
      from = Buffer.concat([last.key, NUL]);
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#onClose();
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closedError(this.#path);
  }

  #reading(read: () => void): void {
    try {
      read();
    } catch (error) {
      throw readError(error, this.#path);
    }
  }
}

/** Errors of a reader's visitor do not concern the file. */
export function readError(error: unknown, path: string): unknown {
  const { name, syscall } = error as { name?: string; syscall?: string };
  return name === "BoltError" || syscall === "read" ? toBackendError(error, path, "read") : error;
}

const NUL = Buffer.from([0]);
