import { totalmem } from "node:os";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import type { Logger } from "../../base/log.ts";
import type { StoreWriter } from "../../bolt/store-writer.ts";
import type { BackendError } from "./backend.ts";

export interface BoltBackendOptions {
  /** The file. Its directory must exist. */
  readonly path: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A batch is committed this long after its first write (`--backend-batch-interval`). Default 100. */
  readonly batchIntervalMs?: number;
  /** A batch of this many operations is committed as soon as the one before is (`--backend-batch-limit`). Default 10000. */
  readonly batchLimit?: number;
  /** `overloaded` from this many bytes on that are not durable yet. Default 64 MiB. */
  readonly pendingBytesMax?: number;
  /** Bytes of pages kept in memory for reading; `usualCacheBytes` when absent. */
  readonly cacheBytes?: number;
  /** Called once when a commit in the background failed: memory is ahead of the disk for good. */
  readonly onFailure: (error: BackendError) => void;
  /** Told how long each commit took. */
  readonly onCommit?: (milliseconds: number) => void;
  /** Replaces the system's disk and its writer, for simulation. No other process can have its files. */
  readonly storage?: { readonly disk: Disk; readonly writer: (path: string) => StoreWriter };
}

const CACHE_MEMORY_SHARE = 32;
const CACHE_BYTES_MIN = 64 * 1024 * 1024;
const CACHE_BYTES_MAX = 512 * 1024 * 1024;

/**
 * A share of the memory that this process may use. Only what is read fills it, and the system keeps the rest of the file
 * as it can; a page that is not in it costs a system call.
 */
export function usualCacheBytes(memory = Math.min(totalmem(), process.constrainedMemory() || totalmem())): number {
  return Math.min(CACHE_BYTES_MAX, Math.max(CACHE_BYTES_MIN, Math.floor(memory / CACHE_MEMORY_SHARE)));
}
