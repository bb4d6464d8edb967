import { type Database, open, type RootDatabase } from "lmdb";
import { KvorumError } from "../../base/errors.ts";
import { isTombstone, mainOf, subOf, writeRevision } from "../model/revision.ts";
import type { RevisionVisitor } from "../model/types.ts";
import { BUCKETS, type RawSlot, type SmallBucket, type SnapshotEntry } from "./backend.ts";
import type { Batch } from "./batch.ts";

/** The library failed because of the file's content. */
export class UnreadableError extends KvorumError {
  override name = "UnreadableError";
  readonly code = "ERR_LMDB_UNREADABLE";

  constructor(what: string, cause: unknown) {
    super(`${what} (${cause instanceof Error ? cause.message : cause})`, { cause });
  }
}

/**
 * One open LMDB file with etcd's buckets: the only place that uses the library. It reads committed data; batches over
 * it belong to backend/lmdb.ts. Errors are the library's.
 *
 * Uses LMDB's own commit: pages, sync, header, sync. (`overlappingSync` would save the second sync but is the library's
 * invention.) The library runs it on its own thread.
 */
export class LmdbEnv {
  readonly path: string;
  readonly #root: RootDatabase<Buffer, Buffer>;
  readonly #rows: RowDatabase;
  readonly #small = new Map<SmallBucket, Database<Buffer, Buffer>>();
  /** Snapshots that keep an env open after its replacement. */
  #useCount = 0;
  #closing: Promise<void> | null = null;
  #isRetired = false;

