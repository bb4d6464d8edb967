/** What a database has at a revision, for reading in it. */
import type { BoltReader } from "../bolt/reader.ts";
import { headerKey, kvHeader, readKvHeader } from "../mvcc/model/kv-header.ts";
import { isTombstone, mainOf } from "../mvcc/model/revision.ts";
import type { ByteString } from "../mvcc/model/types.ts";
import { KeyValue } from "../proto/mvccpb.ts";

const KEY = Buffer.from("key");

/** The rows of the keys with a prefix that exist at a revision, by key, sorted. Memory: one entry for each such key. */
export function keysAt(reader: BoltReader, revision: number, prefix: ByteString): ReadonlyMap<ByteString, Uint8Array> {
  const rows = new Map<ByteString, Uint8Array>();
  const header = kvHeader();
  for (const { key: row, value } of reader.bucket(KEY)?.entries() ?? []) {
    if (mainOf(row) > revision) break;
    readKvHeader(value, 0, value.length, header);
    const key = headerKey(value, header);
    // A row without a key marks the revision to which a restore has moved the store.
    if (key === "" || !key.startsWith(prefix)) continue;
    if (isTombstone(row)) rows.delete(key);
    else rows.set(key, Buffer.from(row));
  }
  return new Map([...rows].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The pair of a row that `keysAt` gave. */
export function pairAt(reader: BoltReader, row: Uint8Array): KeyValue {
  return KeyValue.decode(reader.bucket(KEY)!.get(row)!);
}

export interface KeyChange {
  readonly key: ByteString;
  readonly change: "created" | "changed" | "deleted";
  /** The revision of its last change, and how many there were. */
  readonly revision: number;
  readonly changes: number;
}

/** How the keys with a prefix differ between two revisions, by key. Memory: one entry for each key that exists or changed. */
export function changesBetween(reader: BoltReader, from: number, to: number, prefix: ByteString): readonly KeyChange[] {
  const before = keysAt(reader, from, prefix);
  const header = kvHeader();
  const changed = new Map<ByteString, { revision: number; changes: number; exists: boolean }>();
  for (const { key: row, value } of reader.bucket(KEY)?.entries() ?? []) {
    const main = mainOf(row);
    if (main > to) break;
    if (main <= from) continue;
    readKvHeader(value, 0, value.length, header);
    const key = headerKey(value, header);
    if (key === "" || !key.startsWith(prefix)) continue;
    const changes = (changed.get(key)?.changes ?? 0) + 1;
    changed.set(key, { revision: main, changes, exists: !isTombstone(row) });
  }
  return [...changed]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([key, { revision, changes, exists }]): KeyChange[] => {
      if (!before.has(key)) return exists ? [{ key, change: "created", revision, changes }] : [];
      return [{ key, change: exists ? "changed" : "deleted", revision, changes }];
    });
}
