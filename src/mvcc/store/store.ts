import type { Clock } from "../../base/clock.ts";
import { InvariantError } from "../../base/fatal.ts";
import type { Logger } from "../../base/log.ts";
import { othersTurn } from "../../base/others-turn.ts";
import { type Random, systemRandom } from "../../base/random.ts";
import { Subscribers } from "../../base/subscribers.ts";
import { type Backend, metaKeys, type RawSlot } from "../backend/backend.ts";
import { dropUnfinished } from "../backend/long-write.ts";
import { SerialQueue } from "../backend/serial-queue.ts";
import type { KeyIndex } from "../index/key-index.ts";
import { KvEncoder } from "../model/kv-encoder.ts";
import { revisionBytes } from "../model/revision.ts";
import {
  type ChangeList,
  type ChangeListener,
  type ChangeSource,
  CompactedError,
  type DecodedRangeResult,
  FutureRevisionError,
  type HashKvResult,
  type KeyVisitor,
  type LeaseAttachments,
  noLeases,
  type RangeOptions,
  type RangeResult,
  type RawVisitor,
  type RevisionVisitor,
} from "../model/types.ts";
import {
  CompactionPause,
  type CompactionSettings,
  CompactionStatistics,
  compactIndex,
  compactRows,
  liveAt,
  readCompactions,
} from "./compaction.ts";
import { StoreCore } from "./core.ts";
import { HashStorage, hashBackend, hashKeyBucket, type KvHash, KvHasher } from "./hash.ts";
import { type Pin, Pins } from "./pins.ts";
import { RangeCursor, type ReadPoint, readRow } from "./range-cursor.ts";
import { rangeAt, rangeDecodedAt, rangeKeysAt } from "./read.ts";
import { restoreIndex } from "./restore.ts";
import { WriteTxn } from "./write-txn.ts";

export { WriteTxn } from "./write-txn.ts";

export interface MvccStoreOptions {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default: no leases. */
  readonly leases?: LeaseAttachments;
  /** Seeds the hash table of the keys. */
  readonly random?: Random;
  /** Rows that a compaction examines between two commits (`--compaction-batch-limit`). */
  readonly compactionBatchLimit?: number;
  /** Its pause between two batches (`--compaction-sleep-interval`). */
  readonly compactionSleepMs?: number;
}

/**
 * The multi-version key-value store: every change of the key space has a revision, and reads at any revision since the
 * last compaction return the state at that revision.
 *
 * The index of keys and revisions is in memory, the key-value pairs are in the backend, which the store uses
 * exclusively after `open` but does not close. All operations run in the caller's turn, except compaction, hashes and
 * restore, which run in slices. Source: etcd `server/storage/mvcc/kvstore.go`.
 */
export class MvccStore implements ChangeSource {
  readonly compactionStatistics = new CompactionStatistics();
  readonly #core: StoreCore;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #compaction: CompactionSettings;
  readonly #encoder = new KvEncoder();
  readonly #hashes = new HashStorage();
  /** Runs compactions one at a time. */
  readonly #compactions = new SerialQueue();
  readonly #pins: Pins;
  /** Walks over the index that must not see another compaction halfway. */
  readonly #indexWalks = new SerialQueue();
  readonly #changed = new Subscribers<[revision: number, changes: ChangeList]>();
  readonly #restored = new Subscribers();
  #txnIsOpen = false;
  #closed = false;

  /** Opens the store on the backend's content, and resumes a compaction interrupted by a crash. */
  static async open(options: MvccStoreOptions): Promise<MvccStore> {
    const store = new MvccStore(options);
    await store.#restore(options.backend);
    return store;
  }