  constructor(path: string, mapSizeBytes: number) {
    this.path = path;
    this.#root = open<Buffer, Buffer>({
      path,
      noSubdir: true,
      encoding: "binary",
      compression: false,
      overlappingSync: false,
      noMemInit: true,
      mapSize: mapSizeBytes,
      maxDbs: BUCKETS.length + 2,
      permissionsMode: 0o600,
    } as Parameters<typeof open<Buffer, Buffer>>[0]);
    for (const bucket of BUCKETS) {
      if (bucket === "key") continue;
      this.#small.set(bucket, this.#root.openDB({ name: bucket, encoding: "binary", keyEncoding: "binary" }));
    }
    this.#rows = this.#root.openDB({
      name: "key",
      encoding: "raw",
      encoder: rowValueCodec,
      keyEncoder: rowKeyCodec,
    } as never) as unknown as RowDatabase;
  }

  get(bucket: SmallBucket, key: Uint8Array): Buffer | undefined {
    return this.#small.get(bucket)!.getBinary(key as Buffer);
  }

  *smallEntries(bucket: SmallBucket, transaction?: unknown): IterableIterator<SnapshotEntry> {
    const options = transaction === undefined ? {} : { transaction };
    for (const { key, value } of this.#small.get(bucket)!.getRange(options as never)) yield { key, value };
  }

  getRow(main: number, sub: number, out: RawSlot): boolean {
    rowKey.main = main;
    rowKey.sub = sub;
    rowKey.tombstone = false;
    const bytes = this.#rows.getBinaryFast(rowKey);
    if (bytes === undefined) return false;
    out.bytes = honest(bytes);
    out.start = 0;
    out.end = this.#rows.lastSize;
    return true;
  }

  /**
   * Visits from (fromMain, fromSub) up to, but excluding, (toMain, toSub), ascending, at the last commit or in a
   * transaction. False when the visitor stopped it.
   */
  forEachRow(
    fromMain: number,
    fromSub: number,
    toMain: number,
    toSub: number,
    visit: RevisionVisitor,
    transaction?: unknown,
  ): boolean {
    const start: RowKey = { main: fromMain, sub: fromSub, tombstone: false };
    const end: RowKey = { main: Math.min(toMain, Number.MAX_SAFE_INTEGER), sub: toSub, tombstone: false };
    const options = transaction === undefined ? { start, end } : { start, end, transaction };
    // The visitor's errors do not concern the file.
    let isVisiting = false;
    try {
      for (const { key } of this.#rows.getRange(options)) {
        isVisiting = true;
        if (!visit(key.main, key.sub, key.tombstone, rowValue.bytes, 0, rowValue.length)) return false;
        isVisiting = false;
      }
    } catch (error) {
      if (isVisiting) throw error;
      throw new UnreadableError(`the row behind revision ${readKey.main}_${readKey.sub} cannot be read`, error);
    }
    return true;
  }

  *rowEntries(transaction: unknown): IterableIterator<SnapshotEntry> {
    const start: RowKey = { main: 0, sub: 0, tombstone: false };
    for (const { key } of this.#rows.getRange({ start, transaction })) {
      const end = writeRevision(keyBytes, 0, key.main, key.sub, key.tombstone);
      yield {
        key: Buffer.from(keyBytes.subarray(0, end)),
        value: Buffer.from(rowValue.bytes.subarray(0, rowValue.length)),
      };
    }
  }

  /** Commits the batch; resolves when it is durable and visible to reads. */
  async write(batch: Batch): Promise<void> {
    await this.#root.batch(() => {
      for (const row of batch.deletedRows) void this.#rows.remove(row);
      batch.rows.forEach(0, 0, Number.POSITIVE_INFINITY, (main, sub, tombstone, bytes, start, end) => {
        rowKey.main = main;
        rowKey.sub = sub;
        rowKey.tombstone = tombstone;
        // The library takes a part of a buffer when it has these two properties, counted from the start of the
        // ArrayBuffer.
        const part = bytes as Uint8Array & { start?: number; end?: number };
        part.start = bytes.byteOffset + start;
        part.end = bytes.byteOffset + end;
        rowHolder["\x10binary-data\x02"] = bytes;
        void this.#rows.put(rowKey, rowHolder);
        return true;
      });
      for (const [bucket, entries] of batch.smallBuckets) {
        const database = this.#small.get(bucket)!;
        for (const [key, value] of entries) {
          const keyBuffer = Buffer.from(key, "latin1");
          if (value === null) void database.remove(keyBuffer);
          else void database.put(keyBuffer, value as Buffer);
        }
      }
    });
    this.#root.resetReadTxn();
  }

  /** Bytes of all pages up to the last, and of those in use. */
  sizes(): { totalBytes: number; inUseBytes: number } {
    let pages = 2;
    let info: LmdbStats | undefined;
    for (const database of [this.#rows, ...this.#small.values()]) {
      info = database.getStats() as LmdbStats;
      pages += info.treeBranchPageCount + info.treeLeafPageCount + info.overflowPages;
    }
    const { root, free, pageSize, lastPageNumber } = info!;
    for (const tree of [root, free]) pages += tree.treeBranchPageCount + tree.treeLeafPageCount + tree.overflowPages;
    const totalBytes = (lastPageNumber + 1) * pageSize;
    return { totalBytes, inUseBytes: Math.min(totalBytes, pages * pageSize) };
  }

  /** A read transaction at the last commit, which keeps the env open. Release it with `releaseTransaction`. */
  acquireTransaction(): unknown {
    this.#root.resetReadTxn();
    this.#useCount++;
    return this.#root.useReadTransaction();
  }

  releaseTransaction(transaction: unknown): void {
    (transaction as { done(): void }).done();
    this.#useCount--;
    if (this.#isRetired && this.#useCount === 0) void this.close();
  }

  /** Closes as soon as no snapshot needs it. */
  retire(): void {
    this.#isRetired = true;
    if (this.#useCount === 0) void this.close();
  }

  close(): Promise<void> {
    this.#closing ??= this.#root.close();
    return this.#closing;
  }
}

interface TreeStats {
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

interface LmdbStats extends TreeStats {
  readonly root: TreeStats;
  readonly free: TreeStats;
  readonly pageSize: number;
  readonly lastPageNumber: number;
}

/** The methods used of the row database, with the codecs below. */
interface RowDatabase {
  readonly lastSize: number;
  getBinaryFast(key: RowKey): Buffer | undefined;
  getRange(options: { start: RowKey; end?: RowKey; transaction?: unknown }): Iterable<{ key: RowKey }>;
  put(key: RowKey, value: object): Promise<boolean>;
  remove(key: RowKey): Promise<boolean>;
  getStats(): object;
}

// Everything below is reused for every row: keys and values pass without allocating objects.

interface RowKey {
  main: number;
  sub: number;
  tombstone: boolean;
}

const rowKey: RowKey = { main: 0, sub: 0, tombstone: false };
const readKey: RowKey = { main: 0, sub: 0, tombstone: false };
const rowHolder: Record<string, Uint8Array> = { "\x10binary-data\x02": Buffer.alloc(0) };
/** The last value decoded by the codec. */
const rowValue: { bytes: Uint8Array; length: number } = { bytes: Buffer.alloc(0), length: 0 };
const keyBytes = Buffer.alloc(18);

/**
 * The library returns values in one buffer that it reuses and whose `length` it overwrites with the value's, which
 * confuses parts of Node. This returns the same memory as a buffer of the correct length.
 */
function honest(bytes: Uint8Array): Uint8Array {
  if (bytes !== libraryBuffer) {
    libraryBuffer = bytes;
    const { maxLength } = bytes as Uint8Array & { maxLength?: number };
    honestBuffer = Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, maxLength ?? bytes.length);
  }
  return honestBuffer;
}

let libraryBuffer: Uint8Array | null = null;
let honestBuffer: Buffer = Buffer.alloc(0);

const rowKeyCodec = {
  writeKey: (key: RowKey, target: Uint8Array, start: number): number =>
    writeRevision(target, start, key.main, key.sub, key.tombstone),
  readKey(source: Uint8Array, start: number, end: number): RowKey {
    readKey.main = mainOf(source, start, end);
    readKey.sub = subOf(source, start);
    readKey.tombstone = isTombstone(source, start, end);
    return readKey;
  },
};

const rowValueCodec = {
  encode: (value: unknown): unknown => value,
  decode(bytes: Uint8Array, length: number): typeof rowValue {
    rowValue.bytes = honest(bytes);
    rowValue.length = length;
    return rowValue;
  },
};
