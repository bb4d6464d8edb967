/**
 * Writes bbolt files: complete, valid, compact databases from buckets with ordered entries.
 *
 * Two ways. `measureBolt` reads the input once and computes the layout; `boltChunks` reads it again and yields the file
 * from its first byte to its last, so that it can be sent without being stored. `writeBoltFile` reads the input once
 * and writes a file, the meta pages last. Neither holds more than a page for each level of the tree.
 *
 * The file has no free pages, an empty freelist at page 2, and every bucket's sequence at 0. A small bucket lies within the
 * page of buckets, as bbolt has it.
 */
import { dirname } from "node:path";
import type { Disk, DiskFile } from "../base/disk.ts";
import {
  type BoltEntry,
  type BoltMeta,
  BUCKET_ELEMENT,
  BUCKET_HEADER_BYTES,
  FREELIST_PAGE,
  PAGE_SIZE,
  writeMetaPage,
  writePageHeader,
  writeUint64,
} from "./format.ts";
import { BoltInputError, type PageOutput, TreeWriter } from "./tree-writer.ts";

export { BoltInputError } from "./tree-writer.ts";

/** One bucket to write. Names, and keys within a bucket, come in strictly ascending byte order. */
export interface BoltBucketSource {
  readonly name: Uint8Array;
  /** The entries; called once per pass. Buffers of an entry may be reused for the next. */
  entries(): Iterable<BoltEntry>;
}

/** The result of a pass over the input. */
export interface BoltLayout {
  readonly rootPage: number;
  readonly pageCount: number;
  /** Length of the file. */
  readonly sizeBytes: number;
}

/** Bytes of a chunk, except when a single entry is larger. */
const CHUNK_BYTES = 256 * 1024;
const FREELIST_PAGE_ID = 2;
/** The largest bucket, as a page, that lies within the page of buckets. Source: bbolt's maxInlineBucketSize. */
const INLINE_BYTES_MAX = PAGE_SIZE / 4;
/** Even, so it belongs to meta page 0; the other meta carries the previous id. */
const TXID = 2;

/** Reads the input once and computes the file's layout. Throws BoltInputError. */
export function measureBolt(buckets: Iterable<BoltBucketSource>): BoltLayout {
  const stream = new BoltStream(false);
  for (const _ of addAll(stream, buckets));
  return stream.finish();
}

/**
 * Yields the bytes of the file that `layout` describes. The consumer may keep the chunks. Throws BoltInputError, also
 * when the input differs from what was measured.
 */
export function* boltChunks(buckets: Iterable<BoltBucketSource>, layout: BoltLayout): Generator<Buffer, void, void> {
  yield metaPages(layout);
  const stream = new BoltStream(true);
  yield* addAll(stream, buckets);
  stream.finish(layout);
  yield* stream.take();
}

/**
 * The same for input that arrives row by row: everything after the meta pages, or only its layout. Keys and values may
 * be in memory that is reused.
 */
export class BoltStream {
  readonly #pages: ChunkedPages;
  readonly #root: TreeWriter;
  #name: Uint8Array = EMPTY;
  #tree: TreeWriter | undefined;

  /** Without data it only measures. */
  constructor(keepsData: boolean) {
    this.#pages = new ChunkedPages(keepsData);
    this.#pages.writeFreelist();
    this.#root = new TreeWriter(this.#pages, true);
  }

  /** Ends the previous bucket, if any, and begins the next. */
  startBucket(name: Uint8Array): void {
    this.#endBucket();
    this.#name = name;
    this.#tree = new TreeWriter(this.#pages, this.#pages.keepsData);
  }

  /** Adds an entry with the value `bytes[start .. end)` to the bucket. Throws BoltInputError. */
  add(key: Uint8Array, bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.#tree!.add(key, bytes, start, end);
  }

  /** Complete chunks that were not taken yet. */
  take(): readonly Buffer[] {
    return this.#pages.full();
  }

  /**
   * Ends the last bucket and the file. `take` then returns the rest. Throws BoltInputError when the file differs from
   * the measured one.
   */
  finish(measured?: BoltLayout): BoltLayout {
    this.#endBucket();
    this.#pages.rootPage = this.#root.finish();
    this.#pages.retire();
    const layout = this.#pages.layout();
    if (measured !== undefined && (layout.rootPage !== measured.rootPage || layout.pageCount !== measured.pageCount)) {
      throw new BoltInputError(
        `the entries changed between measuring (${measured.pageCount} pages) and writing (${layout.pageCount} pages): ` +
          "both passes must read the same snapshot",
      );
    }
    return layout;
  }