  private constructor(options: MvccStoreOptions) {
    const random = options.random ?? systemRandom;
    this.#core = new StoreCore(options.backend, options.leases ?? noLeases, random.uint64());
    this.#clock = options.clock;
    this.#pins = new Pins(options.clock);
    this.#logger = options.logger;
    this.#compaction = {
      clock: options.clock,
      batchLimit: options.compactionBatchLimit ?? 1000,
      pause: new CompactionPause(options.clock, options.compactionSleepMs ?? 10),
    };
  }

  get currentRevision(): number {
    return this.#core.currentRevision;
  }

  /** The point of a read now. */
  get point(): ReadPoint {
    return { main: this.#core.currentRevision, sub: Number.POSITIVE_INFINITY };
  }

  get compactRevision(): number {
    return this.#core.compactRevision;
  }

  get backend(): Backend {
    return this.#core.backend;
  }

  /** Keys that exist at the current revision. */
  get keyCount(): number {
    return this.#core.index.liveCount;
  }

  onChange(listener: ChangeListener): () => void {
    return this.#changed.add(listener);
  }

  onRestore(listener: () => void): () => void {
    return this.#restored.add(listener);
  }

  /**
   * Visits the encoded KeyValues of the range in key order. Throws CompactedError, FutureRevisionError. Visitors must
   * not write.
   */
  range(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: RawVisitor): RangeResult {
    return rangeAt(this.#core, this.#core.currentRevision, key, rangeEnd, options, visit);
  }

  /** Visits keys and revisions without reading values: the cheap keys-only range. Throws as `range`. */
  rangeKeys(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: KeyVisitor): RangeResult {
    return rangeKeysAt(this.#core, this.#core.currentRevision, key, rangeEnd, options, visit);
  }

  rangeDecoded(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions): DecodedRangeResult {
    return rangeDecodedAt(this.#core, this.#core.currentRevision, key, rangeEnd, options);
  }

  /** Keeps the state at `point` readable until the pin is released. Throws CompactedError, FutureRevisionError. */
  pin(point: ReadPoint): Pin {
    const { currentRevision, compactRevision } = this.#core;
    // A write transaction about to end pins the state it has seen.
    if (point.main > currentRevision + 1) throw new FutureRevisionError(currentRevision);
    if (point.main < compactRevision) throw new CompactedError(compactRevision);
    return this.#pins.add(point.sub === Number.POSITIVE_INFINITY ? point.main : point.main - 1);
  }

  /** A walk over a range that may take many turns. It needs a pin at the point. */
  cursor(point: ReadPoint, key: Uint8Array, rangeEnd: Uint8Array, descending: boolean): RangeCursor {
    return new RangeCursor(this.#core, point, key, rangeEnd, descending);
  }

  /** Reads the KeyValue of a revision found by a cursor. The bytes are valid until the next read. */
  readRow(main: number, sub: number, out: RawSlot): void {
    readRow(this.#core, main, sub, out);
  }

  /** Number of keys in a range at the current revision, without a walk. */
  countLive(key: Uint8Array, rangeEnd: Uint8Array): number {
    return this.range(key, rangeEnd, COUNT_ONLY, () => {}).count;
  }

  /** Visits the stored rows of the revisions from (`fromMain`, `fromSub`) up to, but excluding, `toMain`. */
  forEachRevision(fromMain: number, toMain: number, fromSub: number, visit: RevisionVisitor): void {
    this.#core.backend.forEachRevision(fromMain, fromSub, toMain, visit);
  }

  /** Begins the write transaction; end it in the same turn, unless it becomes long. */
  begin(): WriteTxn {
    if (this.#txnIsOpen) throw new InvariantError("a write transaction is already open");
    this.#txnIsOpen = true;
    return new WriteTxn(this.#core, this.#encoder, this.#endTxn);
  }

  readonly #endTxn = (changes: ChangeList): void => {
    this.#txnIsOpen = false;
    if (changes.length === 0) return;
    const revision = ++this.#core.currentRevision;
    this.#changed.tell(revision, changes);
  };

  /**
   * Makes the revisions below `revision` unreadable at once. Throws CompactedError when they already are, and
   * FutureRevisionError. The promise resolves when their space is freed; it rejects when the backend failed.
   */
  compact(revision: number): Promise<void> {
    const core = this.#core;
    if (revision <= core.compactRevision) throw new CompactedError(core.compactRevision);
    if (revision > core.currentRevision) throw new FutureRevisionError(core.currentRevision);
    const { scheduled, finished } = readCompactions(core);
    const previousWasFinished = scheduled === finished;
    const previousRevision = core.compactRevision;
    core.compactRevision = revision;
    core.backend.put("meta", metaKeys.scheduledCompact, revisionBytes(revision, 0));
    const { epoch } = core;
    return this.#compactions.run(() => this.#runCompaction(epoch, revision, previousRevision, previousWasFinished));
  }

  async #runCompaction(
    epoch: number,
    revision: number,
    previousRevision: number,
    previousWasFinished: boolean,
  ): Promise<void> {
    const core = this.#core;
    const isStopped = (): boolean => this.#closed || core.epoch !== epoch;
    if (isStopped()) return;
    await this.#pins.clearedBelow(revision);
    if (isStopped()) return;
    const startMs = this.#clock.nowMs();
    const kept = await this.#indexWalks.run(() => compactIndex(core.index, revision, this.#clock));
    if (isStopped()) return;
    const statistics = this.compactionStatistics;
    const rowsStartMs = this.#clock.nowMs();
    statistics.index.observe(rowsStartMs - startMs);
    const result = await compactRows(core, revision, previousRevision, kept, this.#compaction, statistics, isStopped);
    if (result === null) return;
    statistics.total.observe(this.#clock.nowMs() - rowsStartMs);
    statistics.lastEndSeconds = Math.floor(this.#clock.wallMs() / 1000);
    // The hash of an interrupted compaction lacks the rows that its first run deleted.
    if (previousWasFinished) this.#hashes.store(result.hash);
    this.#logger.info("finished scheduled compaction", {
      "compact-revision": revision,
      "took-ms": Math.round(this.#clock.nowMs() - startMs),
      "number-of-keys-compacted": result.deletedCount,
      hash: result.hash.hash,
      "current-db-size-bytes": core.backend.sizeBytes(),
      "current-db-size-in-use-bytes": core.backend.sizeInUseBytes(),
    });
  }

  /**
   * HashKV: the hash of all uncompacted revisions up to `revision` (0: the current one). Rejects with CompactedError,
   * FutureRevisionError. Reads and writes continue meanwhile.
   */
  async hashKv(revision: number): Promise<HashKvResult> {
    const core = this.#core;
    const stored = this.#hashes.find(revision);
    if (stored !== undefined) return hashKvResult(stored, core.currentRevision);
    return this.#hashKvNow(revision);
  }

  async #hashKvNow(revision: number): Promise<HashKvResult> {
    const core = this.#core;
    const { currentRevision, compactRevision, epoch } = core;
    if (revision > 0 && revision < compactRevision) throw new CompactedError(compactRevision);
    if (revision > currentRevision) throw new FutureRevisionError(currentRevision);
    const at = revision > 0 ? revision : currentRevision;
    const walk = await this.#indexWalks.run(async () => {
      // Rows and index must agree about compaction: both are taken in the same queued job.
      const snapshot = await core.backend.snapshot();
      if (core.epoch !== epoch) return { snapshot, hasher: null };
      const hasher = await this.#hasherOf(at, compactRevision).catch((error: unknown) => {
        snapshot.close();
        throw error;
      });
      return { snapshot, hasher };
    });
    try {
      if (walk.hasher !== null) {
        return hashKvResult(await hashKeyBucket(walk.snapshot, walk.hasher, this.#clock), currentRevision);
      }
    } finally {
      walk.snapshot.close();
    }
    // A received snapshot has replaced rows and index meanwhile. A hash of the rows before and the index after it would
    // be that of no state, and members would take this one for corrupt.
    return this.#hashKvNow(revision);
  }

  /**
   * As in etcd, when no key is left at `revision`, the hash covers everything that the last compaction leaves. etcd
   * hashes the rows that exist: while the compaction deletes them, members at different progress then have different
   * hashes, and CORRUPT is raised.
   */
  async #hasherOf(revision: number, compactRevision: number): Promise<KvHasher> {
    const { index } = this.#core;
    const live = await liveAt(index, revision, compactRevision, this.#clock);
    if (live.hasKeys) return new KvHasher(compactRevision, revision, live.revisions, true);
    const kept = await liveAt(index, compactRevision, compactRevision, this.#clock);
    return new KvHasher(compactRevision, revision, kept.revisions, false);
  }

  /** Hashes of past compactions, ascending by revision; members compare them to detect corruption. */
  compactionHashes(): readonly KvHash[] {
    return this.#hashes.all();
  }

  /** Hash: of the whole backend in its current state, all buckets. For tests. */
  async hash(): Promise<{ hash: number; revision: number }> {
    const isWriting = this.#txnIsOpen;
    const revisionBefore = this.#core.currentRevision;
    const snapshot = await this.#core.backend.snapshot();
    const revision = isWriting ? this.#core.currentRevision : revisionBefore;
    try {
      return { hash: await hashBackend(snapshot, this.#clock), revision };
    } finally {
      snapshot.close();
    }
  }

  /**
   * Switches to another backend, from a received snapshot. The old one is no longer used, but not closed. Until it
   * resolves, reads return the old state and the caller must not write.
   */
  async replaceBackend(backend: Backend): Promise<void> {
    if (this.#txnIsOpen) throw new InvariantError("a backend cannot be replaced inside a write transaction");
    await this.#restore(backend);
    this.#compaction.pause.cutShort();
    this.#restored.tell();
  }

  /** Stops background work; an open write transaction will not end. The backend stays open: it belongs to the caller. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#pins.close();
    // Hashes may wait for the end of that transaction.
    this.#core.backend.abandonLongWrite();
    this.#compaction.pause.cutShort();
    await this.#compactions.idle();
    await this.#indexWalks.idle();
  }

  async #attachLeases(index: KeyIndex, leaseOfKey: ReadonlyMap<number, bigint>): Promise<void> {
    let left = ATTACH_SLICE;
    for (const [id, lease] of leaseOfKey) {
      const key = index.key(id);
      if (!this.#core.leases.attach(lease, key)) {
        this.#logger.error("failed to attach a lease", { "lease-id": lease.toString(16).padStart(16, "0"), key });
      }
      if (--left > 0) continue;
      await othersTurn(this.#clock);
      left = ATTACH_SLICE;
    }
  }

  async #restore(backend: Backend): Promise<void> {
    const core = this.#core;
    await dropUnfinished(backend, this.#clock, this.#logger);
    const index = core.newIndex();
    const { lastRevision, leaseOfKey } = await restoreIndex(backend, index, this.#clock, this.#logger);
    await this.#attachLeases(index, leaseOfKey);
    core.epoch++;
    core.backend = backend;
    core.index = index;
    this.#hashes.clear();
    const { scheduled, finished } = readCompactions(core);
    core.compactRevision = finished ?? -1;
    // Compaction may have deleted the last rows, so they alone do not determine the revision.
    core.currentRevision = Math.max(lastRevision, finished ?? 0, scheduled ?? 0);
    this.#logger.info("kvstore restored", {
      "current-rev": core.currentRevision,
      keys: index.liveCount,
      "index-bytes": index.allocatedBytes,
    });
    if (scheduled !== undefined && scheduled > core.compactRevision) {
      this.#logger.info("resume scheduled compaction", { "scheduled-compact-revision": scheduled });
      this.compact(scheduled).catch((error: unknown) => {
        this.#logger.warn("compaction failed", { error: String(error) });
      });
    }
  }
}

const COUNT_ONLY: RangeOptions = { revision: 0, limit: 0, countOnly: true };

/** Keys attached to their leases in one turn. */
const ATTACH_SLICE = 2000;

function hashKvResult(hash: KvHash, currentRevision: number): HashKvResult {
  return {
    hash: hash.hash,
    compactRevision: hash.compactRevision,
    currentRevision,
    hashRevision: hash.revision,
    hasKeys: hash.hasKeys,
  };
}
