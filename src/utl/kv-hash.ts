/** HashKV of a database file: the answer of a member that runs on it. Source: etcd `server/storage/mvcc/kvstore.go`. */
import type { BoltReader } from "../bolt/reader.ts";
import { kvHeader, readKvHeader } from "../mvcc/model/kv-header.ts";
import { isTombstone, mainOf, subOf } from "../mvcc/model/revision.ts";
import { RevisionSet } from "../mvcc/model/revision-set.ts";
import { CompactedError, FutureRevisionError } from "../mvcc/model/types.ts";
import { type KvHash, KvHasher } from "../mvcc/store/hash.ts";

/** Hashes up to `revision`, or all for 0. Throws CompactedError, FutureRevisionError, BoltError. */
export function hashKvOf(reader: BoltReader, revision: number): KvHash {
  const compactRevision = compactRevisionOf(reader);
  const rows = (): Iterable<{ key: Uint8Array; value: Uint8Array }> => reader.bucket(KEY)?.entries() ?? [];
  const last = reader.bucket(KEY)?.last();
  const currentRevision = Math.max(1, compactRevision, last === undefined ? 0 : mainOf(last.key));
  if (revision > 0 && revision < compactRevision) throw new CompactedError(compactRevision);
  if (revision > currentRevision) throw new FutureRevisionError(currentRevision);
  const at = revision > 0 ? revision : currentRevision;
  let live = liveAt(rows(), at, compactRevision);
  const { hasKeys } = live;
  if (!hasKeys) live = liveAt(rows(), compactRevision, compactRevision);
  const hasher = new KvHasher(compactRevision, at, live.revisions, hasKeys);
  for (const { key, value } of rows()) {
    hasher.write(mainOf(key), subOf(key), isTombstone(key), value, 0, value.length);
  }
  return hasher.finish();
}

const KEY = Buffer.from("key");
const META = Buffer.from("meta");

/** The revision of the last requested compaction, finished or not; -1 when there was none. */
function compactRevisionOf(reader: BoltReader): number {
  const meta = reader.bucket(META);
  const revisions = ["finishedCompactRev", "scheduledCompactRev"].map((name) => meta?.get(Buffer.from(name)));
  return Math.max(-1, ...revisions.map((bytes) => (bytes === undefined ? -1 : mainOf(bytes))));
}

/** The rows visible to a read at `revision`, among those at or below the compact revision. One entry per key. */
function liveAt(
  rows: Iterable<{ key: Uint8Array; value: Uint8Array }>,
  revision: number,
  compactRevision: number,
): { readonly revisions: RevisionSet; readonly hasKeys: boolean } {
  const header = kvHeader();
  const latest = new Map<string, readonly [main: number, sub: number]>();
  for (const { key, value } of rows) {
    const main = mainOf(key);
    if (main > revision) break;
    readKvHeader(value, 0, value.length, header);
    if (isTombstone(key)) latest.delete(header.key);
    else latest.set(header.key, [main, subOf(key)]);
  }
  const revisions = new RevisionSet();
  for (const [main, sub] of latest.values()) if (main <= compactRevision) revisions.add(main, sub);
  return { revisions, hasKeys: latest.size > 0 };
}
