import type { Clock } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import { lockHolderOf } from "../../base/file-locks.ts";
import type { Logger } from "../../base/log.ts";
import { type Backend, metaKeys } from "../../mvcc/backend/backend.ts";
import { BoltBackend } from "../../mvcc/backend/bolt.ts";
import { LmdbBackend } from "../../mvcc/backend/lmdb.ts";
import { checkPages } from "../../mvcc/backend/lmdb-check.ts";
import { isLmdbFile, otherOwnerOf } from "../../mvcc/backend/lmdb-file.ts";
import type { ServerMetrics } from "../contract/metrics.ts";
import type { BootstrapOptions } from "../contract/options.ts";
import { type OpenBackend, removeImport } from "../snapshot/installer.ts";
import { adoptDatabase } from "./adopt-database.ts";
import { DataDirError } from "./data-dir.ts";

const OWNER_WAIT_MS = 10_000;
const OWNER_POLL_MS = 100;

/** Opens backends with the member's settings, in the engine that was chosen. */
export function backendOpener(options: BootstrapOptions, metrics: ServerMetrics): OpenBackend {
  const { clock, logger } = options;
  const isBbolt = usesBbolt(options);
  const open =
    options.seams?.openBackend ?? ((settings) => (isBbolt ? new BoltBackend(settings) : new LmdbBackend(settings)));
  const openBackend = (path: string): Backend =>
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
  return Object.assign(openBackend, { opensReceived: isBbolt });
}

/**
 * Opens the member's database, or creates an empty one. Throws DataDirError and BackendError. One of stock etcd is opened in
 * place by the bbolt engine, and converted for LMDB.
 */
export async function openDatabase(
  path: string,
  openBackend: OpenBackend,
  options: BootstrapOptions,
): Promise<Backend> {
  const { disk, clock, logger } = options;
  if (usesBbolt(options)) return await openBbolt(path, openBackend, options);
  if (options.seams?.openBackend === undefined) {
    await waitForHolder(path, otherOwnerOf, clock, logger);
    await checkPages(path, clock);
  }
  removeImport(disk, path);
  return (await adoptDatabase({ disk, clock, logger, dbPath: path, openBackend })) ?? openBackend(path);
}

function usesBbolt(options: BootstrapOptions): boolean {
  const { openBackend } = options.seams ?? {};
  return openBackend === undefined ? options.database === "bbolt" : openBackend.opensReceived === true;
}

async function openBbolt(path: string, openBackend: OpenBackend, options: BootstrapOptions): Promise<Backend> {
  const { disk, clock, logger } = options;
  if (options.seams?.openBackend === undefined && disk.exists(path)) {
    if (isLmdbFile(path)) throw writtenByLmdb(path);
    await waitForHolder(path, otherLockHolder, clock, logger);
  }
  const backend = openBackend(path);
  try {
    checkVersion(backend, path);
    // What is free is known when the file has been looked through.
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

function writtenByLmdb(path: string): DataDirError {
  return new DataDirError(
    `${path} was written by this server in its own earlier format. Start it without KVORUM_DATABASE=bbolt, save a snapshot ` +
      "(etcdctl snapshot save), and restore that into a new data directory; in a cluster, remove the member and add it again",
  );
}

function otherLockHolder(path: string): number | undefined {
  const pid = lockHolderOf(path);
  return pid === process.pid ? undefined : pid;
}

/** The database's previous process may be ending: it releases the directory's lock before it exits. */
async function waitForHolder(
  dbPath: string,
  holderOf: (path: string) => number | undefined,
  clock: Clock,
  logger: Logger,
): Promise<void> {
  const startMs = clock.nowMs();
  for (let pid = holderOf(dbPath); pid !== undefined; pid = holderOf(dbPath)) {
    const waitedMs = clock.nowMs() - startMs;
    if (waitedMs > OWNER_WAIT_MS) return;
    if (waitedMs < OWNER_POLL_MS) {
      logger.warn("the database is in use by another process; waiting for it to end", { path: dbPath, pid });
    }
    await new Promise<void>((resolve) => clock.after(OWNER_POLL_MS, resolve));
  }
}
