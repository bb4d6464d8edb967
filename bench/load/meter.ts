import { Histogram } from "./histogram.ts";
import type { JobResult } from "./jobs.ts";

/** Counts results between the end of the warm-up and the end of the measurement. */
export class Meter {
  readonly #warmUpMs: number;
  readonly #startMs = performance.now();
  readonly #histogram = new Histogram();
  #measuredFrom: number;
  #cpuFrom = process.cpuUsage();
  #warm: boolean;
  #done = 0;
  failed = 0;

  constructor(warmUpSeconds: number) {
    this.#warmUpMs = warmUpSeconds * 1000;
    this.#warm = warmUpSeconds === 0;
    this.#measuredFrom = this.#startMs;
  }

  /** Counts `count` results that took `nowMs - startedMs` each. */
  add(startedMs: number, nowMs: number, count = 1): void {
    if (!this.#warm) {
      if (nowMs - this.#startMs < this.#warmUpMs) return;
      this.#warm = true;
      this.#measuredFrom = nowMs;
      this.#cpuFrom = process.cpuUsage();
    }
    this.#done += count;
    this.#histogram.add(nowMs - startedMs);
  }

  secondsRun(nowMs: number): number {
    return (nowMs - this.#startMs) / 1000;
  }

  result(): JobResult {
    const seconds = (performance.now() - this.#measuredFrom) / 1000;
    const { user, system } = process.cpuUsage(this.#cpuFrom);
    return {
      done: this.#done,
      seconds,
      perSecond: this.#done / seconds,
      p50Ms: this.#histogram.quantile(0.5),
      p99Ms: this.#histogram.quantile(0.99),
      failed: this.failed,
      generatorCpu: (user + system) / 1e6 / seconds,
    };
  }
}
