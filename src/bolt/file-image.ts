/**
 * The file of one state as a sequence of bytes, for a backup or for a member that is behind. The
 * pages are sent as they lie on the disk, free ones included, behind meta pages that name this state. Nothing is decoded.
 *
 * The state must stay pinned. Pages that are free in it may be rewritten meanwhile: nothing refers to them.
 */
import type { DiskFile } from "../base/disk.ts";
import { BoltError, type BoltMeta, writeMetaPage } from "./format.ts";

/** Bytes read at once; two such chunks are in memory, the next one while the last is being sent. */
const CHUNK_BYTES = 256 * 1024;

export class FileImage {
  readonly sizeBytes: number;
  readonly #file: DiskFile;
  readonly #meta: BoltMeta;
  readonly #chunkBytes: number;
  #reading: Promise<unknown> | undefined;

  constructor(file: DiskFile, meta: BoltMeta, chunkBytes: number = CHUNK_BYTES) {
    this.#chunkBytes = chunkBytes;
    this.#file = file;
    this.#meta = meta;
    this.sizeBytes = meta.pageCount * meta.pageSize;
  }

  /** All bytes in order; a chunk belongs to the consumer. Rejects with BoltError and node's errors. */
  async *chunks(): AsyncGenerator<Buffer, void, void> {
    const metas = metaPagesOf(this.#meta);
    let at = metas.length;
    let next = this.#read(at);
    yield metas;
    while (at < this.sizeBytes) {
      const chunk = await next;
      at += chunk.length;
      next = this.#read(at);
      yield chunk;
    }
  }

  /** While set, the file must stay open. */
  get reading(): Promise<unknown> | undefined {
    return this.#reading;
  }

  #read(at: number): Promise<Buffer> {
    const bytes = Math.min(this.#chunkBytes, this.sizeBytes - at);
    if (bytes <= 0) return NOTHING;
    const chunk = Buffer.allocUnsafeSlow(bytes);
    const reading = new Promise<Buffer>((resolve, reject) => {
      this.#file.readAsync(chunk, at, (error, count) => {
        if (error !== null) reject(error);
        else if (count < bytes) reject(cutShort(this.#file.path, Math.floor((at + count) / this.#meta.pageSize)));
        else resolve(chunk);
      });
    });
    const ended = (): void => {
      this.#reading = undefined;
    };
    // A consumer that stops early does not wait for it.
    this.#reading = reading.then(ended, ended);
    return reading;
  }
}

const NOTHING = Promise.resolve(Buffer.alloc(0));

function cutShort(path: string, page: number): BoltError {
  return new BoltError("damaged", path, page, "the file ends inside it");
}

/** Both metas name the state, so that it survives a torn write of either. */
function metaPagesOf(meta: BoltMeta): Buffer {
  const { pageSize, txid } = meta;
  const pages = Buffer.alloc(2 * pageSize);
  for (const id of [0, 1] as const) {
    writeMetaPage(pages, id * pageSize, id, txid % 2 === id ? meta : { ...meta, txid: Math.max(0, txid - 1) });
  }
  return pages;
}
