import type { Clock, Timer } from "../base/clock.ts";
import { exponentialBuckets, Histogram } from "../base/histogram.ts";
import { metaKeys } from "./backend.ts";
import { type KvHash, KvHasher, nextTurn } from "./hash.ts";
import { type KeyEntry, type RevisionInfo, revisionInfo } from "./key-entry.ts";
import type { KeyIndex } from "./key-index.ts";
import { mainOf, revisionBytes } from "./revision.ts";
import { RevisionSet } from "./revision-set.ts";
import type { StoreCore } from "./store-core.ts";
import type { ByteString } from "./types.ts";

/**
 * The two phases of a compaction, both in slices: the index forgets what nobody can read any more, then the backend's
 * rows are deleted in batches. A crash in between is repaired at the next start: the meta bucket says what was scheduled
 * and what was finished.
 * Source: etcd `server/storage/mvcc/kvstore_compaction.go`, `index.go`.
 */

/** What a compaction leaves. */
export interface Kept {
  /** Revisions at or below that of the compaction that must stay in the backend, with tombstones at that very one. */
  readonly revisions: RevisionSet;
  /** Some of them are no tombstones. */
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
    },
    result,
  );
}

/** The revisions at or below `revision` that a compaction there would leave, but no tombstone: what a hash counts. */
export function revisionsToKeep(index: KeyIndex, revision: number, clock: Clock): Promise<RevisionSet> {
  const keep = new RevisionSet();
  const found: RevisionInfo = revisionInfo();
  return inSlices(
    index,
    clock,
    (entry) => {
      if (entry.readAt(revision, found)) keep.add(found.main, found.sub);
    },
    keep,
  );
}

const SLICE_ENTRIES = 10_000;

/** Visits all entries, with a turn of the event loop between slices. Entries that come in meanwhile may be missed. */
async function inSlices<T>(
  index: KeyIndex,
  clock: Clock,
  visit: (entry: KeyEntry, dead: KeyEntry[]) => void,
  result: T,
): Promise<T> {
  let start: ByteString = "";
  for (;;) {
    let visited = 0;
    let last: ByteString | undefined;
    const dead: KeyEntry[] = [];
    index.visit(start, null, (entry) => {
      visit(entry, dead);
      last = entry.key;
      return ++visited < SLICE_ENTRIES;
    });
    for (const entry of dead) index.remove(entry);
    if (last === undefined || visited < SLICE_ENTRIES) return result;
    start = `${last}\0`;
    await nextTurn(clock);
  }
}

export interface CompactionSettings {
  readonly clock: Clock;
  /** Rows looked at between two commits. */
  readonly batchLimit: number;
  /** After each batch. */
  readonly pause: CompactionPause;
}

/** What compactions did since the start, for the metrics. Source: etcd `server/storage/mvcc/metrics.go`. */
export class CompactionStatistics {
  /** Milliseconds of one walk over the index. */
  readonly index = new Histogram(exponentialBuckets(0.5, 2, 14));
  /** Milliseconds of one batch of rows, in which nothing else is served. */
  readonly batch = new Histogram(exponentialBuckets(1, 2, 13));
  /** Milliseconds of deleting all rows of one compaction, with its pauses. */
  readonly total = new Histogram(exponentialBuckets(100, 2, 14));
  deletedRows = 0;
  /** Unix time in seconds; 0: none yet. */
  lastEndSeconds = 0;
}

/** The pause between two batches. It may be set to hours, and must not hold up what waits for a compaction to end. */
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

  /** Ends the pause that is on now, if any. */
  cutShort(): void {
    this.#timer?.cancel();
    this.#resume?.();
  }
}

/**
 * Deletes the rows up to `revision` that are not to be kept, and returns the hash of what was there, as HashKV would
 * have given it. Returns null when `isStopped` said so in between.
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
  // As in etcd: without anything to keep, what the compaction before has left counts. That one has ended.
  const hasher = new KvHasher(previousRevision, revision, keep.size > 0 ? keep : undefined, hasKeys);
  let deletedCount = 0;
  let fromMain = 0;
  let fromSub = 0;
  for (;;) {
    const startMs = clock.nowMs();
    let seen = 0;
    const doomed: { main: number; sub: number; tombstone: boolean }[] = [];
    backend.forEachRevision(fromMain, fromSub, revision + 1, (main, sub, tombstone, bytes, start, end) => {
      if (!keep.has(main, sub)) doomed.push({ main, sub, tombstone });
      hasher.write(main, sub, tombstone, bytes, start, end);
      fromMain = main;
      fromSub = sub + 1;
      return ++seen < batchLimit;
    });
    for (const row of doomed) backend.deleteRevision(row.main, row.sub, row.tombstone);
    deletedCount += doomed.length;
    statistics.deletedRows += doomed.length;
    statistics.batch.observe(clock.nowMs() - startMs);
    if (seen < batchLimit) break;
    await backend.commit();
    if (isStopped()) return null;
    await pause.wait();
    if (isStopped()) return null;
  }
  backend.put("meta", metaKeys.finishedCompact, revisionBytes(revision, 0));
  return { hash: hasher.finish(), deletedCount };
}

/** What the meta bucket knows of compactions. Undefined: never. */
export function readCompactions(core: StoreCore): { scheduled: number | undefined; finished: number | undefined } {
  const read = (key: Uint8Array): number | undefined => {
    const value = core.backend.get("meta", key);
    return value === undefined ? undefined : mainOf(value);
  };
  return { scheduled: read(metaKeys.scheduledCompact), finished: read(metaKeys.finishedCompact) };
}
