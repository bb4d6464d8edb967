import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { KvorumError } from "./errors.ts";

/**
 * The process that holds a lock of `flock` on a file, as stock etcd does on its database; undefined when none does, or
 * where the system does not report it. Node itself cannot take such a lock. Source: proc_locks(5).
 */
export function lockHolderOf(path: string): number | undefined {
  let locks: string;
  try {
    locks = fs.readFileSync("/proc/locks", "latin1");
  } catch {
    return undefined;
  }
  const { ino } = fs.statSync(path);
  for (const line of locks.split("\n")) {
    // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF". The device differs from stat()'s on some file systems.
    const [, kind, , , pid, file] = line.trim().split(/\s+/);
    if (kind === "FLOCK" && file?.split(":")[2] === `${ino}`) return Number(pid);
  }
  return undefined;
}

/** A file locked by this process. */
export interface FileLock {
  /** Idempotent. */
  release(): void;
}

/** Another process, or another part of this one, has the file locked. */
export class FileLockedError extends KvorumError {
  override name = "FileLockedError";
  readonly code = "ERR_FILE_LOCKED";
  /** Undefined when the system does not report it. */
  readonly holder: number | undefined;

  constructor(path: string, holder: number | undefined) {
    super(`${path} is locked${holder === undefined ? "" : ` by process ${holder}`}`);
    this.holder = holder;
  }
}

/**
 * Takes bbolt's exclusive lock on a file (flock), so that neither program opens what the other has. The lock ends with
 * the process, however that ends. Where such a lock is not available, locks of others are still detected. Throws
 * FileLockedError and node's errors.
 */
export function lockFile(path: string): FileLock {
  const fd = fs.openSync(path, "r+");
  try {
    const outcome = flockByProgram(fd) ?? flockByLibrary(fd);
    const holder = outcome === "locked" ? undefined : lockHolderOf(path);
    if (outcome === "held" || holder !== undefined) throw new FileLockedError(path, holder);
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  let isHeld = true;
  return {
    release() {
      if (isHeld) fs.closeSync(fd);
      isHeld = false;
    },
  };
}

type Outcome = "locked" | "held";

const LOCK_EX = 2;
const LOCK_NB = 4;

/** Undefined where the library for calling libc is not installed. Loading it takes longer than running the program. */
function flockByLibrary(fd: number): Outcome | undefined {
  try {
    flockCall ??= loadFlock();
  } catch {
    return undefined;
  }
  return flockCall(fd, LOCK_EX | LOCK_NB) === 0 ? "locked" : "held";
}

let flockCall: ((fd: number, operation: number) => number) | undefined;

function loadFlock(): (fd: number, operation: number) => number {
  const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
  return koffi.load(null).func("int flock(int fd, int operation)");
}

/** The lock belongs to the open file that both processes share, so it stays when the program has ended. */
function flockByProgram(fd: number): Outcome | undefined {
  const { status } = spawnSync("flock", ["-n", "-x", "3"], { stdio: ["ignore", "ignore", "ignore", fd] });
  return status === 0 ? "locked" : status === 1 ? "held" : undefined;
}
