/**
 * The databases of members and snapshots, as files that no server is using: opened for reading, and rewritten
 * completely.
 *
 * A file is replaced only by a complete, durable one. Memory: the page cache of the reader and one page for each level
 * of the tree.
 */
import type { Clock } from "../base/clock.ts";
import { type FileLock, FileLockedError, lockFile, lockHolderOf } from "../base/file-locks.ts";
import type { BoltBucket } from "../bolt/bucket.ts";
import type { BoltEntry } from "../bolt/format.ts";
import { BoltReader } from "../bolt/reader.ts";
import { type BoltBucketSource, type BoltLayout, writeBoltFile } from "../bolt/writer.ts";
import { EXIT, ExitError, type Utl, type UtlIo } from "./utl.ts";

const POLL_MS = 50;

/** Path of a member's database below its data directory. */
export const databaseOf = (dataDir: string): string => `${dataDir}/member/snap/db`;
export const walDirOf = (dataDir: string): string => `${dataDir}/member/wal`;

/** Opens a database once no other process has it open. Throws ExitError, BoltError and node's errors. */
export async function openDatabase({ io, lockTimeoutMs }: Utl, path: string): Promise<BoltReader> {
  statFile(io, path);
  await waitForLock(io.clock, path, lockTimeoutMs);
  return new BoltReader({ disk: io.disk, path });
}

/** Throws with the text of Go's os.Stat when there is no such file. */
export function statFile({ disk }: UtlIo, path: string): void {
  if (!disk.exists(path)) throw new ExitError(EXIT.error, `stat ${path}: no such file or directory`);
}

async function waitForLock(clock: Clock, path: string, timeoutMs: number): Promise<void> {
  const endMs = clock.nowMs() + timeoutMs;
  for (let holder = lockHolderOf(path); holder !== undefined; holder = lockHolderOf(path)) {
    await pauseUntil(clock, endMs, path, holder);
  }
}

/** Locks the database against servers, as they do against each other. Throws ExitError and node's errors. */
async function lockDatabase(clock: Clock, path: string, timeoutMs: number): Promise<FileLock> {
  const endMs = clock.nowMs() + timeoutMs;
  for (;;) {
    try {
      return lockFile(path);
    } catch (error) {
      if (!(error instanceof FileLockedError)) throw error;
      await pauseUntil(clock, endMs, path, error.holder);
    }
  }
}

async function pauseUntil(clock: Clock, endMs: number, path: string, holder: number | undefined): Promise<void> {
  if (clock.nowMs() >= endMs) {
    throw new ExitError(
      EXIT.error,
      `timeout: process ${holder ?? "of unknown number"} has ${path} open. Stop the etcd that runs on it, or work on a copy or a snapshot`,
    );
  }
  await new Promise<void>((resolve) => clock.after(POLL_MS, resolve));
}

/** How a bucket changes when a database is rewritten. */
export interface BucketChange {
  readonly name: string;
  /** The bucket's new entries, from the old ones; ascending. */
  entries(old: Iterable<BoltEntry>): Iterable<BoltEntry>;
}

/** The buckets of a database in order, some of them changed or added. Throws ExitError for nested buckets. */
export function* changedBuckets(
  reader: BoltReader,
  changes: readonly BucketChange[],
  onBytes: (bytes: number) => void = () => {},
): Generator<BoltBucketSource, void, void> {
  const old = new Map<string, BoltBucket>();
  for (const { name, bucket } of reader.root.buckets()) old.set(Buffer.from(name).toString("latin1"), bucket);
  const names = new Set([...old.keys(), ...changes.map(({ name }) => name)]);
  for (const name of [...names].sort()) {
    const bucket = old.get(name);
    if (bucket !== undefined) refuseNested(reader, bucket, name);
    const entries = function* (): Generator<BoltEntry, void, void> {
      for (const entry of bucket?.entries() ?? []) {
        onBytes(entry.key.length + entry.value.length);
        yield entry;
      }
    };
    const change = changes.find((each) => each.name === name);
    yield {
      name: Buffer.from(name, "latin1"),
      entries: () => (change === undefined ? entries() : change.entries(entries())),
    };
  }
}

function refuseNested(reader: BoltReader, bucket: BoltBucket, name: string): void {
  if (bucket.rootTreePage().isLeaf && !bucket.buckets().next().done) {
    throw new ExitError(
      EXIT.error,
      `${reader.path}: the bucket ${name} holds other buckets, which no database of etcd does`,
    );
  }
}

/** Rewrites a database in place, without free pages. No server can start on it meanwhile. */
export async function rewriteDatabase(utl: Utl, path: string, changes: readonly BucketChange[]): Promise<BoltLayout> {
  const { disk, clock } = utl.io;
  const lock = await lockDatabase(clock, path, utl.lockTimeoutMs);
  try {
    const reader = new BoltReader({ disk, path });
    try {
      return writeBoltFile({ disk, path, buckets: changedBuckets(reader, changes) });
    } finally {
      reader.close();
    }
  } finally {
    lock.release();
  }
}
