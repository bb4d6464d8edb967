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
import { defaultConfig } from "../../src/config/config.ts";
import { urlTexts } from "../../src/config/values/url.ts";
import { AUTH_DEFAULTS, type BootstrapOptions, CHECK_DEFAULTS } from "../../src/server/contract/options.ts";
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
    ...defaultConfig,
    dataDir,
    walDir: undefined,
    initialCluster: new Map([["default", ["http://localhost:2380"]]]),
    newCluster: true,
    advertiseClientUrls: urlTexts(defaultConfig.advertiseClientUrls),
    electionTicks: 10,
    walSegmentSizeBytes: 1024 * 1024,
    unsafeNoFsync: true,
    autoCompactionMode: "periodic",
    autoCompactionRetention: 0,
    checks: CHECK_DEFAULTS,
    auth: AUTH_DEFAULTS,
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
      ...defaultConfig,
      server: serverOptions(dataDir, { logger, onFailure: (error) => failures.push(error), ...options.server }),
      listenClient: [{ kind: "tcp", host: "127.0.0.1", port: 0, url: "" }],
      listenClientHttp: [],
      listenMetrics: [],
      listenPeer: [],
      keepalive: { ...defaultConfig.keepalive, permitWithoutStream: false },
      clientTls: undefined,
      peerTls: undefined,
      extensiveMetrics: false,
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
