import type { Clock } from "../../base/clock.ts";
import { Histogram } from "../../base/histogram.ts";
import type { Labels } from "../../base/metrics-text.ts";
import type { CallInfo } from "../../rpc/contract.ts";
import { methodLabels } from "./method-labels.ts";

/**
 * Durations of calls in seconds, by method: `--metrics=extensive`. Costs two clock readings per call, so it is off by
 * default.
 */
export class RpcDurations {
  readonly #clock: Clock;
  readonly #starts = new Map<CallInfo, number>();
  readonly #histograms = new Map<string, Histogram>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  readonly onCallStart = (call: CallInfo): void => {
    this.#starts.set(call, this.#clock.nowMs());
  };

  readonly onCallEnd = (call: CallInfo): void => {
    const startMs = this.#starts.get(call);
    if (startMs === undefined) return;
    this.#starts.delete(call);
    let histogram = this.#histograms.get(call.path);
    if (histogram === undefined) this.#histograms.set(call.path, (histogram = new Histogram(BUCKETS_SECONDS)));
    histogram.observe((this.#clock.nowMs() - startMs) / 1000);
  };

  *byMethod(): Iterable<readonly [Labels, Histogram]> {
    for (const [path, histogram] of this.#histograms) yield [methodLabels(path, false), histogram];
  }
}

/** Default buckets of Prometheus's Go client. */
const BUCKETS_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
