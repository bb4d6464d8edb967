import type { DiskFile } from "../../base/disk.ts";
import { FileImage } from "../../bolt/file-image.ts";
import type { StateReader } from "../../bolt/state-reader.ts";
import type { RevisionVisitor } from "../model/types.ts";
import { type BackendSnapshot, BUCKETS, type BucketName, type SnapshotEntry, type SnapshotImage } from "./backend.ts";
import { closedError, toBackendError } from "./database-file.ts";
import { FileRows } from "./file-rows.ts";

/** One state of the file, whose pages stay until it is closed. Each read runs within one turn. */
export class FileSnapshot implements BackendSnapshot {
  readonly sizeBytes: number;
  readonly #path: string;
  readonly #file: DiskFile;
  readonly #state: StateReader;
  readonly #rows: FileRows;
  readonly #onClose: () => void;
  #image: FileImage | undefined;
  #isClosed = false;
  #closed: Promise<void> = Promise.resolve();

  constructor(path: string, file: DiskFile, state: StateReader, sizeBytes: number, onClose: () => void) {
    this.#path = path;
    this.#file = file;
    this.#state = state;
    this.#rows = new FileRows(state);
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

  image(chunkBytes?: number): SnapshotImage {
    const image = (this.#image ??= new FileImage(this.#file, this.#state.meta, chunkBytes));
    return { sizeBytes: image.sizeBytes, chunks: () => this.#chunks(image) };
  }

  async *#chunks(image: FileImage): AsyncGenerator<Uint8Array, void, void> {
    try {
      for await (const chunk of image.chunks()) {
        this.#checkOpen();
        yield chunk;
        this.#checkOpen();
      }
    } catch (error) {
      throw readError(error, this.#path);
    }
  }

  /** Resolves when the state is released: it stays pinned until a read in progress is over. */
  close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      const reading = this.#image?.reading;
      if (reading === undefined) this.#onClose();
      else this.#closed = reading.then(() => this.#onClose());
    }
    return this.#closed;
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
