/** System errors in Go's words, which users of etcd's tools know. */
const SYSTEM_TEXTS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EISDIR: "is a directory",
  ENOTDIR: "not a directory",
  EEXIST: "file exists",
  ENOSPC: "no space left on device",
};

/** One line: `open /path: no such file or directory` for a file error, else the error's message. */
export function systemText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  const text = SYSTEM_TEXTS[code ?? ""];
  return text !== undefined && path !== undefined ? `${syscall} ${path}: ${text}` : error.message;
}
