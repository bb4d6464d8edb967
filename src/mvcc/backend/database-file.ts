import { basename, dirname, join } from "node:path";
import type { Disk } from "../../base/disk.ts";
import { BoltError } from "../../bolt/format.ts";
import { BackendError, type BackendErrorCode } from "./backend.ts";

/** The database file from outside: what an error means to an operator, and leftovers of a crash beside it. */

/** Removes leftovers of a defragmentation, or of the file's creation, interrupted by a crash. */
export function removeLeftovers(disk: Disk, path: string): void {
  const prefix = `${basename(path)}${DEFRAG_INFIX}`;
  for (const name of disk.readDir(dirname(path))) {
    if (name.startsWith(prefix) || name === `${basename(path)}.new`) disk.remove(join(dirname(path), name));
  }
}

export function defragPathOf(path: string): string {
  return `${path}${DEFRAG_INFIX}tmp`;
}

const DEFRAG_INFIX = ".defrag-";

export function corrupt(path: string, reason: string, cause?: unknown): BackendError {
  return new BackendError(
    "ERR_BACKEND_CORRUPT",
    `the database ${path} is damaged: ${reason}. Move the member's data directory away and add the member again, ` +
      "or restore a snapshot with etcdutl",
    { cause },
  );
}

export function closedError(path: string): BackendError {
  return new BackendError("ERR_BACKEND_CLOSED", `the database ${path} is closed`);
}

export function inUseError(path: string, holder: number | undefined): BackendError {
  const who = holder === undefined ? "another process" : `process ${holder}`;
  return new BackendError("ERR_BACKEND_IN_USE", `the database ${path} is in use by ${who}: stop that process first`);
}

/** Converts an error of the file system or the engine to one that says what to do. */
export function toBackendError(
  error: unknown,
  path: string,
  action: "open" | "read" | "commit" | "copy" | "move",
): BackendError {
  if (error instanceof BackendError) return error;
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof BoltError) {
    const prefix = `${error.file}: `;
    return corrupt(path, text.startsWith(prefix) ? text.slice(prefix.length) : text, error);
  }
  const kind = kindOf((error as { code?: unknown } | null)?.code);
  const reason = kind === "ERR_BACKEND_NO_SPACE" ? "no space left on device" : text;
  const advice = {
    ERR_BACKEND_NOT_WRITABLE: "make the file and its directory writable for this user",
    ERR_BACKEND_NO_SPACE: "free space on its disk and start again: nothing that was acknowledged is lost",
    ERR_BACKEND_IO: "check the disk and the kernel log",
  }[kind];
  return new BackendError(kind, `cannot ${action} the database ${path}: ${reason}; ${advice}`, { cause: error });
}

function kindOf(
  code: unknown,
): BackendErrorCode & ("ERR_BACKEND_NOT_WRITABLE" | "ERR_BACKEND_NO_SPACE" | "ERR_BACKEND_IO") {
  if (code === "EACCES" || code === "EPERM" || code === "EROFS") return "ERR_BACKEND_NOT_WRITABLE";
  if (code === "ENOSPC" || code === "EDQUOT") return "ERR_BACKEND_NO_SPACE";
  return "ERR_BACKEND_IO";
}
