import { resolve } from "node:path";
import { type EtcdOptions, startEtcd } from "../../api/etcd.ts";
import type { ListenAddress } from "../../api/listeners/listeners.ts";
import { systemClock } from "../../base/clock.ts";
import { systemDisk } from "../../base/disk.ts";
import type { StructuredLogger } from "../../base/log-logger.ts";
import { systemRandom } from "../../base/random.ts";
import type { Config } from "../../config/config.ts";
import { findLocalAddress } from "../../config/machine/local-address.ts";
import { isUnixSocket, parseUrlsByMember, type Url, unixSocketPath, urlTexts } from "../../config/values/url.ts";

/** A member as the program sees it. */
export interface Member {
  /** Client addresses that it serves: with port 0 the ones that the system chose. */
  readonly clientAddresses: readonly string[];
  /** The cluster has agreed on its version: the last that a start has to say. */
  readonly isSettled: boolean;
  close(): Promise<void>;
}

/**
 * Starts the member that a configuration describes, on this machine's clock, disk and network; resolves when it serves.
 * `onFailure` gets what ends it later: a disk that fails, a broken invariant. `onRemoved` is called when the cluster has
 * removed it, which may be before it ever serves.
 */
export async function startMember(
  config: Config,
  log: StructuredLogger,
  onFailure: (error: unknown) => void,
  onRemoved: () => void,
): Promise<Member> {
  const { server, ...rest } = etcdOptions(config, log, onFailure);
  const etcd = await startEtcd({ ...rest, server: { ...server, onRemoved } });
  return {
    clientAddresses: etcd.clientAddresses,
    get isSettled() {
      return etcd.server.cluster.version !== undefined;
    },
    close: () => etcd.close(),
  };
}

function etcdOptions(config: Config, log: StructuredLogger, onFailure: (error: unknown) => void): EtcdOptions {
  const listen = (url: Url): ListenAddress => listenAddress(url, config.socketReusePort);
  return {
    server: {
      name: config.name,
      dataDir: resolve(config.dataDir),
      walDir: config.walDir === "" ? undefined : resolve(config.walDir),
      ...initialCluster(config, log),
      newCluster: config.initialClusterState === "new",
      forceNewCluster: config.forceNewCluster,
      maxLearners: config.maxLearners,
      strictReconfigCheck: config.strictReconfigCheck,
      initialElectionTickAdvance: config.initialElectionTickAdvance,
      bootstrapDefragThresholdBytes: config.bootstrapDefragThresholdMegabytes * 1024 * 1024,
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
      turns: { activeMax: config.maxLongRequests, activePerOwnerMax: config.maxLongRequestsPerClient },
      warningApplyDurationMs: config.warningApplyDurationMs,
      warningUnaryRequestDurationMs: config.warningUnaryRequestDurationMs,
      autoCompactionMode: config.autoCompaction.mode,
      autoCompactionRetention:
        config.autoCompaction.mode === "periodic"
          ? config.autoCompaction.retentionMs
          : config.autoCompaction.retentionRevisions,
      checks: {
        initialCorruptCheck: config.features.enabled("InitialCorruptCheck"),
        corruptCheckMs: config.corruptCheckTimeMs,
        compactHashCheckMs: config.features.enabled("CompactHashCheck") ? config.compactHashCheckTimeMs : 0,
        downgradeCheckMs: config.downgradeCheckTimeMs,
      },
      fastLeaseKeepAlive: config.features.enabled("FastLeaseKeepAlive"),
      auth: {
        token: config.authToken,
        tokenTtlMs: config.authTokenTtlMs,
        bcryptCost: config.bcryptCost,
        clientCertAuth: config.clientTls.clientCertAuth,
      },
      leaseCheckpoint: config.features.enabled("LeaseCheckpoint"),
      leaseCheckpointPersist: config.features.enabled("LeaseCheckpointPersist"),
      clock: systemClock,
      random: systemRandom,
      disk: systemDisk,
      logger: log,
      raftLogger: log.named({ name: "raft" }),
      onFailure,
    },
    listenClient: config.listenClientUrls.map(listen),
    listenClientHttp: config.listenClientHttpUrls.map(listen),
    listenMetrics: config.listenMetricsUrls.map(listen),
    listenPeer: config.listenPeerUrls.map(listen),
    peerTls: {
      ...config.peerTls,
      selfSignedCertValidityYears: config.selfSignedCertValidityYears,
      cipherSuites: config.cipherSuites,
      minVersion: config.tlsMinVersion,
      maxVersion: config.tlsMaxVersion,
      flagPrefix: "peer-",
      serverName: config.peerServerName,
    },
    localAddress: findLocalAddress(config, log.named({ caller: "embed/config" })),
    raftReadTimeoutMs: config.peerReadTimeoutMs,
    raftWriteTimeoutMs: config.peerWriteTimeoutMs,
    clientTls: {
      ...config.clientTls,
      selfSignedCertValidityYears: config.selfSignedCertValidityYears,
      cipherSuites: config.cipherSuites,
      minVersion: config.tlsMinVersion,
      maxVersion: config.tlsMaxVersion,
      flagPrefix: "",
    },
    maxClientConnections: config.maxClientConnections,
    maxConcurrentStreams: config.maxConcurrentStreams,
    keepalive: {
      minTimeMs: config.grpcKeepAliveMinTimeMs,
      permitWithoutStream: false,
      intervalMs: config.grpcKeepAliveIntervalMs,
      timeoutMs: config.grpcKeepAliveTimeoutMs,
    },
    cors: [...config.cors],
    hostWhitelist: [...config.hostWhitelist],
    watchProgressNotifyIntervalMs: config.watchProgressNotifyIntervalMs,
    extensiveMetrics: config.metrics === "extensive",
    enableGrpcGateway: config.enableGrpcGateway,
    features: config.features.list(),
  };
}

/** With v3 discovery a member knows only itself, and the registry's token keeps clusters apart. */
function initialCluster(
  config: Config,
  log: StructuredLogger,
): Pick<EtcdOptions["server"], "initialCluster" | "initialClusterToken" | "discover"> {
  const { discovery } = config;
  if (discovery.endpoints.length > 0) {
    const options = { config: discovery, clock: systemClock, logger: log.named({ caller: "v3discovery/discovery" }) };
    return {
      initialCluster: new Map([[config.name, urlTexts(config.advertisePeerUrls)]]),
      initialClusterToken: discovery.token,
      discover: async (memberId, cluster) => {
        const { joinByDiscovery } = await import("./discovery.ts");
        return await joinByDiscovery(options, memberId, cluster);
      },
    };
  }
  const members = [...parseUrlsByMember(config.initialCluster)];
  return {
    initialCluster: new Map(members.map(([name, urls]) => [name, urlTexts(urls)])),
    initialClusterToken: config.initialClusterToken,
  };
}

/** `localhost` is the IPv4 loopback, as in Go, whatever the machine's resolver prefers. */
function listenAddress(url: Url, reusePort: boolean): ListenAddress {
  if (isUnixSocket(url)) return { kind: "unix", path: unixSocketPath(url), url: url.text };
  const host = url.hostname === "localhost" ? "127.0.0.1" : url.hostname;
  return { kind: "tcp", host, port: Number(url.port), name: url.hostname, reusePort, url: url.text };
}
