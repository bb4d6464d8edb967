/**
 * When the remaining time of long leases is written to the log, so that a new leader does not begin them again in full: the
 * leases by the time of their next checkpoint, one batch in flight at a time.
 */
import type { Logger } from "../base/log.ts";
import type { LeaseCheckpoint } from "../proto/etcdserverpb.ts";
import type { Lease } from "./lease.ts";
import { LeaseQueue } from "./lease-queue.ts";

/** Proposes a LeaseCheckpoint with at most 1000 entries; `done` is called once it is applied, or with the error. */
export type Checkpointer = (checkpoints: LeaseCheckpoint[], done: (error: Error | null) => void) => void;

const BATCH_MAX = 1_000;

export class Checkpoints {
  /** Null: none are made. */
  checkpointer: Checkpointer | null = null;
  readonly #intervalMs: number;
  readonly #logger: Logger;
  readonly #onDone: () => void;
  readonly #queue = new LeaseQueue();
  #inFlight = false;

  /** `onDone` is called after each batch, when the next may be due. */
  constructor(intervalMs: number, logger: Logger, onDone: () => void) {
    this.#intervalMs = intervalMs;
    this.#logger = logger;
    this.#onDone = onDone;
  }

  /** When `propose` has something to do; Infinity for never. */
  get dueMs(): number {
    return this.#inFlight ? Number.POSITIVE_INFINITY : this.#queue.topTimeMs;
  }

  /** The time of the lease begins, or it had a checkpoint. */
  schedule(lease: Lease, nowMs: number): void {
    if (this.checkpointer === null || lease.secondsLeft <= Math.trunc(this.#intervalMs / 1000)) return;
    const queued = lease.checkpointMs !== Number.POSITIVE_INFINITY;
    lease.checkpointMs = nowMs + this.#intervalMs;
    if (!queued) this.#queue.push(lease.checkpointMs, lease);
  }

  /** Proposes the checkpoints that are due. */
  propose(nowMs: number): void {
    if (this.checkpointer === null || this.#inFlight) return;
    const checkpoints = this.#take(nowMs);
    if (checkpoints.length === 0) return;
    if (this.#logger.debugEnabled) this.#logger.debug("checkpointing leases", { count: checkpoints.length });
    this.#inFlight = true;
    this.checkpointer(checkpoints, (error) => {
      this.#inFlight = false;
      if (error !== null) this.#logger.warn("failed to checkpoint leases", { error: error.message });
      this.#onDone();
    });
  }

  #take(nowMs: number): LeaseCheckpoint[] {
    const queue = this.#queue;
    const checkpoints: LeaseCheckpoint[] = [];
    while (queue.topTimeMs <= nowMs && checkpoints.length < BATCH_MAX) {
      const lease = queue.top;
      if (lease.revoked) queue.pop();
      else if (lease.checkpointMs > nowMs) queue.postponeTop(lease.checkpointMs);
      else {
        const remainingTtl = Math.ceil((lease.expiryMs - nowMs) / 1000);
        if (remainingTtl > 0 && remainingTtl < lease.ttl) checkpoints.push({ id: lease.id, remainingTtl });
        if (remainingTtl > this.#intervalMs / 1000) {
          lease.checkpointMs = nowMs + this.#intervalMs;
          queue.postponeTop(lease.checkpointMs);
        } else {
          lease.checkpointMs = Number.POSITIVE_INFINITY;
          queue.pop();
        }
      }
    }
    return checkpoints;
  }

  discard(isGone: (lease: Lease) => boolean): void {
    this.#queue.discard(isGone);
  }

  /** The time of all leases ends. */
  clear(): void {
    this.#queue.clear();
  }
}
