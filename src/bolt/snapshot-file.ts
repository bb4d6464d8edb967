/**
 * The snapshot file that `etcdctl snapshot save` writes and Maintenance.Snapshot streams: a bbolt file followed by the
 * 32 bytes of its sha256. Page sizes are multiples of 512 bytes, so a length 32 above such a multiple shows that the
 * checksum is there. Source: etcd v3.7, server/etcdserver/api/v3rpc/maintenance.go and etcdutl/snapshot.
 */
import { createHash } from "node:crypto";
import type { Disk, DiskFile } from "../base/disk.ts";
import { BoltError } from "./format.ts";

const SHA256_BYTES = 32;
const SECTOR_BYTES = 512;
const READ_BYTES = 256 * 1024;

/** Passes the database through and then yields its sha256. */
export function* withSha256Trailer(chunks: Iterable<Uint8Array>): Generator<Uint8Array, void, void> {
  const hash = createHash("sha256");
  for (const chunk of chunks) {
    hash.update(chunk);
    yield chunk;
  }
  yield hash.digest();
}

/** Appends the sha256 of a database file to it, durably. Throws BoltError if it has one, and node's errors. */
export function appendSha256Trailer(disk: Disk, path: string): void {
  withFile(disk, path, "r+", (file) => {
    const size = file.size();
    if (hasTrailer(size)) throw new BoltError("damaged", path, undefined, "already ends with a checksum");
    file.write(sha256Of(file, size), size);
    file.dataSync();
  });
}

/** Whether a file's length shows that it ends with a checksum. */
export function hasTrailer(fileBytes: number): boolean {
  return fileBytes % SECTOR_BYTES === SHA256_BYTES;
}

/**
 * Checks the sha256 at the end of a snapshot file.
 * @returns bytes of the database, without the checksum
 * @throws BoltError `hash-missing` or `hash-mismatch`, whose text after the file's name is etcdutl's; node's errors
 */
export function verifySnapshotFile(disk: Disk, path: string): number {
  return withFile(disk, path, "r", (file) => {
    const size = file.size();
    if (!hasTrailer(size)) {
      throw new BoltError("hash-missing", path, undefined, "snapshot missing hash but --skip-hash-check=false");
    }
    const dataBytes = size - SHA256_BYTES;
    const expected = Buffer.alloc(SHA256_BYTES);
    file.read(expected, dataBytes);
    const actual = sha256Of(file, dataBytes);
    if (!actual.equals(expected)) {
      const numbers = (bytes: Buffer) => `[${[...bytes].join(" ")}]`;
      const problem = `expected sha256 ${numbers(expected)}, got ${numbers(actual)}`;
      throw new BoltError("hash-mismatch", path, undefined, problem);
    }
    return dataBytes;
  });
}

function sha256Of(file: DiskFile, bytes: number): Buffer {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  for (let at = 0; at < bytes; ) {
    const count = file.read(buffer.subarray(0, Math.min(READ_BYTES, bytes - at)), at);
    if (count === 0) throw new BoltError("damaged", file.path, undefined, `ends at byte ${at} while it is being read`);
    hash.update(buffer.subarray(0, count));
    at += count;
  }
  return hash.digest();
}

function withFile<T>(disk: Disk, path: string, flags: "r" | "r+", action: (file: DiskFile) => T): T {
  const file = disk.open(path, flags);
  try {
    return action(file);
  } finally {
    file.close();
  }
}
