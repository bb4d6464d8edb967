import type { Clock, Timer } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import type { Logger } from "../../base/log.ts";
import type { CorruptionChecker } from "./corruption.ts";

export interface CorruptionMonitorOptions {
  readonly checker: CorruptionChecker;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly localId: string;
  readonly isLeader: () => boolean;
  /** Interval of data comparisons; 0 for never. */
  readonly checkMs: number;
  /** Interval of compaction hash comparisons; 0 for never. */
  readonly compactHashCheckMs: number;
}

/** Runs the leader's periodic checks of its members, one check of a kind at a time. */
export class CorruptionMonitor {
  readonly #options: CorruptionMonitorOptions;
  readonly #timers: Timer[] = [];

  constructor(options: CorruptionMonitorOptions) {
    this.#options = options;
  }

  start(): void {
    const { checker, checkMs, compactHashCheckMs, logger, localId } = this.#options;
    if (checkMs > 0) {
      logger.info("enabled corruption checking", { "local-member-id": localId, interval: goDuration(checkMs) });
      this.#every(checkMs, () => checker.checkPeriodically());
    }
    if (compactHashCheckMs > 0) this.#every(compactHashCheckMs, () => checker.checkCompactionHashes());
  }

  stop(): void {
    for (const timer of this.#timers) timer.cancel();
  }

  #every(periodMs: number, check: () => Promise<void>): void {
    const { clock, isLeader, logger } = this.#options;
    let checking = false;
    const timer = clock.every(periodMs, () => {
      if (checking || !isLeader()) return;
      checking = true;
      check()
        .catch((error: unknown) => logger.warn("failed to check hash KV", { error: `${error}` }))
        .finally(() => {
          checking = false;
        });
    });
    this.#timers.push(timer);
  }
}
