import type { Clock, Timer } from "../../base/clock.ts";
import { exponentialBuckets, Histogram } from "../../base/histogram.ts";
import { othersTurn } from "../../base/others-turn.ts";
import { metaKeys } from "../backend/backend.ts";
import type { KeyIndex } from "../index/key-index.ts";
import { type RevisionInfo, revisionInfo } from "../index/packed-revision.ts";
import { mainOf, revisionBytes } from "../model/revision.ts";
import { RevisionSet } from "../model/revision-set.ts";
import type { StoreCore } from "./core.ts";
import { type KvHash, KvHasher } from "./hash.ts";
import { successorOf } from "./range-cursor.ts";

/**
 * The two phases of a compaction, both in slices: first the index drops unreadable revisions, then the backend's rows
 * are deleted in batches. After a crash in between, the next start completes it: the meta bucket records the scheduled
 * and the finished compaction. Source: etcd `server/storage/mvcc/kvstore_compaction.go`, `index.go`.
 */

/** What a compaction keeps. */
export interface Kept {
  /** Revisions at or below the compact revision that must stay in the backend, including tombstones exactly at it. */
  readonly revisions: RevisionSet;
  /** At least one of them is not a tombstone. */
  hasKeys: boolean;
}

/** Compacts the index. */
export async function compactIndex(index: KeyIndex, revision: number, clock: Clock): Promise<Kept> {
  const result: Kept = { revisions: new RevisionSet(), hasKeys: false };
  const kept = revisionInfo();
  index.beginCompaction();
  await inSlices(index, clock, (id, dead) => {
    if (!index.compact(id, revision, kept)) dead.push(id);
    else if (kept.main > 0) {
      result.revisions.add(kept.main, kept.sub);
      if (kept.version > 0) result.hasKeys = true;
    }
    return true;
  });
  while (index.tidy(SLICE_ENTRIES)) await othersTurn(clock);
  return result;
}

/**
 * The facts about live keys that a hash at `revision` needs: whether there are any, and their revisions at or below
 * `upTo`, where a compaction may be deleting rows.
 */
export async function liveAt(index: KeyIndex, revision: number, upTo: number, clock: Clock): Promise<Kept> {
  const result: Kept = { revisions: new RevisionSet(), hasKeys: false };
  const found: RevisionInfo = revisionInfo();
  await inSlices(index, clock, (id) => {
    if (!index.readAt(id, revision, found)) return true;
    result.hasKeys = true;
    if (found.main <= upTo) result.revisions.add(found.main, found.sub);
    return upTo > 0;
  });
  return result;
}

/** About a millisecond of work, and some more when all keys are removed or moved. */
const SLICE_ENTRIES = 2000;

/**
 * Visits all keys until the visitor returns false, yielding to the event loop between slices. Keys inserted meanwhile
 * may be missed. Removes those that the visitor adds to `dead`.
 */
async function inSlices(index: KeyIndex, clock: Clock, visit: (id: number, dead: number[]) => boolean): Promise<void> {
  let start: Uint8Array = Buffer.alloc(0);
  for (;;) {
    let visited = 0;
    let last = 0;
    let goesOn = true;
    const dead: number[] = [];
    index.visit(start, null, (id) => {
      goesOn = visit(id, dead);
      last = id;
      return goesOn && ++visited < SLICE_ENTRIES;
    });
    if (last !== 0) start = successorOf(index.locate(last));
    for (const id of dead) index.remove(id);
    if (!goesOn || visited < SLICE_ENTRIES) return;
    await othersTurn(clock);
  }
}

export interface CompactionSettings {
  readonly clock: Clock;
  /** Rows examined between two commits. */
  readonly batchLimit: number;
  /** After each batch. */
  readonly pause: CompactionPause;
}

