import { resolve } from "node:path";
import { systemClock } from "../base/clock.ts";
import { systemDisk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import type { Config } from "../config/config.ts";
import { isUnixSocket, parseUrlsByMember, type Url, unixSocketPath, urlTexts } from "../config/url.ts";
import type { EtcdOptions, ListenAddress } from "./etcd.ts";

/**
 * What a configuration means for a member on this machine's own clock, disk and randomness.
 * `onFailure` gets what ended the member: the process must end then.
 */
export function optionsFromConfig(config: Config, logger: Logger, onFailure: (error: unknown) => void): EtcdOptions {
  const { autoCompaction, features } = config;
  const initialCluster = new Map<string, readonly string[]>();
  for (const [name, urls] of parseUrlsByMember(config.initialCluster)) initialCluster.set(name, urlTexts(urls));
  return {
    server: {
      name: config.name,
      dataDir: resolve(config.dataDir === "" ? `${config.name}.etcd` : config.dataDir),
      walDir: config.walDir === "" ? undefined : resolve(config.walDir),
      initialCluster,
      initialClusterToken: config.initialClusterToken,
      advertiseClientUrls: urlTexts(config.advertiseClientUrls),
      tickMs: config.tickMs,
      electionTicks: Math.floor(config.electionMs / config.tickMs),
      preVote: config.preVote,
      snapshotCount: config.snapshotCount,
      snapshotCatchUpEntries: config.snapshotCatchUpEntries,
      maxSnapFiles: config.maxSnapshotFiles,
      maxWalFiles: config.maxWalFiles,
      unsafeNoFsync: config.unsafeNoFsync,
      quotaBackendBytes: config.quotaBackendBytes,
      backendBatchIntervalMs: config.backendBatchIntervalMs,
      backendBatchLimit: config.backendBatchLimit,
      compactionBatchLimit: config.compactionBatchLimit,
      compactionSleepIntervalMs: config.compactionSleepIntervalMs,
      maxRequestBytes: config.maxRequestBytes,
      maxTxnOps: config.maxTxnOps,
      warningApplyDurationMs: config.warningApplyDurationMs,
      autoCompactionMode: autoCompaction.mode,
      autoCompactionRetention:
        autoCompaction.mode === "periodic" ? autoCompaction.retentionMs : autoCompaction.retentionRevisions,
      leaseCheckpoint: features.enabled("LeaseCheckpoint"),
      leaseCheckpointPersist: features.enabled("LeaseCheckpointPersist"),
      clock: systemClock,
      random: systemRandom,
      disk: systemDisk,
      logger,
      onFailure,
    },
    listenClient: config.listenClientUrls.map(addressOf),
    listenClientHttp: config.listenClientHttpUrls.map(addressOf),
    listenMetrics: config.listenMetricsUrls.map(addressOf),
    maxConcurrentStreams: config.maxConcurrentStreams,
    keepalive: {
      minTimeMs: config.grpcKeepAliveMinTimeMs,
      permitWithoutStream: false,
      intervalMs: config.grpcKeepAliveIntervalMs || Number.POSITIVE_INFINITY,
      timeoutMs: config.grpcKeepAliveTimeoutMs,
    },
    cors: [...config.cors],
    hostWhitelist: [...config.hostWhitelist],
    watchProgressNotifyIntervalMs: config.watchProgressNotifyIntervalMs,
    extensiveMetrics: config.metrics === "extensive",
    enableGrpcGateway: config.enableGrpcGateway,
    features: features.list(),
  };
}

function addressOf(url: Url): ListenAddress {
  if (isUnixSocket(url)) return { kind: "unix", path: unixSocketPath(url), url: url.text };
  return { kind: "tcp", host: url.hostname, port: Number(url.port), url: url.text };
}
