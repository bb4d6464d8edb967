/** A store by the text that a user gives for it. */
import { isAbsolute, resolve } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import type { Random } from "../../base/random.ts";
import { BackupError } from "../error.ts";
import { DirectoryStore } from "./directory.ts";
import type { Store } from "./store.ts";

export interface StoreWorld {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
}

/** A directory, `file:///path`, or `s3://bucket/prefix?endpoint=URL&region=NAME`. Throws BackupError. */
export function openStore(text: string, world: StoreWorld): Store {
  const path = text.startsWith("file://") ? text.slice("file://".length) : text;
  if (/^[a-z0-9]+:\/\//.test(path)) {
    throw new BackupError("ERR_BACKUP_USAGE", `${text} is no store: give a directory, or s3://bucket/prefix`);
  }
  return new DirectoryStore(isAbsolute(path) ? path : resolve(path), world.random);
}
