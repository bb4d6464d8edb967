/** Files that appear complete or not at all, and are read with errors that name them. */
import { chmodSync, closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf } from "../../base/errors.ts";
import { makeDirs } from "../../base/make-dir.ts";
import { systemText } from "../../base/system-error.ts";
import { DeployError } from "./context.ts";

export const SECRET_MODE = 0o600;
const PUBLIC_MODE = 0o644;
export const PRIVATE_DIR_MODE = 0o700;

/** Writes beside the file, makes it durable and renames it. Directories are created with mode 0700. */
export function writeWhole(path: string, content: string | Uint8Array, mode: number = PUBLIC_MODE): void {
  const fresh = `${path}.new`;
  try {
    makeDirs(dirname(path), PRIVATE_DIR_MODE);
    rmSync(fresh, { force: true });
    const fd = openSync(fresh, "wx", mode);
    try {
      const bytes = typeof content === "string" ? Buffer.from(content) : content;
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    // The mode of a new file is narrowed by the umask.
    chmodSync(fresh, mode);
    renameSync(fresh, path);
  } catch (error) {
    throw new DeployError(`cannot write ${path}: ${systemText(error)}`);
  }
}

/** Undefined when there is no such file. Throws DeployError. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new DeployError(systemText(error));
  }
}

/** Throws DeployError when there is no such file. */
export function readRequired(path: string, what: string): string {
  const text = readText(path);
  if (text === undefined) throw new DeployError(`${what}: ${path} does not exist`);
  return text;
}
