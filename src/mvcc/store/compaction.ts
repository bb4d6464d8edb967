import type { Clock, Timer } from "../../base/clock.ts";
import { exponentialBuckets, Histogram } from "../../base/histogram.ts";
import { othersTurn } from "../../base/others-turn.ts";
import { metaKeys } from "../backend/backend.ts";
import { type KeyEntry, type RevisionInfo, revisionInfo } from "../index/key-entry.ts";
import type { KeyIndex } from "../index/key-index.ts";
import { mainOf, revisionBytes } from "../model/revision.ts";
import { RevisionSet } from "../model/revision-set.ts";
import type { ByteString } from "../model/types.ts";
import type { StoreCore } from "./core.ts";
import { type KvHash, KvHasher } from "./hash.ts";

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
export function compactIndex(index: KeyIndex, revision: number, clock: Clock): Promise<Kept> {
  const result: Kept = { revisions: new RevisionSet(), hasKeys: false };
  const kept = revisionInfo();
  return inSlices(
    index,
    clock,
    (entry, dead) => {
      if (entry.compact(revision, kept)) {
        result.revisions.add(kept.main, kept.sub);
        if (kept.version > 0) result.hasKeys = true;
      }
      if (entry.main === 0) dead.push(entry);
      return true;
    },
    result,
  );
}

/**
 * The facts about live keys that a hash at `revision` needs: whether there are any, and their revisions at or below
 * `upTo`, where a compaction may be deleting rows.
 */
export function liveAt(index: KeyIndex, revision: number, upTo: number, clock: Clock): Promise<Kept> {
  const result: Kept = { revisions: new RevisionSet(), hasKeys: false };
  const found: RevisionInfo = revisionInfo();
  return inSlices(
    index,
    clock,
    (entry) => {
      if (!entry.readAt(revision, found)) return true;
      result.hasKeys = true;
      if (found.main <= upTo) result.revisions.add(found.main, found.sub);
      return upTo > 0;
    },
    result,
  );
}

/** About a millisecond of work, and two when all entries are removed. */
const SLICE_ENTRIES = 2000;

/**
 * Visits all entries until the visitor returns false, yielding to the event loop between slices. Entries inserted
 * meanwhile may be missed.
 */
async function inSlices<T>(
  index: KeyIndex,
  clock: Clock,
  visit: (entry: KeyEntry, dead: KeyEntry[]) => boolean,
  result: T,
): Promise<T> {
  let start: ByteString = "";
  for (;;) {
    let visited = 0;
    let last: ByteString | undefined;
    let goesOn = true;
    const dead: KeyEntry[] = [];
    index.visit(start, null, (entry) => {
      goesOn = visit(entry, dead);
      last = entry.key;
      return goesOn && ++visited < SLICE_ENTRIES;
    });
    for (const entry of dead) index.remove(entry);
    if (!goesOn || last === undefined || visited < SLICE_ENTRIES) return result;
    start = `${last}\0`;
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
