import { createHash } from "node:crypto";
import * as net from "node:net";
import { join } from "node:path";
import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";

/** Only the owner may read what clients store. */
const PRIVATE_DIR_MODE = 0o700;

/** Where a member keeps its files. */
export interface DataDir {
  readonly dataDir: string;
  readonly walDir: string;
  readonly snapDir: string;
  /** Path of the backend. */
  readonly dbPath: string;
  unlock(): void;
}

/** Keeps others out of a data directory until the function that it resolves to is called. Rejects while another has it. */
export type LockDataDir = (dataDir: string, disk: Disk) => Promise<() => void>;

/** The data directory cannot be used. The message names it and says what to do. */
export class DataDirError extends Error {
  override name = "DataDirError";
}

/** Makes the directories that are missing, checks that they can be written, and takes them for this process alone. */
export async function openDataDir(
  disk: Disk,
  dataDir: string,
  dedicatedWalDir: string | undefined,
  logger: Logger,
  lockDataDir: LockDataDir = lock,
): Promise<DataDir> {
  const snapDir = join(dataDir, "member", "snap");
  const walDir = dedicatedWalDir ?? join(dataDir, "member", "wal");
  makeDir(disk, dataDir, logger);
  makeDir(disk, snapDir, logger);
  if (dedicatedWalDir !== undefined) checkWritable(disk, parentOf(dedicatedWalDir), logger);
  const unlock = await lockDataDir(dataDir, disk);
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
    throw new DataDirError(`cannot write to data directory ${path}: ${reasonOf(error)}`, { cause: error });
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
    case "ENOTDIR":
    case "EEXIST":
      return "a part of the path is a file, not a directory: choose another --data-dir";
    default:
      return message;
  }
}

/**
 * Takes the directory for this process until it ends, however it ends: the kernel frees the name of an abstract socket
 * with its process, so no stale lock can be left behind.
 */
async function lock(dataDir: string, disk: Disk): Promise<() => void> {
  const identity = createHash("sha256").update(disk.identityOf(dataDir)).digest("hex").slice(0, 32);
  const holder = net.createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    holder.once("error", (error: NodeJS.ErrnoException) => {
      reject(
        error.code === "EADDRINUSE"
          ? new DataDirError(
              `data directory ${dataDir} is in use by another process: two members cannot share one. Stop the other one first, or give this one its own --data-dir`,
            )
          : error,
      );
    });
    holder.listen(`\0kvorum-data-dir-${identity}`, resolve);
  });
  holder.unref();
  return () => void holder.close();
}
