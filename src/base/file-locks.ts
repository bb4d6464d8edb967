import * as fs from "node:fs";

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
