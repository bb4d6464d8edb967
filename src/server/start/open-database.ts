import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { goDuration } from "../../base/duration.ts";
import { lockHolderOf } from "../../base/file-locks.ts";
import type { Logger } from "../../base/log.ts";
import { type Backend, metaKeys } from "../../mvcc/backend/backend.ts";
import { BoltBackend } from "../../mvcc/backend/bolt-backend.ts";
import type { ServerMetrics } from "../contract/metrics.ts";
import type { BootstrapOptions } from "../contract/options.ts";
import type { OpenBackend } from "../snapshot/installer.ts";
import { DataDirError } from "./data-dir.ts";

const OWNER_WAIT_MS = 10_000;
const OWNER_POLL_MS = 100;

/** Opens backends with the member's settings. */
export function backendOpener(options: BootstrapOptions, metrics: ServerMetrics): OpenBackend {
  const { clock, logger } = options;
  const open = options.seams?.openBackend ?? ((settings) => new BoltBackend(settings));
  return (path) =>
    open({
      path,
      clock,
      logger,
      batchIntervalMs: options.backendBatchIntervalMs,
      batchLimit: options.backendBatchLimit,
      onFailure: options.onFailure,
      onCommit(ms) {
        metrics.backendCommit.observe(ms / 1000);
        if (logger.debugEnabled) logger.debug("committed the database", { took: goDuration(ms) });
      },
    });
}

/**
 * Opens the member's database, or creates an empty one: stock etcd's file, in place. Throws DataDirError and
 * BackendError.
 */
export async function openDatabase(
  path: string,
  openBackend: OpenBackend,
  options: BootstrapOptions,
): Promise<Backend> {
  const { disk, clock, logger } = options;
  if (options.seams?.openBackend === undefined && disk.exists(path)) {
    if (isLmdbFile(disk, path)) throw writtenByLmdb(path);
    await waitForHolder(path, clock, logger);
  }
  const backend = openBackend(path);
  try {
    checkVersion(backend, path);
    // Which pages are free is known only when the file has been looked through.
    if (options.bootstrapDefragThresholdBytes > 0 && backend instanceof BoltBackend) await backend.ready();
    return backend;
  } catch (error) {
    await backend.close();
    throw error;
  }
}

/** etcd 3.4 stores neither the term of its last entry nor, exclusively, its members in the database. */
function checkVersion(backend: Backend, path: string): void {
  const isEmpty = backend.get("meta", metaKeys.consistentIndex) === undefined;
  if (isEmpty || backend.get("meta", metaKeys.term) !== undefined) return;
  throw new DataDirError(
    `${path} was written by etcd 3.4 or older, whose data cannot be continued here. Nothing was changed. Run stock etcd 3.5 or ` +
      "later on it once, or restore a backup of it with etcdutl snapshot restore",
  );
}

/** Of the first versions of this server. */
function writtenByLmdb(path: string): DataDirError {
  return new DataDirError(
    `${path} was written by an earlier version of this server, in a format that this one does not read. Nothing was changed. ` +
      "Start the earlier version, save a snapshot (etcdctl snapshot save FILE), and restore that into a new data directory " +
      "(etcdutl snapshot restore FILE --data-dir DIR); in a cluster with other members, remove this one and add it again " +
      "with an empty directory",
  );
}

const LMDB_MAGIC = 0xbeefc0de;
/** In its first page, which has the machine's byte order. */
const LMDB_MAGIC_OFFSET = 24;

function isLmdbFile(disk: Disk, path: string): boolean {
  const file = disk.open(path, "r");
  try {
    const bytes = Buffer.alloc(4);
    return file.read(bytes, LMDB_MAGIC_OFFSET) === bytes.length && bytes.readUInt32LE(0) === LMDB_MAGIC;
  } finally {
    file.close();
  }
}

function otherLockHolder(path: string): number | undefined {
  const pid = lockHolderOf(path);
  return pid === process.pid ? undefined : pid;
}

/** The database's previous process may be ending: it releases the directory's lock before it exits. */
async function waitForHolder(dbPath: string, clock: Clock, logger: Logger): Promise<void> {
  const startMs = clock.nowMs();
  for (let pid = otherLockHolder(dbPath); pid !== undefined; pid = otherLockHolder(dbPath)) {
    const waitedMs = clock.nowMs() - startMs;
    if (waitedMs > OWNER_WAIT_MS) return;
    if (waitedMs < OWNER_POLL_MS) {
      logger.warn("the database is in use by another process; waiting for it to end", { path: dbPath, pid });
    }
    await new Promise<void>((resolve) => clock.after(OWNER_POLL_MS, resolve));
  }
}
