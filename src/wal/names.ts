/**
 * Names of segments: `<sequence>-<index>.wal`, both as 16 hexadecimal digits. The sequence counts segments from zero, the
 * index is that of the first entry that the segment may hold.
 * Source: etcd server/storage/wal/doc.go
 */
import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import { errnoOf, RECOVER_MEMBER, WalError, walFileError } from "./errors.ts";

export interface SegmentName {
  readonly name: string;
  readonly seq: number;
  readonly index: number;
}

export function walName(seq: number, index: number): string {
  return `${hex16(seq)}-${hex16(index)}.wal`;
}

/** 16 lower-case hexadecimal digits, as in the names of segments and snapshots. */
export function hex16(value: number): string {
  return value.toString(16).padStart(16, "0");
}

function parseWalName(name: string): SegmentName | undefined {
  const match = /^([0-9a-f]{16})-([0-9a-f]{16})\.wal$/.exec(name);
  if (match === null) return undefined;
  const seq = Number.parseInt(match[1]!, 16);
  const index = Number.parseInt(match[2]!, 16);
  return Number.isSafeInteger(seq) && Number.isSafeInteger(index) ? { name, seq, index } : undefined;
}

/** True when the directory holds a file whose name ends in `.wal`. */
export function walExists(disk: Disk, dir: string): boolean {
  try {
    return disk.readDir(dir).some((name) => name.endsWith(".wal"));
  } catch (cause) {
    if (errnoOf(cause) === "ENOENT") return false;
    throw walFileError("list", dir, cause);
  }
}

/** The segments in rising order. Throws WAL_NOT_FOUND when there is none. Other files are named in a warning and ignored. */
export function listSegments(disk: Disk, dir: string, logger: Logger): SegmentName[] {
  let names: string[];
  try {
    names = disk.readDir(dir).sort();
  } catch (cause) {
    if (errnoOf(cause) !== "ENOENT") throw walFileError("list", dir, cause);
    names = [];
  }
  const segments: SegmentName[] = [];
  for (const name of names) {
    const segment = parseWalName(name);
    if (segment !== undefined) segments.push(segment);
    else if (!name.endsWith(".tmp") && !name.endsWith(".broken")) {
      logger.warn("ignored file in WAL directory", { path: `${dir}/${name}` });
    }
  }
  if (segments.length === 0) {
    throw new WalError("WAL_NOT_FOUND", `wal: no segment found in ${dir}. Check --data-dir and --wal-dir.`, {
      file: dir,
    });
  }
  return segments;
}

/** The segments needed to continue from the entry after `index`. Throws WAL_SEGMENT_MISSING when one is missing. */
export function selectSegments(dir: string, segments: readonly SegmentName[], index: number): SegmentName[] {
  let first = segments.length - 1;
  while (first >= 0 && segments[first]!.index > index) first--;
  if (first < 0) {
    throw new WalError(
      "WAL_SEGMENT_MISSING",
      `wal: the oldest segment ${segments[0]!.name} in ${dir} begins at index ${segments[0]!.index}, after snapshot index ` +
        `${index}: the entries between are missing. Put the missing segments or a newer snapshot back. ${RECOVER_MEMBER}`,
      { file: dir },
    );
  }
  const selected = segments.slice(first);
  checkSequence(dir, selected);
  return selected;
}

/** Throws WAL_SEGMENT_MISSING when the sequence numbers do not rise by one. */
export function checkSequence(dir: string, segments: readonly SegmentName[]): void {
  for (let i = 1; i < segments.length; i++) {
    const before = segments[i - 1]!;
    const after = segments[i]!;
    if (after.seq === before.seq + 1) continue;
    throw new WalError(
      "WAL_SEGMENT_MISSING",
      `wal: segments in ${dir} are not consecutive: ${before.name} is followed by ${after.name}. The entries of the missing ` +
        `segments are not in this directory. Put them back from a copy. ${RECOVER_MEMBER}`,
      { file: `${dir}/${after.name}` },
    );
  }
}
