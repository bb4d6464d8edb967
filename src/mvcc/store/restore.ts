import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { othersTurn } from "../../base/others-turn.ts";
import type { Backend } from "../backend/backend.ts";
import type { KeyIndex } from "../index/key-index.ts";
import { kvHeader, readKvHeader } from "../model/kv-header.ts";

/** The content of a backend's key bucket. */
export interface Restored {
  /** Main revision of the last row; 1 without rows. */
  readonly lastRevision: number;
  /** Existing keys that are attached to a lease, by id. */
  readonly leaseOfKey: ReadonlyMap<number, bigint>;
}

/**
 * Rebuilds the index from the rows of the key bucket, in slices. `index` must be empty.
 * Source: etcd `server/storage/mvcc/kvstore.go`, `restore`.
 */
export async function restoreIndex(backend: Backend, index: KeyIndex, clock: Clock, logger: Logger): Promise<Restored> {
  const header = kvHeader();
  const leaseOfKey = new Map<number, bigint>();
  let lastRevision = 1;
  let fromMain = 1;
  let fromSub = 0;
  for (;;) {
    let seen = 0;
    let size = 0;
    backend.forEachRevision(fromMain, fromSub, Number.POSITIVE_INFINITY, (main, sub, tombstone, bytes, start, end) => {
      lastRevision = main;
      fromMain = main;
      fromSub = sub + 1;
      readKvHeader(bytes, start, end, header);
      if (tombstone) restoreTombstone(bytes, main, sub);
      else restorePut(bytes, main, sub);
      size += end - start;
      return ++seen < SLICE_ROWS && size < SLICE_BYTES;
    });
    if (seen < SLICE_ROWS && size < SLICE_BYTES) return { lastRevision, leaseOfKey };
    await othersTurn(clock);
  }

  function restorePut(bytes: Uint8Array, main: number, sub: number): void {
    const { keyStart, keyEnd, version, createRevision, lease } = header;
    let id = index.find(bytes, keyStart, keyEnd);
    // A key's first row may be in the middle of a generation: earlier ones are compacted.
    if (id === 0) id = index.insert(bytes, keyStart, keyEnd, main, sub, Math.max(1, version), createRevision);
    else index.put(id, main, sub);
    if (lease !== 0n) leaseOfKey.set(id, lease);
    else if (leaseOfKey.size > 0) leaseOfKey.delete(id);
  }

  function restoreTombstone(bytes: Uint8Array, main: number, sub: number): void {
    const { keyStart, keyEnd } = header;
    const id = index.find(bytes, keyStart, keyEnd);
    if (id === 0) index.insert(bytes, keyStart, keyEnd, main, sub, 0, 0);
    else if (index.isLive(id)) index.tombstone(id, main, sub);
    else logger.warn("tombstone on a key that does not exist", { key: index.key(id), main, sub });
    leaseOfKey.delete(id);
  }
}

/** About 3 ms of work: a slice looks for its place in the tree of pages again, so few are better. */
const SLICE_ROWS = 3000;
const SLICE_BYTES = 2 * 1024 * 1024;
