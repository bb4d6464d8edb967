import { readFileSync, statSync } from "node:fs";
import { KvorumError } from "../../base/errors.ts";

/** An invalid certificate, key or list of them; the message names the file and says what to do. */
export class TlsError extends KvorumError {
  override readonly name = "TlsError";
  readonly code = "ERR_TLS";
}

/** Reads the file of `flag`. Throws `TlsError` beginning with Go's text. */
export function readTlsFile(path: string, flag: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TlsError(`${fileProblem(path, error)}: give ${flag} a file that this user may read`, { cause: error });
  }
}

/** Changes when a file is replaced or written; "absent" when it is not found. */
export function fileStamp(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "absent" : `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}`;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  ENOTDIR: "not a directory",
};

/** Go's text for a file system error. */
export function fileProblem(path: string, error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "EISDIR") return `read ${path}: is a directory`;
  return `open ${path}: ${REASONS[code ?? ""] ?? message}`;
}
