import type { StateReader } from "../../bolt/state-reader.ts";
import { type ByteString, type RevisionVisitor, toByteString } from "../model/types.ts";
import type { SmallBucket } from "./backend.ts";
import type { Batch } from "./batch.ts";
import type { FileRows } from "./file-rows.ts";

/** What is readable: a file's state under the batches that are not in it yet. */

/** The value of a key, copied; `batches` newest first. */
export function getSmall(
  batches: readonly (Batch | null)[],
  state: StateReader,
  bucket: SmallBucket,
  key: Uint8Array,
): Uint8Array | undefined {
  const name = toByteString(key);
  for (const batch of batches) {
    const value = batch?.small(bucket)?.get(name);
    if (value !== undefined) return value === null ? undefined : value.slice();
  }
  const value = state.get(bucket, key);
  return value === undefined ? undefined : Buffer.from(value);
}

/** All entries of a bucket, ascending, copied; `batches` oldest first. */
export function smallEntries(
  batches: readonly (Batch | null)[],
  state: StateReader,
  bucket: SmallBucket,
): [ByteString, Uint8Array][] {
  const entries = new Map<ByteString, Uint8Array>();
  state.forEach(bucket, undefined, (key, value) => {
    entries.set(toByteString(key), Buffer.from(value));
    return true;
  });
  let isSorted = true;
  for (const batch of batches) {
    for (const [key, value] of batch?.small(bucket) ?? []) {
      if (value === null) entries.delete(key);
      else entries.set(key, value.slice());
      isSorted = false;
    }
  }
  const all = [...entries];
  return isSorted ? all : all.sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Visits rows as Backend.forEachRevision does: rows of a batch are above all of those below it. */
export function forEachRow(
  batch: Batch,
  committing: Batch | null,
  rows: FileRows,
  fromMain: number,
  fromSub: number,
  toMain: number,
  visit: RevisionVisitor,
): void {
  const visitBelowBatch: RevisionVisitor = (main, sub, tombstone, bytes, start, end) =>
    batch.deletes(main, sub) || visit(main, sub, tombstone, bytes, start, end);
  const visitBelowBoth: RevisionVisitor =
    committing === null
      ? visitBelowBatch
      : (main, sub, tombstone, bytes, start, end) =>
          committing.deletes(main, sub) || visitBelowBatch(main, sub, tombstone, bytes, start, end);
  if (!rows.forEach(fromMain, fromSub, toMain, 0, visitBelowBoth)) return;
  if (committing !== null && !committing.forEachRevision(fromMain, fromSub, toMain, visitBelowBatch)) return;
  batch.forEachRevision(fromMain, fromSub, toMain, visit);
}
