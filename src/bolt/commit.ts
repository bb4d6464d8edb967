/**
 * A commit as an ordered list of file operations, and its two executors: blocking, on a separate thread, and in turns,
 * over a disk whose syncs take time. Only the order makes it survive a crash: pages, sync, meta page, sync.
 */
import type { DiskFile } from "../base/disk.ts";

export type CommitStep =
  | { readonly kind: "resize"; readonly sizeBytes: number }
  | { readonly kind: "write"; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: "sync" };

/**
 * Executes all operations, blocking the thread. Throws node's errors; whether the last operation took effect is then
 * unknown.
 */
export function commitNow(file: DiskFile, steps: Iterable<CommitStep>): void {
  for (const step of steps) {
    if (step.kind === "write") file.write(step.bytes, step.position);
    else if (step.kind === "resize") file.truncate(step.sizeBytes);
    else file.dataSync();
  }
}

/** Executes all operations without blocking in a sync. Rejects with node's errors. */
export async function commitInTurns(file: DiskFile, steps: Iterable<CommitStep>): Promise<void> {
  for (const step of steps) {
    if (step.kind === "write") file.write(step.bytes, step.position);
    else if (step.kind === "resize") file.truncate(step.sizeBytes);
    else {
      await new Promise<void>((resolve, reject) => {
        file.dataSyncAsync((error) => (error === null ? resolve() : reject(error)));
      });
    }
  }
}
