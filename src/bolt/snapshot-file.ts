/**
 * The snapshot file that `etcdctl snapshot save` writes and Maintenance.Snapshot streams: a bbolt file followed by the
 * 32 bytes of its sha256. Page sizes are multiples of 512 bytes, so a length 32 above such a multiple shows that the
 * checksum is there. Source: etcd v3.7, server/etcdserver/api/v3rpc/maintenance.go and etcdutl/snapshot.
 */
import { createHash } from "node:crypto";
import type { Disk, DiskFile } from "../base/disk.ts";
import { BoltError } from "./format.ts";
import { findMeta } from "./page-file.ts";

const SHA256_BYTES = 32;
const SECTOR_BYTES = 512;
const READ_BYTES = 256 * 1024;

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
    if (!hasTrailer(size)) throw hashMissing(path);
    const dataBytes = size - SHA256_BYTES;
    compareSha256(file, dataBytes, () => {});
    return dataBytes;
  });
}

/**
 * Copies the database of a snapshot file to a new file, without its checksum, which is compared when `verify` is set. Not
 * synced: the caller changes it first. Throws BoltError and node's errors; the copy is then of no use.
 */
export function copySnapshot(options: {
  disk: Disk;
  from: string;
  to: string;
  verify: boolean;
  progress: (totalBytes: number) => { add(bytes: number): void; end(): void };
}): void {
  const { disk, from, to, verify } = options;
  withFile(disk, from, "r", (source) => {
    const size = source.size();
    if (verify && !hasTrailer(size)) throw hashMissing(from);
    const dataBytes = hasTrailer(size) ? size - SHA256_BYTES : size;
    findMeta(source);
    const progress = options.progress(dataBytes);
    withFile(disk, to, "w", (target) => {
      const copy = (bytes: Uint8Array, at: number): void => {
        target.write(bytes, at);
        progress.add(bytes.length);
      };
      if (verify) compareSha256(source, dataBytes, copy);
      else readAll(source, dataBytes, copy);
    });
    progress.end();
  });
}

function hashMissing(path: string): BoltError {
  return new BoltError("hash-missing", path, undefined, "snapshot missing hash but --skip-hash-check=false");
}

/** Compares the checksum behind the data, which is shown to `visit` on the way. */
function compareSha256(file: DiskFile, dataBytes: number, visit: (bytes: Uint8Array, at: number) => void): void {
  const expected = Buffer.alloc(SHA256_BYTES);
  file.read(expected, dataBytes);
  const hash = createHash("sha256");
  readAll(file, dataBytes, (bytes, at) => {
    hash.update(bytes);
    visit(bytes, at);
  });
  const actual = hash.digest();
  if (actual.equals(expected)) return;
  const numbers = (bytes: Buffer) => `[${[...bytes].join(" ")}]`;
  const problem = `expected sha256 ${numbers(expected)}, got ${numbers(actual)}`;
  throw new BoltError("hash-mismatch", file.path, undefined, problem);
}

function readAll(file: DiskFile, bytes: number, visit: (bytes: Uint8Array, at: number) => void): void {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  for (let at = 0; at < bytes; ) {
    const count = file.read(buffer.subarray(0, Math.min(READ_BYTES, bytes - at)), at);
    if (count === 0) throw new BoltError("damaged", file.path, undefined, `ends at byte ${at} while it is being read`);
    visit(buffer.subarray(0, count), at);
    at += count;
  }
}

function sha256Of(file: DiskFile, bytes: number): Buffer {
  const hash = createHash("sha256");
  readAll(file, bytes, (part) => hash.update(part));
  return hash.digest();
}

function withFile<T>(disk: Disk, path: string, flags: "r" | "r+" | "w", action: (file: DiskFile) => T): T {
  const file = disk.open(path, flags, 0o600);
  try {
    return action(file);
  } finally {
    file.close();
  }
}
