import type { Clock } from "../../base/clock.ts";
import { type Disk, systemDisk } from "../../base/disk.ts";
import { othersTurn } from "../../base/others-turn.ts";
import { BoltReader } from "../../bolt/reader.ts";
import { type Backend, BUCKETS, type BucketName, metaKeys } from "../../mvcc/backend/backend.ts";
import { problemOfReceived, problemOfReceivedOnThread } from "../../mvcc/backend/received-check.ts";

/** Rows and bytes between two commits of the copy: two or three milliseconds of work. */
const SLICE_ROWS = 1000;
const SLICE_BYTES = 512 * 1024;
/** A key of the bucket `key`: main revision, '_', sub revision, and 't' for a tombstone. */
const REVISION_BYTES = 17;
const TOMBSTONE = 0x74;

/**
 * Copies a received database, a bbolt file, into an empty backend, and leaves it durable. Other work continues
 * meanwhile. Rejects with what is wrong with the file: a bbolt file has checksums only for its first pages, so its
 * structure and the order and form of its keys are checked.
 */
export async function importDatabase(options: {
  disk: Disk;
  clock: Clock;
  path: string;
  backend: Backend;
}): Promise<void> {
  const { disk, clock, path, backend } = options;
  const put = (name: BucketName, key: Uint8Array, value: Uint8Array): void => {
    if (name === "key") putRevision(backend, key, value, path);
    else backend.put(name, key, value);
  };
  await eachRow(disk, path, put, async () => {
    await backend.commit();
    await othersTurn(clock);
  });
  if (backend.get("meta", metaKeys.consistentIndex) === undefined) throw withoutIndex(path);
  await backend.commit();
}

/**
 * Rejects with the reason why a database cannot be installed. A received one is checked before raft learns of it: once
 * it is recorded in the log as this member's state, the member cannot start without it.
 */
export async function checkDatabase(options: { disk: Disk; clock: Clock; path: string }): Promise<void> {
  const { disk, clock, path } = options;
  const problem =
    disk === systemDisk && sizeOf(disk, path) > THREAD_BYTES_MIN
      ? await problemOfReceivedOnThread(path)
      : await problemOfReceived(disk, path, () => othersTurn(clock));
  if (problem !== undefined) throw new Error(problem);
}

/** A smaller file is checked, in slices, before a thread would have started. */
const THREAD_BYTES_MIN = 32 * 1024 * 1024;

function sizeOf(disk: Disk, path: string): number {
  const file = disk.open(path, "r");
  try {
    return file.size();
  } finally {
    file.close();
  }
}

/** Visits all rows, and calls `betweenSlices` after about a millisecond each. */
async function eachRow(
  disk: Disk,
  path: string,
  visit: (name: BucketName, key: Uint8Array, value: Uint8Array) => void,
  betweenSlices: () => Promise<void>,
): Promise<void> {
  const reader = new BoltReader({ disk, path });
  try {
    for (const name of BUCKETS) {
      const bucket = reader.bucket(Buffer.from(name));
      if (bucket === undefined) continue;
      let rows = 0;
      let bytes = 0;
      for (const { key, value } of bucket.entries()) {
        visit(name, key, value);
        rows++;
        bytes += key.length + value.length;
        if (rows < SLICE_ROWS && bytes < SLICE_BYTES) continue;
        rows = 0;
        bytes = 0;
        await betweenSlices();
      }
    }
  } finally {
    reader.close();
  }
}

const withoutIndex = (path: string): Error =>
  new Error(`${path} is no database of etcd 3.5 or later: it does not say which entry of the log is its last`);

/** True for a tombstone's row. Throws when the key is not a revision. */
function checkRevision(key: Uint8Array, path: string): boolean {
  const isTombstone = key.length === REVISION_BYTES + 1 && key[REVISION_BYTES] === TOMBSTONE;
  if (key.length !== REVISION_BYTES && !isTombstone) {
    throw new Error(`${path} has a key of ${key.length} bytes in the bucket of the revisions`);
  }
  return isTombstone;
}

function putRevision(backend: Backend, key: Uint8Array, value: Uint8Array, path: string): void {
  const row = Buffer.from(key.buffer, key.byteOffset, key.length);
  const isTombstone = checkRevision(key, path);
  const main = Number(row.readBigInt64BE(0));
  const sub = Number(row.readBigInt64BE(9));
  // The row stays in memory until it is committed, but its page should not.
  const copy = Uint8Array.prototype.slice.call(value);
  backend.putRevision(main, sub, isTombstone, copy, 0, copy.length);
}
