import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { KvorumError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { LockDataDir } from "../contract/options.ts";
import { lockDirectory } from "./data-dir-lock.ts";

/** Only the owner may read clients' data. */
const PRIVATE_DIR_MODE = 0o700;

/** The locations of a member's files. */
export interface DataDir {
  readonly dataDir: string;
  readonly walDir: string;
  readonly snapDir: string;
  /** Path of the backend. */
  readonly dbPath: string;
  unlock(): void;
}

/** The data directory is unusable. The message names it and says what to do. */
export class DataDirError extends KvorumError {
  override name = "DataDirError";
  readonly code = "ERR_DATA_DIR";
}

export interface DataDirOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly lockDataDir?: LockDataDir | undefined;
}

/** Creates missing directories, checks that they are writable, and locks them for this process. */
export async function openDataDir(
  dataDir: string,
  dedicatedWalDir: string | undefined,
  options: DataDirOptions,
): Promise<DataDir> {
  const { disk, logger } = options;
  const snapDir = join(dataDir, "member", "snap");
  const walDir = dedicatedWalDir ?? join(dataDir, "member", "wal");
  makeDir(disk, dataDir, logger);
  makeDir(disk, snapDir, logger);
  // A missing one is created beside its place and moved there.
  checkWritable(disk, disk.exists(walDir) ? walDir : parentOf(walDir), logger);
  const unlock = await (options.lockDataDir?.(dataDir, disk) ?? lock(dataDir, options));
  return { dataDir, walDir, snapDir, dbPath: join(snapDir, "db"), unlock };
}

const parentOf = (path: string): string => join(path, "..");

function makeDir(disk: Disk, path: string, logger: Logger): void {
  const existed = disk.exists(path);
  try {
    disk.makeDir(path, PRIVATE_DIR_MODE);
  } catch (error) {
    throw new DataDirError(`cannot create directory ${path}: ${reasonOf(error)}`, { cause: error });
  }
  if (existed) warnIfShared(disk, path, logger);
  checkWritable(disk, path, logger);
}

function warnIfShared(disk: Disk, path: string, logger: Logger): void {
  const mode = disk.modeOf(path);
  if (mode === undefined || (mode & 0o077) === 0) return;
  logger.warn("check file permission", {
    error: `directory "${path}" exist, but the permission is "${mode.toString(8)}". The recommended permission is "700" to prevent possible unprivileged access to the data`,
  });
}

function checkWritable(disk: Disk, path: string, logger: Logger): void {
  if (!disk.exists(path)) return makeDir(disk, path, logger);
  const probe = join(path, ".touch");
  try {
    disk.open(probe, "w", 0o600).close();
    disk.remove(probe);
  } catch (error) {
    throw new DataDirError(`cannot write to directory ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case "EACCES":
    case "EPERM":
      return "permission denied: give it to the user that runs the server (chown), or start it as its owner";
    case "EROFS":
      return "the file system is read-only: remount it writable (after a disk error, check the disk first), or choose another --data-dir";
    case "ENOSPC":
      return "no space left on the device: free some, or choose a --data-dir on a larger disk";
    case "EDQUOT":
      return "the disk quota is used up: raise it, or free some";
    case "ENOTDIR":
      return "a part of the path is a file, not a directory: choose another --data-dir";
    case "ELINKGONE":
      return `${message}: make what it should lead to (is a disk not mounted?), or choose another --data-dir`;
    case "ELOOP":
      return "the symbolic links in the path lead in a circle: choose another --data-dir";
    case "ENAMETOOLONG":
      return "the path is too long: choose another --data-dir";
    case "ENOENT":
      return "directories cannot be made there, as in /proc: choose another --data-dir";
    default:
      return message;
  }
}

async function lock(dataDir: string, options: DataDirOptions): Promise<() => void> {
  const outcome = await lockDirectory(dataDir, options);
  if ("unlock" in outcome) return outcome.unlock;
  throw new DataDirError(
    `data directory ${dataDir} is in use by ${outcome.heldBy === "this process" ? "another member in this process" : "another process"}: ` +
      "two members cannot share one. Stop the other one first, or give this one its own --data-dir",
  );
}
