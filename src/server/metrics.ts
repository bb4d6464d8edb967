import { Histogram } from "../base/histogram.ts";

/** Counters of one member, kept as plain numbers: the metrics page reads them when it is asked. */
export class ServerMetrics {
  /** Seconds of one sync of the log. */
  readonly walSync = new Histogram(exponentialBuckets(0.001, 2, 14));
  leaderChanges = 0;
  proposalsApplied = 0;
  proposalsFailed = 0;
  leasesExpired = 0;
  ranges = 0;
}

/** `count` bounds from `start`, each `factor` times the one before. */
function exponentialBuckets(start: number, factor: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => start * factor ** i);
}
