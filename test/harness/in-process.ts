/**
 * A server inside the test's own process, with a temporary directory and a port chosen by the system. Its log is kept
 * for the test to inspect.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Etcd, type EtcdOptions, startEtcd } from "../../src/api/etcd.ts";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { systemRandom } from "../../src/base/random.ts";
import { connect, type RawClient } from "../../src/client/raw.ts";
import type { BootstrapOptions } from "../../src/server/contract/options.ts";
import { MemoryLogger } from "./memory-logger.ts";

export { type LogLine, MemoryLogger } from "./memory-logger.ts";

/** A directory that is deleted by `remove`. */
export function tempDir(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "kvorum-test-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

export interface InProcessOptions {
  /** An existing data directory, whose owner removes it; a new one when absent. */
  readonly dataDir?: string;
  readonly server?: Partial<BootstrapOptions>;
  readonly etcd?: Partial<Omit<EtcdOptions, "server">>;
}

export interface InProcess {
  readonly etcd: Etcd;
  readonly dataDir: string;
  /** `http://127.0.0.1:port` */
  readonly url: string;
  readonly client: RawClient;
  readonly logger: MemoryLogger;
  /** Fatal errors that the server reported: must stay empty. */
  readonly failures: unknown[];
  /** Stops the server and deletes a directory created for it. */
  close(graceMs?: number): Promise<void>;
}

/** The options of a default member in `dataDir`. */
export function serverOptions(dataDir: string, changes: Partial<BootstrapOptions> = {}): BootstrapOptions {
  return {
    name: "default",
    dataDir,
    walDir: undefined,
    initialCluster: new Map([["default", ["http://localhost:2380"]]]),
    initialClusterToken: "etcd-cluster",
    newCluster: true,
    forceNewCluster: false,
    maxLearners: 1,
    strictReconfigCheck: true,
    initialElectionTickAdvance: true,
    bootstrapDefragThresholdBytes: 0,
    advertiseClientUrls: ["http://localhost:2379"],
    tickMs: 100,
    electionTicks: 10,
    preVote: true,
    snapshotCount: 10_000,
    snapshotCatchUpEntries: 5000,
    maxSnapFiles: 5,
    maxWalFiles: 5,
    walSegmentSizeBytes: 1024 * 1024,
    unsafeNoFsync: true,
    quotaBackendBytes: 0,
    backendBatchIntervalMs: 100,
    backendBatchLimit: 10_000,
    compactionBatchLimit: 1000,
    compactionSleepIntervalMs: 10,
    maxRequestBytes: 1.5 * 1024 * 1024,
    maxTxnOps: 128,
    warningApplyDurationMs: 100,
    warningUnaryRequestDurationMs: 300,
    autoCompactionMode: "periodic",
    autoCompactionRetention: 0,
    leaseCheckpoint: false,
    leaseCheckpointPersist: false,
    clock: systemClock,
    random: systemRandom,
    disk: systemDisk,
    logger: new MemoryLogger(),
    onFailure: (error) => {
      throw error;
    },
    ...changes,
  };
}

export async function startInProcess(options: InProcessOptions = {}): Promise<InProcess> {
  const own = options.dataDir === undefined ? tempDir() : undefined;
  const dataDir = options.dataDir ?? join(own!.path, "data");
  const logger = new MemoryLogger();
  const failures: unknown[] = [];
  try {
    const etcd = await startEtcd({
      server: serverOptions(dataDir, { logger, onFailure: (error) => failures.push(error), ...options.server }),
      listenClient: [{ kind: "tcp", host: "127.0.0.1", port: 0, url: "" }],
      listenClientHttp: [],
      listenMetrics: [],
      listenPeer: [],
      raftReadTimeoutMs: 5000,
      raftWriteTimeoutMs: 5000,
      maxClientConnections: 0,
      maxConcurrentStreams: 0xffffffff,
      keepalive: { minTimeMs: 5000, permitWithoutStream: false, intervalMs: 7_200_000, timeoutMs: 20_000 },
      cors: ["*"],
      hostWhitelist: ["*"],
      watchProgressNotifyIntervalMs: 600_000,
      extensiveMetrics: false,
      enableGrpcGateway: true,
      features: [],
      ...options.etcd,
    });
    const url = etcd.clientAddresses[0]!;
    const client = connect(url);
    return {
      etcd,
      dataDir,
      url,
      client,
      logger,
      failures,
      async close(graceMs = 100) {
        client.close();
        await etcd.close(graceMs);
        own?.remove();
      },
    };
  } catch (error) {
    own?.remove();
    throw error;
  }
}
