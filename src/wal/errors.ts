/**
 * The errors of the log and of the snapshot files. Each has a code to decide on, names the file and, where it matters,
 * the byte offset, and says what is lost (if anything) and what to do. Errors of node's file calls are converted to
 * these.
 */
import { KvorumError } from "../base/errors.ts";

export type WalErrorCode =
  /** The directory holds no log. */
  | "WAL_NOT_FOUND"
  /** A log (or something else) is already where a new one should be created. */
  | "WAL_EXISTS"
  /**
   * The last segment ends in a record that was incomplete when the process or the machine stopped. `Wal.repair` cuts
   * it.
   */
  | "WAL_TORN_TAIL"
  /** A record, or the chain from one segment to the next, has the wrong checksum. */
  | "WAL_CRC_MISMATCH"
  /** Bytes that no writer of this format produces. */
  | "WAL_CORRUPT"
  /** A segment does not begin with its checksum and metadata records. */
  | "WAL_SHORT_HEADER"
  /** The segments' sequence numbers have a hole, or none reaches back to the snapshot. */
  | "WAL_SEGMENT_MISSING"
  /** Segments of different members or clusters lie in one directory. */
  | "WAL_METADATA_CONFLICT"
  /** The log does not mention the snapshot that it should continue from. */
  | "WAL_SNAPSHOT_NOT_FOUND"
  /** The log mentions the snapshot's index with another term. */
  | "WAL_SNAPSHOT_MISMATCH"
  /** Entry indexes skip a number. */
  | "WAL_ENTRY_GAP"
  /** An earlier write or sync failed; this log object accepts nothing more. */
  | "WAL_FAILED"
  /** fdatasync failed: data the kernel had not written may be lost, and a retry would hide that. */
  | "WAL_SYNC_FAILED"
  | FileErrorCode;

export type SnapErrorCode =
  | "SNAP_EMPTY"
  | "SNAP_CRC_MISMATCH"
  | "SNAP_CORRUPT"
  /** No `.snap.db` for the index. */
  | "SNAP_DB_NOT_FOUND"
  | FileErrorCode;

export type FileErrorCode = "NO_SPACE" | "READ_ONLY" | "NO_PERMISSION" | "IO";

interface FileErrorOptions {
  file: string;
  offset?: number | undefined;
  cause?: unknown;
}

class FileError<Code extends string> extends KvorumError<Code> {
  readonly code: Code;
  /** Path of the file or directory. */
  readonly file: string;
  /** Byte offset in the file, when the error is about one. */
  readonly offset: number | undefined;

  constructor(code: Code, message: string, options: FileErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.file = options.file;
    this.offset = options.offset;
  }
}

/** An error of the log, described by `code`. */
export class WalError extends FileError<WalErrorCode> {
  override name = "WalError";
}

/** An error of a snapshot file, described by `code`. */
export class SnapError extends FileError<SnapErrorCode> {
  override name = "SnapError";
}

/** A caller broke the contract of this folder: appending before reading, a second sync in flight. Never an operating error. */
export class WalUsageError extends KvorumError {
  override name = "WalUsageError";
  readonly code = "ERR_WAL_USAGE";
}

/** How to recover a member whose log is unusable: one text for every kind of damage. */
export const RECOVER_MEMBER =
  "If the rest of the cluster has a quorum, remove this member, delete its data directory and add it again as a new member; " +
  "it then copies everything from the leader. Without a quorum, restore the cluster from a backup. Keep a copy of the directory.";

/** Converts an error of a file call during `action` to a WalError; a WalError passes unchanged. */
export function walFileError(action: string, file: string, cause: unknown): WalError {
  if (cause instanceof WalError) return cause;
  const { code, advice } = classify(cause);
  return new WalError(code, `wal: cannot ${action} ${file}: ${describe(cause)}. ${advice}`, { file, cause });
}

/** Converts an error of a file call during `action` to a SnapError; a SnapError passes unchanged. */
export function snapFileError(action: string, file: string, cause: unknown): SnapError {
  if (cause instanceof SnapError) return cause;
  const { code, advice } = classify(cause);
  return new SnapError(code, `snap: cannot ${action} ${file}: ${describe(cause)}. ${advice}`, { file, cause });
}

function describe(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

export function errnoOf(cause: unknown): string | undefined {
  const code = (cause as { code?: unknown } | null | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

function classify(cause: unknown): { code: FileErrorCode; advice: string } {
  switch (errnoOf(cause)) {
    case "ENOSPC":
    case "EDQUOT":
      return {
        code: "NO_SPACE",
        advice:
          "Nothing acknowledged is lost. Free space on this file system (or raise the disk quota) and start the member again.",
      };
    case "EROFS":
      return {
        code: "READ_ONLY",
        advice:
          "Nothing acknowledged is lost. The file system is mounted read-only, which kernels also do after disk errors: " +
          "check the kernel log, then remount it writable and start the member again.",
      };
    case "EACCES":
    case "EPERM":
      return {
        code: "NO_PERMISSION",
        advice: "Nothing is lost. Give the user that runs this process read and write access to the data directory.",
      };
    default:
      return {
        code: "IO",
        advice: "Check the kernel log and the disk's health before starting the member again on the same disk.",
      };
  }
}
