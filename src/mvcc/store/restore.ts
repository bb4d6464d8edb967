import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { othersTurn } from "../../base/others-turn.ts";
import type { Backend } from "../backend/backend.ts";
import { KeyEntry } from "../index/key-entry.ts";
import type { KeyIndex } from "../index/key-index.ts";
import { kvHeader, readKvHeader } from "../model/kv-header.ts";
import type { ByteString } from "../model/types.ts";

/** The content of a backend's key bucket. */
export interface Restored {
  /** Main revision of the last row; 1 without rows. */
  readonly lastRevision: number;
  /** Existing keys that are attached to a lease. */
  readonly leaseOfKey: ReadonlyMap<ByteString, bigint>;
}

/**
 * Rebuilds the index from the rows of the key bucket, in slices. `index` must be empty.
 * Source: etcd `server/storage/mvcc/kvstore.go`, `restore`.
 */
export async function restoreIndex(backend: Backend, index: KeyIndex, clock: Clock, logger: Logger): Promise<Restored> {
  const header = kvHeader();
  const leaseOfKey = new Map<ByteString, bigint>();
  let lastRevision = 1;
  let fromMain = 1;
  let fromSub = 0;
  for (;;) {
    let seen = 0;
    backend.forEachRevision(fromMain, fromSub, Number.POSITIVE_INFINITY, (main, sub, tombstone, bytes, start, end) => {
      lastRevision = main;
      fromMain = main;
      fromSub = sub + 1;
      readKvHeader(bytes, start, end, header);
      if (tombstone) restoreTombstone(header.key, main, sub);
      else restorePut(header.key, main, sub);
      return ++seen < SLICE_ROWS;
    });
    if (seen < SLICE_ROWS) return { lastRevision, leaseOfKey };
    await othersTurn(clock);
  }

  function restorePut(key: ByteString, main: number, sub: number): void {
    const entry = index.findString(key);
    // A key's first row may be in the middle of a generation: earlier ones are compacted.
    if (entry === undefined)
      index.insert(new KeyEntry(key, main, sub, Math.max(1, header.version), header.createRevision));
    else index.put(entry, main, sub);
    if (header.lease !== 0n) leaseOfKey.set(key, header.lease);
    else if (leaseOfKey.size > 0) leaseOfKey.delete(key);
  }

  function restoreTombstone(key: ByteString, main: number, sub: number): void {
    const entry = index.findString(key);
    if (entry === undefined) index.insert(new KeyEntry(key, main, sub, 0, 0));
    else if (entry.live) index.tombstone(entry, main, sub);
    else logger.warn("tombstone on a key that does not exist", { key, main, sub });
    leaseOfKey.delete(key);
  }
}

/** About 3 ms of work. */
const SLICE_ROWS = 1000;
