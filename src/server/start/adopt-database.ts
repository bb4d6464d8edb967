import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { lockHolderOf } from "../../base/file-locks.ts";
import type { Logger } from "../../base/log.ts";
import { type Backend, metaKeys } from "../../mvcc/backend/backend.ts";
import { importDatabase } from "../snapshot/database-import.ts";
import { importPathOf, type OpenBackend, removeImport } from "../snapshot/installer.ts";
import { DataDirError } from "./data-dir.ts";

/** Path where stock etcd's database is kept after its conversion to our format. */
const adoptedPathOf = (dbPath: string): string => `${dbPath}.bbolt`;

/**
 * Takes over stock etcd's database, from a member or from `etcdutl snapshot restore`: the log and the snapshots beside
 * it have the same format; the bbolt file is copied into one of ours. The old file is kept under another name, so that
 * nothing is lost. Resolves to the open backend, or to null when there is no such database. A crash at any moment
 * leaves the old database, to restart from, or the complete new one.
 */
export async function adoptDatabase(options: {
  disk: Disk;
  clock: Clock;
  logger: Logger;
  dbPath: string;
  openBackend: OpenBackend;
}): Promise<Backend | null> {
  const { disk, clock, logger, dbPath, openBackend } = options;
  const kept = adoptedPathOf(dbPath);
  // Between the two renames below.
  if (!disk.exists(dbPath) && disk.exists(kept)) disk.rename(kept, dbPath);
  if (!disk.exists(dbPath) || !isBolt(disk, dbPath)) return null;
  const holder = lockHolderOf(dbPath);
  if (holder !== undefined) {
    throw new DataDirError(
      `the database ${dbPath} is in use by process ${holder}, a stock etcd: stop it first, or start this server with another --data-dir`,
    );
  }
  logger.info("converting the database of stock etcd", { path: dbPath });
  const startMs = clock.nowMs();
  const backend = openBackend(importPathOf(dbPath));
  try {
    await importDatabase({ disk, clock, path: dbPath, backend });
    checkVersion(backend, dbPath);
    disk.rename(dbPath, kept);
    backend.moveTo(dbPath);
  } catch (error) {
    await backend.close();
    removeImport(disk, dbPath);
    throw error;
  }
  logger.warn("converted the database of stock etcd; the old one is kept and can be removed", {
    path: dbPath,
    kept,
    "took-ms": Math.round(clock.nowMs() - startMs),
  });
  return backend;
}

/** etcd 3.4 does not store the term of its last entry and its members only in the database. */
function checkVersion(backend: Backend, path: string): void {
  if (backend.get("meta", metaKeys.term) !== undefined) return;
  throw new DataDirError(
    `${path} was written by etcd 3.4 or older, whose data cannot be converted. Nothing was changed. Run stock etcd 3.5 or ` +
      "later on it once, or restore a backup of it with etcdutl snapshot restore",
  );
}

const BOLT_MAGIC = 0xed0cdaed;
/** After the header of the first page, which bbolt writes in the machine's byte order. */
const BOLT_MAGIC_OFFSET = 16;

function isBolt(disk: Disk, path: string): boolean {
  const file = disk.open(path, "r");
  try {
    const bytes = Buffer.alloc(4);
    return file.read(bytes, BOLT_MAGIC_OFFSET) === bytes.length && bytes.readUInt32LE(0) === BOLT_MAGIC;
  } finally {
    file.close();
  }
}
