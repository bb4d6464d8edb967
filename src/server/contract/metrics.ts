import { exponentialBuckets, Histogram } from "../../base/histogram.ts";

/** Counters of one member, kept as plain numbers: the metrics page reads them when it is asked. */
export class ServerMetrics {
  /** Seconds of one sync of the log. */
  readonly walSync = new Histogram(exponentialBuckets(0.001, 2, 14));
  /** Seconds of writing one batch to the log, without its sync. */
  readonly walWrite = new Histogram(exponentialBuckets(0.001, 2, 14));
  walWrittenBytes = 0;
  /** Seconds of one commit of the backend. */
  readonly backendCommit = new Histogram(exponentialBuckets(0.001, 2, 14));
  /** Seconds of one defragmentation. */
  readonly defragment = new Histogram(exponentialBuckets(0.1, 2, 13));
  /** Seconds of sending one backup of the backend. */
  readonly backendSnapshot = new Histogram(exponentialBuckets(0.01, 2, 17));
  /** Seconds of one hash of everything. */
  readonly hash = new Histogram(exponentialBuckets(0.01, 2, 15));
  /** Seconds of one hash of a revision. */
  readonly hashRevision = new Histogram(exponentialBuckets(0.01, 2, 15));
  /** Seconds of applying one request, by its name. */
  readonly apply = new Map<string, Histogram>();
  /** Seconds that granted leases live. */
  readonly leaseTtl = new Histogram(exponentialBuckets(1, 2, 24));
  leaderChanges = 0;
  heartbeatSendFailures = 0;
  readIndexesFailed = 0;
  slowReadIndexes = 0;
  learnerPromotions = 0;
  /** Failed promotions by their reason. */
  readonly learnerPromotionsFailed = new Map<string, number>();
  /** 1 while a received snapshot replaces the state. */
  applyingSnapshot = 0;
  proposalsApplied = 0;
  proposalsFailed = 0;
  slowApplies = 0;
  leasesGranted = 0;
  leasesRevoked = 0;
  leasesExpired = 0;
  ranges = 0;
  puts = 0;
  putBytes = 0;
  deletes = 0;
  txns = 0;
  defragmenting = 0;

  observeApply(name: string, seconds: number): void {
    let histogram = this.apply.get(name);
    if (histogram === undefined) this.apply.set(name, (histogram = new Histogram(exponentialBuckets(0.0001, 2, 20))));
    histogram.observe(seconds);
  }
}
