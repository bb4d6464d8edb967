import type { Logger } from "../../base/log.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { encodeV2Snapshot } from "../../membership/cluster.ts";
import { formatId } from "../../membership/member.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import { type ConfState, type Entry, Snapshot } from "../../proto/raftpb.ts";
import { Snapshot as WalSnapshot } from "../../proto/walpb.ts";
import type { MemoryStorage } from "../../raft/memory-storage.ts";
import { purgeFiles } from "../../wal/purge.ts";
import type { Snapshotter } from "../../wal/snapshotter.ts";
import type { Wal } from "../../wal/wal.ts";
import type { ServerOptions } from "../contract/options.ts";

/**
 * The log in memory is trimmed after this many applied entries: the fewer it keeps, the more often, and at least as
 * often as snapshots are made.
 */
const TRIM_ENTRIES_MIN = 100;
const TRIM_ENTRIES_MAX = 1000;
/** Entries kept in memory when no follower could need them. */
const SOLO_CATCH_UP_ENTRIES = 100;

/** And after this many bytes. */
const TRIM_BYTES = 32 * 1024 * 1024;
/** Maximum bytes of applied entries kept for slow followers. */
const KEPT_BYTES_MAX = 256 * 1024 * 1024;

export interface SnapshotsOptions {
  readonly options: Pick<
    ServerOptions,
    "snapshotCount" | "snapshotCatchUpEntries" | "maxSnapFiles" | "maxWalFiles" | "disk" | "clock" | "onFailure"
  >;
  readonly memberId: bigint;
  readonly snapshotter: Snapshotter;
  readonly storage: MemoryStorage;
  readonly wal: Wal;
  readonly walDir: string;
  readonly snapDir: string;
  readonly cluster: Cluster;
  readonly backend: () => Backend;
  readonly logger: Logger;
  readonly snapshotIndex: number;
}

/**
 * This member's raft snapshots: records of how far the backend is durable, so that the log before them can be removed.
 * Also limits the log in memory, and removes files that are no longer needed.
 */
export class Snapshots {
  readonly #o: SnapshotsOptions;
  #index: number;
  #trimmedIndex: number;
  #bytesSinceTrim = 0;
  #saving = false;
  #stopped = false;
  /** The next one does not wait for the snapshot count. */
  #forced = false;

  /** Index of the last snapshot. */
  get index(): number {
    return this.#index;
  }

  constructor(options: SnapshotsOptions) {
    this.#o = options;
    this.#index = options.snapshotIndex;
    this.#trimmedIndex = options.snapshotIndex;
  }

