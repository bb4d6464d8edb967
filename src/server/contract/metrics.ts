import { exponentialBuckets, Histogram } from "../../base/histogram.ts";

/** Durations of what may succeed or fail. */
class Outcomes {
  readonly succeeded: Histogram;
  readonly failed: Histogram;

  constructor(bounds: readonly number[]) {
    this.succeeded = new Histogram(bounds);
    this.failed = new Histogram(bounds);
  }

  observe(success: boolean, seconds: number, times = 1): void {
    (success ? this.succeeded : this.failed).observe(seconds, times);
  }
}

/** Counters of one member, kept as plain numbers: the metrics page reads them on request. */
export class ServerMetrics {
  /** Seconds per log sync. */
  readonly walSync = new Histogram(exponentialBuckets(0.001, 2, 14));
  /** Seconds per batch written to the log, without its sync. */
  readonly walWrite = new Histogram(exponentialBuckets(0.001, 2, 14));
  walWrittenBytes = 0;
  /** Seconds per backend commit. */
  readonly backendCommit = new Histogram(exponentialBuckets(0.001, 2, 14));
  /** Seconds per defragmentation. */
  readonly defragment = new Histogram(exponentialBuckets(0.1, 2, 13));
  /** Seconds per backup sent. */
  readonly backendSnapshot = new Histogram(exponentialBuckets(0.01, 2, 17));
  /** Seconds per hash of the whole backend. */
  readonly hash = new Histogram(exponentialBuckets(0.01, 2, 15));
  /** Seconds per hash of a revision. */
  readonly hashRevision = new Histogram(exponentialBuckets(0.01, 2, 15));
  /** Seconds per applied request, by its name. */
  readonly apply = new Map<string, Histogram>();
  /** Seconds per request of a client, from its arrival to its outcome, by its name. */
  readonly requests = new Map<string, Outcomes>();
  /** Seconds per range, without what it waited for. */
  readonly ranges = new Outcomes(exponentialBuckets(0.0001, 2, 20));
  /** Seconds per raft snapshot: encoding it, its sync, and all of it. */
  readonly snapshotEncode = new Histogram(exponentialBuckets(0.001, 2, 14));
  readonly snapshotSync = new Histogram(exponentialBuckets(0.001, 2, 14));
  readonly snapshotSave = new Histogram(exponentialBuckets(0.001, 2, 14));
  /** Seconds per database received: its sync, and from its first byte to the end of that. */
  readonly receivedSync = new Histogram(exponentialBuckets(0.001, 2, 14));
  readonly receivedSave = new Histogram(exponentialBuckets(0.1, 2, 10));
  /** TTLs of granted leases in seconds. */
  readonly leaseTtl = new Histogram(exponentialBuckets(1, 2, 24));
  leaderChanges = 0;
  heartbeatSendFailures = 0;
  readIndexesFailed = 0;
  slowReadIndexes = 0;
  learnerPromotions = 0;
  /** Failed promotions by reason. */
  readonly learnerPromotionsFailed = new Map<string, number>();
  /** 1 while a received snapshot replaces the state. */
  applyingSnapshot = 0;
  proposalsApplied = 0;
  proposalsFailed = 0;
  slowApplies = 0;
  leasesGranted = 0;
  leasesRevoked = 0;
  leasesExpired = 0;
  rangeCount = 0;
  puts = 0;
  putBytes = 0;
  deletes = 0;
  txns = 0;
  defragmenting = 0;

  observeRequest(name: string, success: boolean, seconds: number, times = 1): void {
    let outcomes = this.requests.get(name);
    if (outcomes === undefined) this.requests.set(name, (outcomes = new Outcomes(exponentialBuckets(0.001, 2, 14))));
    outcomes.observe(success, seconds, times);
  }

  observeApply(name: string, seconds: number): void {
    let histogram = this.apply.get(name);
    if (histogram === undefined) this.apply.set(name, (histogram = new Histogram(exponentialBuckets(0.0001, 2, 20))));
    histogram.observe(seconds);
  }
}
