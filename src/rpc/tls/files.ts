import { readFileSync, statSync } from "node:fs";

/** What was wrong with a certificate, a key or a list of them; the message names the file and says what to do. */
export class TlsError extends Error {
  override readonly name = "TlsError";
}

/** Reads a file of `flag`. Throws `TlsError` beginning with Go's words for it. */
export function readTlsFile(path: string, flag: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TlsError(`${fileProblem(path, error)}: give ${flag} a file that this user may read`, { cause: error });
  }
}

/** What changes when a file is replaced or written; "absent" when it cannot be found. */
export function fileStamp(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "absent" : `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}`;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  ENOTDIR: "not a directory",
};

/** As Go words an error of the file system. */
export function fileProblem(path: string, error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "EISDIR") return `read ${path}: is a directory`;
  return `open ${path}: ${REASONS[code ?? ""] ?? message}`;
}
