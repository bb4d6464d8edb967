import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { othersTurn } from "../base/others-turn.ts";
import { BoltReader } from "../bolt/reader.ts";
import { type Backend, BUCKETS, metaKeys } from "../mvcc/backend.ts";

/** Rows and bytes between two commits of the copy: two or three milliseconds of work. */
const SLICE_ROWS = 1000;
const SLICE_BYTES = 512 * 1024;
/** A key of the bucket `key`: main revision, '_', sub revision, and 't' for a tombstone. */
const REVISION_BYTES = 17;
const TOMBSTONE = 0x74;

/**
 * Copies a received database, a bbolt file, into an empty backend, and leaves it durable. Other work goes on meanwhile.
 * Rejects with what is wrong with the file: a checksum of its own a bbolt file has only for its first pages, so it is
 * its structure, the order of its keys and their form that are checked.
 */
export async function importDatabase(options: {
  disk: Disk;
  clock: Clock;
  path: string;
  backend: Backend;
}): Promise<void> {
  const { disk, clock, path, backend } = options;
  const reader = new BoltReader({ disk, path });
  try {
    for (const name of BUCKETS) {
      const bucket = reader.bucket(Buffer.from(name));
      if (bucket === undefined) continue;
      let rows = 0;
      let bytes = 0;
      for (const { key, value } of bucket.entries()) {
        if (name === "key") putRevision(backend, key, value, path);
        else backend.put(name, key, value);
        rows++;
        bytes += key.length + value.length;
        if (rows < SLICE_ROWS && bytes < SLICE_BYTES) continue;
        rows = 0;
        bytes = 0;
        await backend.commit();
        await othersTurn(clock);
      }
    }
    if (backend.get("meta", metaKeys.consistentIndex) === undefined) {
      throw new Error(
        `${path} is no database of etcd 3.5 or later: it does not say which entry of the log is its last`,
      );
    }
    await backend.commit();
  } finally {
    reader.close();
  }
}

function putRevision(backend: Backend, key: Uint8Array, value: Uint8Array, path: string): void {
  const row = Buffer.from(key.buffer, key.byteOffset, key.length);
  const isTombstone = key.length === REVISION_BYTES + 1 && key[REVISION_BYTES] === TOMBSTONE;
  if (key.length !== REVISION_BYTES && !isTombstone) {
    throw new Error(`${path} has a key of ${key.length} bytes in the bucket of the revisions`);
  }
  const main = Number(row.readBigInt64BE(0));
  const sub = Number(row.readBigInt64BE(9));
  // The row stays in memory until it is committed, and the page around it should not.
  const copy = Uint8Array.prototype.slice.call(value);
  backend.putRevision(main, sub, isTombstone, copy, 0, copy.length);
}
