/**
 * Durations of reads, of which many take a few microseconds: readings of the clock for each would be a part of that. So it
 * reads the clock once when the first of a turn begins and once behind the last, and each counts with its share of the time
 * between. What waits for longer, or is served in slices, is measured by itself.
 */
import type { Clock } from "../../base/clock.ts";
import type { ServerMetrics } from "../../server/contract/metrics.ts";

/** Reads of a turn that began at the same time. */
interface Run {
  readonly startMs: number;
  succeeded: number;
  failed: number;
}

export class ReadTiming {
  readonly #clock: Clock;
  readonly #metrics: ServerMetrics;
  readonly #name: string;
  readonly #isRange: boolean;
  #isOpen = false;
  /** When the first read of this turn began. */
  #turnMs = 0;
  #runs: Run[] = [];

  /** `name`: in the metrics. `isRange`: it counts as a range, too. */
  constructor(clock: Clock, metrics: ServerMetrics, name: string, isRange: boolean) {
    this.#clock = clock;
    this.#metrics = metrics;
    this.#name = name;
    this.#isRange = isRange;
  }

  /** The start of a read, or of its range when it has waited before. */
  begin(): number {
    if (!this.#isOpen) {
      this.#isOpen = true;
      this.#turnMs = this.#clock.nowMs();
      this.#clock.defer(this.#close);
    }
    return this.#turnMs;
  }

  /** `servedMs`: the start of the range itself, behind what it waited for. */
  end(startMs: number, servedMs: number, success: boolean): void {
    if (this.#isOpen && servedMs === this.#turnMs) {
      let run = this.#runs.at(-1);
      if (run === undefined || run.startMs !== startMs) {
        run = { startMs, succeeded: 0, failed: 0 };
        this.#runs.push(run);
      }
      if (success) run.succeeded++;
      else run.failed++;
      return;
    }
    const nowMs = this.#clock.nowMs();
    this.#metrics.observeRequest(this.#name, success, (nowMs - startMs) / 1000);
    if (this.#isRange) this.#metrics.ranges.observe(success, (nowMs - servedMs) / 1000);
  }

  readonly #close = (): void => {
    this.#isOpen = false;
    const runs = this.#runs;
    if (runs.length === 0) return;
    this.#runs = [];
    const nowMs = this.#clock.nowMs();
    let count = 0;
    for (const { succeeded, failed } of runs) count += succeeded + failed;
    const share = (nowMs - this.#turnMs) / 1000 / count;
    for (const { startMs, succeeded, failed } of runs) {
      const seconds = startMs === this.#turnMs ? share : (nowMs - startMs) / 1000;
      if (succeeded > 0) this.#observe(true, seconds, share, succeeded);
      if (failed > 0) this.#observe(false, seconds, share, failed);
    }
  };

  #observe(success: boolean, seconds: number, ofRange: number, times: number): void {
    this.#metrics.observeRequest(this.#name, success, seconds, times);
    if (this.#isRange) this.#metrics.ranges.observe(success, ofRange, times);
  }
}