  #endBucket(): void {
    if (this.#tree === undefined) return;
    const header = Buffer.alloc(BUCKET_HEADER_BYTES);
    const inline = this.#tree.inline(INLINE_BYTES_MAX);
    if (inline === undefined) writeUint64(header, 0, this.#tree.finish());
    const value = inline === undefined ? header : Buffer.concat([header, inline]);
    this.#root.add(this.#name, value, 0, value.length, BUCKET_ELEMENT);
    this.#tree = undefined;
  }
}

/** Adds all buckets, yielding chunks as they fill. */
function* addAll(stream: BoltStream, buckets: Iterable<BoltBucketSource>): Generator<Buffer, void, void> {
  for (const bucket of buckets) {
    stream.startBucket(bucket.name);
    for (const { key, value } of bucket.entries()) {
      stream.add(key, value);
      yield* stream.take();
    }
  }
}

export interface WriteBoltFileOptions {
  readonly disk: Disk;
  /** Absolute path; an existing file is replaced, only by a complete one. */
  readonly path: string;
  readonly buckets: Iterable<BoltBucketSource>;
  /** Permissions of the file; 0o600 when absent. */
  readonly mode?: number;
}

/** Writes a bbolt file durably, under a temporary name until it is complete. Throws BoltInputError and node's errors. */
export function writeBoltFile({ disk, path, buckets, mode = 0o600 }: WriteBoltFileOptions): BoltLayout {
  const temporary = `${path}.part`;
  let file: DiskFile | undefined = disk.open(temporary, "w", mode);
  try {
    const stream = new BoltStream(true);
    let at = 2 * PAGE_SIZE;
    const write = (chunk: Buffer): void => {
      file!.write(chunk, at);
      at += chunk.length;
    };
    for (const chunk of addAll(stream, buckets)) write(chunk);
    const layout = stream.finish();
    for (const chunk of stream.take()) write(chunk);
    file.write(metaPages(layout), 0);
    file.dataSync();
    file.close();
    file = undefined;
    disk.rename(temporary, path);
    disk.syncDir(dirname(path));
    return layout;
  } catch (error) {
    file?.close();
    if (disk.exists(temporary)) disk.remove(temporary);
    throw error;
  }
}

/** The two meta pages at the beginning of the file. */
export function metaPages(layout: BoltLayout): Buffer {
  const out = Buffer.alloc(2 * PAGE_SIZE);
  const meta: BoltMeta = {
    pageSize: PAGE_SIZE,
    rootPage: layout.rootPage,
    freelistPage: FREELIST_PAGE_ID,
    pageCount: layout.pageCount,
    txid: TXID,
  };
  writeMetaPage(out, 0, 0, meta);
  writeMetaPage(out, PAGE_SIZE, 1, { ...meta, txid: TXID - 1 });
  return out;
}

const NONE: readonly Buffer[] = [];
const EMPTY = Buffer.alloc(0);

/** Numbers pages and collects them into chunks. */
class ChunkedPages implements PageOutput {
  readonly keepsData: boolean;
  target: { readonly buffer: Buffer; readonly at: number } | undefined;
  rootPage = 0;
  #nextId = FREELIST_PAGE_ID;
  #full: Buffer[] = [];
  #chunk: Buffer | undefined;
  #used = 0;

  constructor(keepsData: boolean) {
    this.keepsData = keepsData;
  }

  layout(): BoltLayout {
    return { rootPage: this.rootPage, pageCount: this.#nextId, sizeBytes: this.#nextId * PAGE_SIZE };
  }

  allocate(pages: number): number {
    const id = this.#nextId;
    this.#nextId += pages;
    if (!this.keepsData) return id;
    const bytes = pages * PAGE_SIZE;
    if (this.#chunk === undefined || this.#used + bytes > this.#chunk.length) {
      this.retire();
      this.#chunk = Buffer.alloc(Math.max(bytes, CHUNK_BYTES));
    }
    this.target = { buffer: this.#chunk, at: this.#used };
    this.#used += bytes;
    return id;
  }

  writeFreelist(): void {
    const id = this.allocate(1);
    if (this.target) writePageHeader(this.target.buffer, this.target.at, id, FREELIST_PAGE, 0, 0);
  }

  /** The complete chunks. */
  full(): readonly Buffer[] {
    if (this.#full.length === 0) return NONE;
    const full = this.#full;
    this.#full = [];
    return full;
  }

  /** Completes the current chunk. */
  retire(): void {
    if (this.#chunk !== undefined && this.#used > 0) this.#full.push(this.#chunk.subarray(0, this.#used));
    this.#chunk = undefined;
    this.#used = 0;
  }
}
