/** Commands on one thing take turns: a lock in a file beside it, which ends with the process. */
import { closeSync, openSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type FileLock, FileLockedError, lockFile } from "../../base/file-locks.ts";
import { makeDirs } from "../../base/make-dir.ts";
import { systemText } from "../../base/system-error.ts";
import { DeployError } from "./context.ts";
import { PRIVATE_DIR_MODE } from "./files.ts";

/** Throws DeployError when another command has it. */
export function lockBeside(path: string): FileLock {
  const lock = join(dirname(path), `.${basename(path)}.lock`);
  try {
    makeDirs(dirname(path), PRIVATE_DIR_MODE);
    closeSync(openSync(lock, "a", 0o600));
    return lockFile(lock);
  } catch (error) {
    if (!(error instanceof FileLockedError)) throw new DeployError(systemText(error));
    const who = error.holder === undefined ? "another command" : `process ${error.holder}`;
    throw new DeployError(`${who} works on this cluster: wait for it, or end it, and repeat the command`);
  }
}
