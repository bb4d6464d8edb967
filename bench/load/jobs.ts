/** What the load process can be asked to do, and what it answers: JSON in its one argument, JSON on its output. */

interface Shape {
  readonly port: number;
  readonly connections: number;
  /** Calls, or for streams messages, that one connection has under way at once. */
  readonly concurrency: number;
}

/** Ends after `seconds` (of which the first `warmUpSeconds` do not count) or after `count` calls, whichever is given. */
interface Bounds {
  readonly seconds?: number;
  readonly warmUpSeconds?: number;
  readonly count?: number;
}

export type Job =
  /** Put of random ones of `keys` keys. */
  | ({ readonly kind: "put"; readonly keys: number; readonly valueSize: number } & Shape & Bounds)
  /** Transactions of `opsPerTxn` puts each, to fill a store with the keys 0 to count × opsPerTxn. */
  | ({ readonly kind: "fill"; readonly opsPerTxn: number; readonly valueSize: number } & Shape & Bounds)
  /** A Kubernetes update: if the mod revision is the one last seen, put, else range. Each call in flight has its own keys. */
  | ({ readonly kind: "update"; readonly keysPerCall: number; readonly valueSize: number } & Shape & Bounds)
  /** Serializable or linearizable Range of random single ones of `keys` keys. */
  | ({ readonly kind: "get"; readonly keys: number; readonly serializable: boolean } & Shape & Bounds)
  /** `watchers` on one prefix, over all connections; `concurrency` puts under it at once; counts delivered events. */
  | ({ readonly kind: "watch"; readonly watchers: number; readonly valueSize: number } & Shape & Bounds)
  /** Keep-alives of `leases` leases over one stream for each connection. */
  | ({ readonly kind: "keepalive"; readonly leases: number } & Shape & Bounds);

export interface JobResult {
  /** Calls, events or keep-alives that counted. */
  readonly done: number;
  readonly seconds: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Calls that did not end with status 0, or answers that were not the expected ones. */
  readonly failed: number;
  /** Share of the time that the load process itself computed: near 1, the generator is the bottleneck. */
  readonly generatorCpu: number;
}
