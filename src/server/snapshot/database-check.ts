import type { Clock } from "../../base/clock.ts";
import { type Disk, systemDisk } from "../../base/disk.ts";
import { othersTurn } from "../../base/others-turn.ts";
import { problemOfReceived, problemOfReceivedOnThread } from "../../mvcc/backend/received-check.ts";

/**
 * Rejects with the reason why a database cannot be installed. A received one is checked before raft learns of it: once
 * it is recorded in the log as this member's state, the member cannot start without it.
 */
export async function checkDatabase(options: { disk: Disk; clock: Clock; path: string }): Promise<void> {
  const { disk, clock, path } = options;
  const problem =
    disk === systemDisk && sizeOf(disk, path) > THREAD_BYTES_MIN
      ? await problemOfReceivedOnThread(path)
      : await problemOfReceived(disk, path, () => othersTurn(clock));
  if (problem !== undefined) throw new Error(problem);
}

/** A smaller file is checked, in slices, before a thread would have started. */
const THREAD_BYTES_MIN = 32 * 1024 * 1024;

function sizeOf(disk: Disk, path: string): number {
  const file = disk.open(path, "r");
  try {
    return file.size();
  } finally {
    file.close();
  }
}
