import { createHash } from "node:crypto";
import * as net from "node:net";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import type { Logger } from "../../base/log.ts";

/**
 * Locks a data directory for one process until it ends, however it ends: the kernel frees the name of an abstract
 * socket with its process, so no stale lock can remain.
 */

/** A killed process keeps its name until the kernel has freed its memory, which takes seconds for a large one. */
const HOLDER_WAIT_MS = 10_000;
const POLL_MS = 100;

export type LockOutcome = { readonly unlock: () => void } | { readonly heldBy: "this process" | "another process" };

/**
 * Waits for another process with the directory to end, and logs that; does not wait for another member in this process.
 */
export async function lockDirectory(
  dataDir: string,
  { disk, clock, logger }: { readonly disk: Disk; readonly clock: Clock; readonly logger: Logger },
  waitMs = HOLDER_WAIT_MS,
): Promise<LockOutcome> {
  const identity = createHash("sha256").update(disk.identityOf(dataDir)).digest("hex").slice(0, 32);
  if (heldHere.has(identity)) return { heldBy: "this process" };
  heldHere.add(identity);
  // Elsewhere the owner file beside the database excludes a second process.
  if (process.platform !== "linux") return { unlock: () => void heldHere.delete(identity) };
  const startMs = clock.nowMs();
  let hasWarned = false;
  for (;;) {
    const holder = await bind(`\0kvorum-data-dir-${identity}`).catch((error: unknown) => {
      heldHere.delete(identity);
      throw error;
    });
    if (holder !== undefined) {
      if (hasWarned) logger.info("the data directory is free now", { "data-dir": dataDir });
      return {
        unlock() {
          heldHere.delete(identity);
          holder.close();
        },
      };
    }
    if (clock.nowMs() - startMs >= waitMs) {
      heldHere.delete(identity);
      return { heldBy: "another process" };
    }
    if (!hasWarned) {
      logger.warn("the data directory is in use by another process; waiting for it to end", {
        "data-dir": dataDir,
        "wait-at-most": `${waitMs / 1000}s`,
      });
      hasWarned = true;
    }
    await new Promise<void>((resolve) => clock.after(POLL_MS, resolve));
  }
}

/** Directories locked by members of this process. */
const heldHere = new Set<string>();

/** Undefined while the name is taken. */
function bind(name: string): Promise<net.Server | undefined> {
  const server = net.createServer((socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(undefined);
      else reject(error);
    });
    server.listen(name, () => {
      // An idle lock must not end the process or keep it alive.
      server.on("error", () => {});
      server.unref();
      resolve(server);
    });
  });
}
