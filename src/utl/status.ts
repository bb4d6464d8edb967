/**
 * The content of a database file, as `etcdutl snapshot status` reports it. Source: etcd
 * `etcdutl/snapshot/v3_snapshot.go`.
 */
import { checkBolt } from "../bolt/check.ts";
import type { BoltReader } from "../bolt/reader.ts";
import { headerKey, kvHeader, readKvHeader } from "../mvcc/model/kv-header.ts";
import { isTombstone, mainOf } from "../mvcc/model/revision.ts";
import { RunningHash } from "../mvcc/store/hash.ts";
import { KeyRows } from "./key-rows.ts";
import { EXIT, ExitError } from "./utl.ts";

export interface DatabaseStatus {
  /** crc32c of all names, keys and values. */
  readonly hash: number;
  readonly revision: number;
  readonly totalKey: number;
  /** Bytes of the database, free pages included. */
  readonly totalSize: number;
  /** Storage version; empty before 3.6. */
  readonly version: string;
}

/** Reads everything once to check it, and once to count it. Throws ExitError with all problems, BoltError. */
export function statusOf(reader: BoltReader): DatabaseStatus {
  const problems = [...checkBolt(reader)];
  if (problems.length > 0) {
    throw new ExitError(
      EXIT.error,
      `snapshot file integrity check failed. ${problems.length} errors found.\n${problems.join("\n")}`,
    );
  }
  const hash = new RunningHash();
  const live = new KeyRows();
  const header = kvHeader();
  let revision = 0;
  for (const { name, bucket } of reader.root.buckets()) {
    hash.write(name, 0, name.length);
    const holdsRevisions = Buffer.from(name).toString() === "key";
    for (const { key, value } of bucket.entries()) {
      hash.write(key, 0, key.length);
      hash.write(value, 0, value.length);
      if (!holdsRevisions) continue;
      revision = mainOf(key);
      readKvHeader(value, 0, value.length, header);
      const name = headerKey(value, header);
      if (isTombstone(key)) live.delete(name);
      else live.set(name, 0);
    }
  }
  const version = reader.bucket(Buffer.from("meta"))?.get(Buffer.from("storageVersion"))?.toString() ?? "";
  return { hash: hash.finish(), revision, totalKey: live.size, totalSize: reader.sizeBytes, version };
}
