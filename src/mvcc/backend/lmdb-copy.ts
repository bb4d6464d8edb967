import { BUCKETS } from "./backend.ts";
import { Batch, type DeletedRow } from "./batch.ts";
import type { LmdbEnv } from "./lmdb-env.ts";

/**
 * Copies an LMDB file to another row by row, which packs its pages. (LMDB's own compacting copy only omits free pages,
 * and compaction of the key space mostly leaves pages half empty.)
 *
 * The rows are copied while the source is in use: first all of them, then repeatedly the new ones. Rows deleted
 * meanwhile are deleted from the copy at the end.
 */
export class LmdbCopy {
  readonly #target: LmdbEnv;
  /** Where the next pass begins. */
  #fromMain = 0;
  #fromSub = 0;

  constructor(target: LmdbEnv) {
    this.#target = target;
  }

  /** Copies the rows committed to the source since the last pass, yielding between slices. Returns their number. */
  async copyRows(source: LmdbEnv, isAborted: () => boolean): Promise<number> {
    const transaction = source.acquireTransaction();
    try {
      let count = 0;
      for (;;) {
        const slice = this.#readSlice(source, transaction);
        if (slice.rows.size === 0) return count;
        count += slice.rows.size;
        await this.#target.write(slice);
        if (isAborted()) throw new Error("the copy was aborted");
      }
    } finally {
      source.releaseTransaction(transaction);
    }
  }

  /** Copies the small buckets and deletes `deletedRows`. The source must not be committed to meanwhile. */
  async finish(source: LmdbEnv, deletedRows: readonly DeletedRow[]): Promise<void> {
    for (let i = 0; i < deletedRows.length; i += SLICE_ROWS) {
      const batch = new Batch();
      for (const { main, sub, tombstone } of deletedRows.slice(i, i + SLICE_ROWS)) {
        batch.deleteRevision(main, sub, tombstone);
      }
      await this.#target.write(batch);
    }
    let batch = new Batch();
    for (const bucket of BUCKETS) {
      if (bucket === "key") continue;
      for (const { key, value } of source.smallEntries(bucket)) {
        batch.put(bucket, key, value);
        if (batch.opCount < SLICE_ROWS) continue;
        // The source does not change, so its cursor may wait.
        await this.#target.write(batch);
        batch = new Batch();
      }
    }
    if (!batch.isEmpty) await this.#target.write(batch);
  }

  #readSlice(source: LmdbEnv, transaction: unknown): Batch {
    const batch = new Batch();
    let arena = Buffer.allocUnsafeSlow(SLICE_BYTES);
    let used = 0;
    const visit = (
      main: number,
      sub: number,
      tombstone: boolean,
      bytes: Uint8Array,
      from: number,
      to: number,
    ): boolean => {
      const size = to - from;
      if (size > arena.length - used) {
        arena = Buffer.allocUnsafeSlow(Math.max(size, SLICE_BYTES));
        used = 0;
      }
      arena.set(bytes.subarray(from, to), used);
      batch.putRevision(main, sub, tombstone, arena, used, used + size);
      used += size;
      this.#fromMain = main;
      this.#fromSub = sub + 1;
      return batch.opCount < SLICE_ROWS && batch.byteCount < SLICE_BYTES;
    };
    source.forEachRow(this.#fromMain, this.#fromSub, Number.MAX_SAFE_INTEGER, 0, visit, transaction);
    return batch;
  }
}

/** About 3 ms of work. */
const SLICE_ROWS = 1000;
const SLICE_BYTES = 512 * 1024;
