/**
 * Cuts a torn tail off the last segment.
 *
 * Promises: a copy of the original segment is kept as `.broken`; only bytes after the last valid record are cut, which
 * no sync ever covered, so nothing acknowledged is lost; any other damage is left untouched and thrown.
 */
import type { Disk, DiskFile } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import { WalError, walFileError } from "./errors.ts";
import { LogReader } from "./log-reader.ts";
import { listSegments } from "./names.ts";

export interface RepairReport {
  /** False when the last segment was already intact. */
  readonly repaired: boolean;
  /** The segment. */
  readonly file: string;
  /** Where it was cut: the offset after its last valid record. */
  readonly offset: number;
  /** How many bytes were cut, without the zeros of reserved space. */
  readonly bytesCut: number;
  /** The copy of the original. */
  readonly brokenFile: string | undefined;
  /** One line for the operator. */
  readonly summary: string;
}

/** Reads the last segment. Throws WAL_TORN_TAIL when a crash tore its end, or the WalError of other damage. */
export function checkTail(disk: Disk, dir: string, logger: Logger): void {
  const reader = new LogReader(disk, dir, listSegments(disk, dir, logger).slice(-1));
  try {
    while (reader.next());
  } finally {
    reader.close();
  }
}

export function repair(disk: Disk, dir: string, logger: Logger): RepairReport {
  const last = listSegments(disk, dir, logger).at(-1)!;
  const file = `${dir}/${last.name}`;
  const reader = new LogReader(disk, dir, [last]);
  let torn: WalError | undefined;
  try {
    while (reader.next());
  } catch (error) {
    if (!(error instanceof WalError) || error.code !== "WAL_TORN_TAIL") throw error;
    torn = error;
  } finally {
    reader.close();
  }
  const offset = reader.validEnd;
  if (torn === undefined) {
    const summary = `${file} is whole up to offset ${offset}: nothing to repair`;
    return { repaired: false, file, offset, bytesCut: 0, brokenFile: undefined, summary };
  }

  const brokenFile = `${file}.broken`;
  let segment: DiskFile | undefined;
  try {
    segment = disk.open(file, "r+");
    const end = lastNonZero(segment, offset);
    copy(disk, segment, end, brokenFile);
    disk.syncDir(dir);
    segment.truncate(offset);
    segment.dataSync();
    const bytesCut = end - offset;
    const summary =
      `cut ${bytesCut} bytes of a torn write from ${file} at offset ${offset}; they were never synced, so nothing acknowledged ` +
      `is lost; the segment as it was is ${brokenFile}`;
    logger.warn("repaired WAL", { path: file, offset, "bytes-cut": bytesCut, "broken-path": brokenFile });
    return { repaired: true, file, offset, bytesCut, brokenFile, summary };
  } catch (cause) {
    throw walFileError("repair", file, cause);
  } finally {
    segment?.close();
  }
}

const CHUNK_BYTES = 1024 * 1024;
const ZEROS = Buffer.alloc(CHUNK_BYTES);

/** Offset after the last byte at or after `from` that is not zero; `from` when there is none. */
export function lastNonZero(file: DiskFile, from: number): number {
  const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, Math.max(1, file.size() - from)));
  let end = from;
  for (let position = from; ; ) {
    const count = file.read(chunk, position);
    if (count === 0) return end;
    if (chunk.compare(ZEROS, 0, count, 0, count) !== 0) {
      let last = count - 1;
      while (chunk[last] === 0) last--;
      end = position + last + 1;
    }
    position += count;
  }
}

/** Overwrites `[from, to)` with zeros. */
export function writeZeros(file: DiskFile, from: number, to: number): void {
  for (let position = from; position < to; position += CHUNK_BYTES) {
    file.write(ZEROS.subarray(0, Math.min(CHUNK_BYTES, to - position)), position);
  }
}

function copy(disk: Disk, from: DiskFile, size: number, to: string): void {
  const target = disk.open(to, "w", 0o600);
  try {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    for (let position = 0; position < size; ) {
      const count = from.read(chunk.subarray(0, Math.min(CHUNK_BYTES, size - position)), position);
      if (count === 0) break;
      target.write(chunk.subarray(0, count), position);
      position += count;
    }
    target.dataSync();
  } finally {
    target.close();
  }
}
