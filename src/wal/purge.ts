/**
 * Removes the oldest files of one kind, as `--max-wals` and `--max-snapshots` ask for.
 *
 * Promises: never removes a file that is still needed, nor a newer one, whatever the limit. Source: etcd
 * client/pkg/fileutil/purge.go
 */
import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import { errnoOf, walFileError } from "./errors.ts";

export interface PurgeOptions {
  readonly disk: Disk;
  readonly dir: string;
  /** `.wal`, `.snap` or `.snap.db`. */
  readonly suffix: string;
  /** How many files to keep; 0 keeps all. */
  readonly max: number;
  readonly logger: Logger;
  /**
   * How many files to remove at most; all when absent. Removing one of 64 MiB takes the file system some milliseconds.
   */
  readonly atOnce?: number;
  /** True for a file that must stay, such as `(name) => wal.isHeld(name)`. */
  readonly isNeeded?: ((name: string) => boolean) | undefined;
}

/** Returns the names removed, oldest first. etcd does this every 30 seconds. Throws WalError. */
export function purgeFiles(options: PurgeOptions): string[] {
  const { disk, dir, suffix, max, logger, isNeeded, atOnce = Number.POSITIVE_INFINITY } = options;
  if (max === 0) return [];
  let names: string[];
  try {
    names = disk.readDir(dir).filter((name) => name.endsWith(suffix));
  } catch (cause) {
    throw walFileError("list", dir, cause);
  }
  const surplus = names.sort().slice(0, Math.max(0, names.length - max));
  const purged: string[] = [];
  for (const name of surplus) {
    if (purged.length >= atOnce || isNeeded?.(name) === true) break;
    const path = `${dir}/${name}`;
    try {
      disk.remove(path);
    } catch (cause) {
      if (errnoOf(cause) !== "ENOENT") throw walFileError("remove", path, cause);
      continue;
    }
    logger.info("purged", { path });
    purged.push(name);
  }
  return purged;
}