  get #trimEntries(): number {
    const { snapshotCount, snapshotCatchUpEntries } = this.#o.options;
    const entries = Math.max(TRIM_ENTRIES_MIN, Math.min(snapshotCatchUpEntries, TRIM_ENTRIES_MAX));
    return Math.min(entries, Math.max(1, snapshotCount));
  }

  /**
   * Saves one after the next applied entries, and drops the log before it: a joining member gets the snapshot, and
   * nothing from before.
   */
  force(): void {
    this.#forced = true;
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Entries were applied: trims the log in memory, and saves a snapshot when due. */
  applied(
    position: { index: number; term: number },
    entries: readonly Entry[],
    confState: ConfState,
    solo: boolean,
    keepLog: boolean,
  ): void {
    const { index } = position;
    for (const { data } of entries) this.#bytesSinceTrim += data.length;
    const isTrimDue = index - this.#trimmedIndex >= this.#trimEntries || this.#bytesSinceTrim >= TRIM_BYTES;
    const keptMax = solo ? SOLO_CATCH_UP_ENTRIES : this.#o.options.snapshotCatchUpEntries;
    if (this.#saving) return;
    if (this.#forced) this.#trim(index, confState, 0);
    else if (isTrimDue && !keepLog) this.#trim(index, confState, keptMax);
    else if (isTrimDue) {
      this.#o.logger.info("skip compaction since there is an inflight snapshot");
      this.#trimmedIndex = index;
    }
    if (this.#forced || index - this.#index > this.#o.options.snapshotCount) this.#save(position, confState);
  }

  /** Makes the leader's snapshot durable. Its database already is. */
  saveReceived(snapshot: Snapshot): void {
    const { snapshotter, wal } = this.#o;
    const { index = 0, term = 0, confState } = snapshot.metadata ?? {};
    snapshotter.save(snapshot);
    wal.saveSnapshot(WalSnapshot.create({ index, term, confState }));
    this.#index = index;
    this.#trimmedIndex = index;
  }

  /** The received database was installed: the log before it, and its file, are no longer needed. */
  installed(index: number): void {
    this.#o.wal.releaseTo(index);
    this.#o.snapshotter.releaseSnapDbs(index + 1);
  }

  /** Removes files that are no longer needed, one per turn. */
  purge(): void {
    const { walDir, snapDir, wal, logger } = this.#o;
    const { disk, clock, maxSnapFiles, maxWalFiles } = this.#o.options;
    if (this.#stopped) return;
    const common = { disk, logger, atOnce: 1 };
    try {
      const isNeeded = (file: string): boolean => wal.isHeld(file);
      const purged = [
        ...purgeFiles({ ...common, dir: walDir, suffix: ".wal", max: maxWalFiles, isNeeded }),
        ...purgeFiles({ ...common, dir: snapDir, suffix: ".snap", max: maxSnapFiles }),
      ];
      if (purged.length > 0) clock.defer(() => this.purge());
    } catch (error) {
      logger.warn("failed to purge files", { error: `${error}` });
    }
  }

  /** Raft can only replace entries dropped from memory by a snapshot, so there must be one, if only in memory. */
  #trim(index: number, confState: ConfState, keptMax: number): void {
    const { storage, cluster } = this.#o;
    const compactTo = index - Math.min(keptMax, entriesWithin(storage, index, KEPT_BYTES_MAX));
    this.#trimmedIndex = index;
    this.#bytesSinceTrim = 0;
    if (compactTo <= storage.firstIndex() || index <= (storage.snapshot().metadata?.index ?? 0)) return;
    storage.createSnapshot(index, confState, encodeV2Snapshot(cluster));
    storage.compact(compactTo);
  }

  /** Saved once the backend durably holds its state; older log segments can then be removed. */
  #save({ index, term }: { index: number; term: number }, confState: ConfState): void {
    if (this.#saving || index <= this.#index) return;
    this.#saving = true;
    this.#forced = false;
    const { snapshotter, wal, cluster, backend, logger, memberId, options } = this.#o;
    const data = encodeV2Snapshot(cluster);
    logger.info("triggering snapshot", {
      "local-member-id": formatId(memberId),
      "local-member-applied-index": index,
      "local-member-snapshot-index": this.#index,
      "local-member-snapshot-count": options.snapshotCount,
    });
    const save = (): void => {
      this.#saving = false;
      // A received snapshot may have superseded it.
      if (this.#stopped || index <= this.#index) return;
      snapshotter.save(Snapshot.create({ data, metadata: { confState, index, term } }));
      wal.saveSnapshot(WalSnapshot.create({ index, term, confState }));
      wal.releaseTo(index);
      snapshotter.releaseSnapDbs(index);
      this.#index = index;
      logger.info("saved snapshot to disk", { "snapshot-index": index });
    };
    backend()
      .commit()
      .then(save)
      .catch((error: unknown) => options.onFailure(error));
  }
}

/** How many entries up to `index` together have at most `bytesMax`. */
function entriesWithin(storage: MemoryStorage, index: number, bytesMax: number): number {
  const first = storage.firstIndex();
  const entries = index < first ? [] : storage.entries(first, index + 1, Number.POSITIVE_INFINITY);
  let bytes = 0;
  let count = 0;
  while (count < entries.length) {
    bytes += entries[entries.length - 1 - count]!.data.length;
    if (bytes > bytesMax) break;
    count++;
  }
  return count;
}
