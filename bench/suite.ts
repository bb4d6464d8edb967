import type { Cluster } from "../test/harness/cluster.ts";
import type { Server } from "../test/harness/server.ts";

export interface Settings {
  /** Length of one measurement, after the warm-up. */
  readonly seconds: number;
  readonly warmUpSeconds: number;
  /** Keys of the `scale` suite. */
  readonly keys: number;
  /** Directory for h2load's bodies and logs. */
  readonly scratchDir: string;
}

/** One number from one server. */
export interface Measurement {
  readonly name: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  readonly value: number;
}

interface About {
  readonly name: string;
  /** What is measured, for the reader of the table. */
  readonly what: string;
  /** Additional flags, for both servers. */
  readonly serverArgs: readonly string[];
}

/** A group of measurements that share one fresh server. */
export interface ServerSuite extends About {
  run(server: Server, settings: Settings): Promise<Measurement[]>;
}

/** The same for a fresh cluster of three members. */
export interface ClusterSuite extends About {
  readonly tls: boolean;
  runCluster(cluster: Cluster, settings: Settings): Promise<Measurement[]>;
}

export type Suite = ServerSuite | ClusterSuite;
