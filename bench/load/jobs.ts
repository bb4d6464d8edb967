/** The jobs of the load process and their results: JSON in its one argument, JSON on its output. */

interface Shape {
  readonly port: number;
  readonly connections: number;
  /** Calls, or for streams messages, in flight per connection. */
  readonly concurrency: number;
}

/**
 * Ends after `seconds` (excluding the first `warmUpSeconds` from the result) or after `count` calls, whichever is
 * given.
 */
interface Bounds {
  readonly seconds?: number;
  readonly warmUpSeconds?: number;
  readonly count?: number;
}

export type Job =
  /** Puts of random keys out of `keys`. */
  | ({ readonly kind: "put"; readonly keys: number; readonly valueSize: number } & Shape & Bounds)
  /** Transactions of `opsPerTxn` puts each, to fill a store with the keys 0 to count × opsPerTxn. */
  | ({ readonly kind: "fill"; readonly opsPerTxn: number; readonly valueSize: number } & Shape & Bounds)
  /**
   * A Kubernetes update: if the mod revision is the last one seen, put, else range. Each call in flight has its own
   * keys.
   */
  | ({ readonly kind: "update"; readonly keysPerCall: number; readonly valueSize: number } & Shape & Bounds)
  /** Serializable or linearizable Range of a random single key out of `keys`. */
  | ({ readonly kind: "get"; readonly keys: number; readonly serializable: boolean } & Shape & Bounds)
  /**
   * `watchers` on one prefix, over all connections; `concurrency` concurrent puts under it; counts delivered events.
   */
  | ({ readonly kind: "watch"; readonly watchers: number; readonly valueSize: number } & Shape & Bounds)
  /** Keep-alives of `leases` leases, over one stream per connection. */
  | ({ readonly kind: "keepalive"; readonly leases: number } & Shape & Bounds);

export interface JobResult {
  /** Calls, events or keep-alives counted. */
  readonly done: number;
  readonly seconds: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Calls that did not end with status 0, or had an unexpected answer. */
  readonly failed: number;
  /** The load process's own processor share: near 1, the generator is the bottleneck. */
  readonly generatorCpu: number;
}
