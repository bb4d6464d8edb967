/**
 * A commit as an ordered list of what is done to the file, and the two who do it: on a thread of its own, and in turns over a
 * disk whose syncs take time. The order is all that a crash can be survived by: pages, sync, meta page, sync.
 */
import type { DiskFile } from "../base/disk.ts";

export type CommitStep =
  | { readonly kind: "resize"; readonly sizeBytes: number }
  | { readonly kind: "write"; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: "sync" };

/** Does all of it, blocking the thread. Throws node's errors; whether the last step took effect is then not known. */
export function commitNow(file: DiskFile, steps: Iterable<CommitStep>): void {
  for (const step of steps) {
    if (step.kind === "write") file.write(step.bytes, step.position);
    else if (step.kind === "resize") file.truncate(step.sizeBytes);
    else file.dataSync();
  }
}

/** Does all of it without blocking in a sync. Rejects with node's errors. */
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
