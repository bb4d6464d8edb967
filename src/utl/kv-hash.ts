/** HashKV of a database file: the answer of a member that runs on it. Source: etcd `server/storage/mvcc/kvstore.go`. */
import type { BoltReader } from "../bolt/reader.ts";
import { headerKey, kvHeader, readKvHeader } from "../mvcc/model/kv-header.ts";
import { isTombstone, mainOf, subOf } from "../mvcc/model/revision.ts";
import { CompactedError, FutureRevisionError } from "../mvcc/model/types.ts";
import { type KvHash, KvHasher } from "../mvcc/store/hash.ts";
import { KeyRows } from "./key-rows.ts";

/**
 * Hashes up to `revision`, or all for 0. `compactedAt` gives the hash of a member that has compacted there, which may be
 * later than in this file. Throws CompactedError, FutureRevisionError, BoltError.
 */
export function hashKvOf(reader: BoltReader, revision: number, compactedAt = -1): KvHash {
  const compactRevision = Math.max(compactedAt, compactRevisionOf(reader));
  const rows = (): Iterable<{ key: Uint8Array; value: Uint8Array }> => reader.bucket(KEY)?.entries() ?? [];
  const last = reader.bucket(KEY)?.last();
  const currentRevision = Math.max(1, compactRevision, last === undefined ? 0 : mainOf(last.key));
  if (revision > 0 && revision < compactRevision) throw new CompactedError(compactRevision);
  if (revision > currentRevision) throw new FutureRevisionError(currentRevision);
  const at = revision > 0 ? revision : currentRevision;
  let live = liveAt(rows(), at, compactRevision);
  const { hasKeys } = live;
  if (!hasKeys) live = liveAt(rows(), compactRevision, compactRevision);
  let row = 0;
  const hasher = new KvHasher(compactRevision, at, { has: () => live.isKept(row) }, hasKeys);
  for (const { key, value } of rows()) {
    hasher.write(mainOf(key), subOf(key), isTombstone(key), value, 0, value.length);
    row++;
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

/** Which rows, by number, a read at `revision` sees among those at or below the compact revision. One for each key. */
function liveAt(
  rows: Iterable<{ key: Uint8Array; value: Uint8Array }>,
  revision: number,
  compactRevision: number,
): { readonly isKept: (row: number) => boolean; readonly hasKeys: boolean } {
  const header = kvHeader();
  const latest = new KeyRows();
  const kept = new Bits();
  let row = 0;
  for (const { key, value } of rows) {
    const main = mainOf(key);
    if (main > revision) break;
    readKvHeader(value, 0, value.length, header);
    const name = headerKey(value, header);
    const before = isTombstone(key) ? latest.delete(name) : latest.set(name, row);
    if (before >= 0) kept.remove(before);
    if (!isTombstone(key) && main <= compactRevision) kept.add(row);
    row++;
  }
  return { isKept: (number) => kept.has(number), hasKeys: latest.size > 0 };
}

/** A set of row numbers, one bit each. */
class Bits {
  #bytes = new Uint8Array(1024);

  has(number: number): boolean {
    return ((this.#bytes[Math.floor(number / 8)] ?? 0) & (1 << (number % 8))) !== 0;
  }

  add(number: number): void {
    const at = Math.floor(number / 8);
    if (at >= this.#bytes.length) {
      const grown = new Uint8Array(this.#bytes.length * 2);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes[at]! |= 1 << (number % 8);
  }

  remove(number: number): void {
    const at = Math.floor(number / 8);
    if (at < this.#bytes.length) this.#bytes[at]! &= ~(1 << (number % 8));
  }
}