/** Statistics of compactions since the start, for the metrics. Source: etcd `server/storage/mvcc/metrics.go`. */
export class CompactionStatistics {
  /** Milliseconds of one walk over the index. */
  readonly index = new Histogram(exponentialBuckets(0.5, 2, 14));
  /** Milliseconds of one turn of deleting rows, which blocks everything else. */
  readonly batch = new Histogram(exponentialBuckets(1, 2, 13));
  /** Milliseconds of deleting all rows of one compaction, including pauses. */
  readonly total = new Histogram(exponentialBuckets(100, 2, 14));
  deletedRows = 0;
  /** Unix time in seconds; 0 for none yet. */
  lastEndSeconds = 0;
}

/**
 * The pause between two batches. It may be configured to hours, and must not delay those who wait for a compaction to
 * end.
 */
export class CompactionPause {
  readonly #clock: Clock;
  readonly #sleepMs: number;
  #timer: Timer | undefined;
  #resume: (() => void) | undefined;

  constructor(clock: Clock, sleepMs: number) {
    this.#clock = clock;
    this.#sleepMs = sleepMs;
  }

  wait(): Promise<void> {
    return new Promise((resolve) => {
      this.#resume = resolve;
      this.#timer = this.#clock.after(this.#sleepMs, resolve);
    });
  }

  /** Ends the current pause, if any. */
  cutShort(): void {
    this.#timer?.cancel();
    this.#resume?.();
  }
}

/** Rows and bytes examined in one turn, regardless of the batch: about two milliseconds of work. */
const SLICE_ROWS = 1000;
const SLICE_BYTES = 512 * 1024;

/**
 * Deletes the rows up to `revision` that are not kept, and returns the hash that HashKV would have given before.
 * Returns null when `isStopped` became true in between.
 */
export async function compactRows(
  core: StoreCore,
  revision: number,
  previousRevision: number,
  { revisions: keep, hasKeys }: Kept,
  settings: CompactionSettings,
  statistics: CompactionStatistics,
  isStopped: () => boolean,
): Promise<{ hash: KvHash; deletedCount: number } | null> {
  const { backend } = core;
  const { clock, batchLimit, pause } = settings;
  // As in etcd: with nothing to keep, the hash covers what the previous compaction left. That one has ended.
  const hasher = new KvHasher(previousRevision, revision, keep.size > 0 ? keep : undefined, hasKeys);
  let deletedCount = 0;
  let fromMain = 0;
  let fromSub = 0;
  let leftOfBatch = batchLimit;
  for (;;) {
    const startMs = clock.nowMs();
    const sliceRows = Math.min(leftOfBatch, SLICE_ROWS);
    let seen = 0;
    let size = 0;
    const doomed: { main: number; sub: number; tombstone: boolean }[] = [];
    backend.forEachRevision(fromMain, fromSub, revision + 1, (main, sub, tombstone, bytes, start, end) => {
      if (!keep.has(main, sub)) doomed.push({ main, sub, tombstone });
      hasher.write(main, sub, tombstone, bytes, start, end);
      fromMain = main;
      fromSub = sub + 1;
      size += end - start;
      return ++seen < sliceRows && size < SLICE_BYTES;
    });
    for (const row of doomed) backend.deleteRevision(row.main, row.sub, row.tombstone);
    deletedCount += doomed.length;
    statistics.deletedRows += doomed.length;
    statistics.batch.observe(clock.nowMs() - startMs);
    if (seen < sliceRows && size < SLICE_BYTES) break;
    leftOfBatch -= seen;
    if (leftOfBatch > 0) {
      await othersTurn(clock);
      if (isStopped()) return null;
      continue;
    }
    leftOfBatch = batchLimit;
    await backend.commit();
    if (isStopped()) return null;
    await pause.wait();
    if (isStopped()) return null;
  }
  backend.put("meta", metaKeys.finishedCompact, revisionBytes(revision, 0));
  return { hash: hasher.finish(), deletedCount };
}

/** The compactions recorded in the meta bucket. Undefined for never. */
export function readCompactions(core: StoreCore): { scheduled: number | undefined; finished: number | undefined } {
  const read = (key: Uint8Array): number | undefined => {
    const value = core.backend.get("meta", key);
    return value === undefined ? undefined : mainOf(value);
  };
  return { scheduled: read(metaKeys.scheduledCompact), finished: read(metaKeys.finishedCompact) };
}
