import { resolve } from "node:path";
import { type EtcdOptions, startEtcd } from "../../api/etcd.ts";
import type { ListenAddress } from "../../api/listeners/listeners.ts";
import { systemClock } from "../../base/clock.ts";
import { systemDisk } from "../../base/disk.ts";
import type { StructuredLogger } from "../../base/log-logger.ts";
import { systemRandom } from "../../base/random.ts";
import { ETCD_VERSION } from "../../base/versions.ts";
import type { Config } from "../../config/config.ts";
import { findLocalAddress } from "../../config/machine/local-address.ts";
import { isUnixSocket, parseUrlsByMember, type Url, unixSocketPath, urlTexts } from "../../config/values/url.ts";

/** The program's view of a member. */
export interface Member {
  /** Client addresses served; for port 0, the port that the system chose. */
  readonly clientAddresses: readonly string[];
  /** The cluster version is set: the last event of a start. */
  readonly isSettled: boolean;
  close(): Promise<void>;
}

/**
 * Starts the configured member on this machine's clock, disk and network; resolves when it serves. `onFailure` gets the
 * error that ends it later: a failed disk, a broken invariant. `onRemoved` is called when the cluster has removed it,
 * possibly before it serves.
 */
export async function startMember(
  config: Config,
  log: StructuredLogger,
  onFailure: (error: unknown) => void,
  onRemoved: () => void,
): Promise<Member> {
  const { server, ...rest } = etcdOptions(config, log, onFailure);
  const tracing = await openTracing(config, log);
  const tracer = tracing?.tracer;
  const etcd = await startEtcd({ ...rest, tracer, server: { ...server, onRemoved, trace: tracer } });
  return {
    clientAddresses: etcd.clientAddresses,
    get isSettled() {
      return etcd.server.cluster.version !== undefined;
    },
    async close() {
      await etcd.close();
      await tracing?.exporter.close();
    },
  };
}

/** Undefined when it is off; what it needs is not even loaded then. */
async function openTracing({ tracing }: Config, log: StructuredLogger) {
  if (!tracing.enabled) return undefined;
  const [{ Tracer }, { TraceExporter }] = await Promise.all([
    import("../../api/tracing/tracer.ts"),
    import("./trace-exporter.ts"),
  ]);
  const { address, serviceName, instanceId, samplingRatePerMillion } = tracing;
  const resource = { serviceName, instanceId, version: ETCD_VERSION };
  const exporter = new TraceExporter({ address, resource, clock: systemClock, logger: log });
  const options = { clock: systemClock, random: systemRandom, samplingRatePerMillion, sink: exporter };
  log.debug("distributed tracing enabled", {
    address,
    "service-name": serviceName,
    "service-instance-id": instanceId,
    "sampling-rate": samplingRatePerMillion,
  });
  return { tracer: new Tracer(options), exporter };
}

/**
 * Settings are passed under their definitions' `field` names, which are the names of the options. Those listed here
 * combine several values, or have another form.
 */
function etcdOptions(config: Config, log: StructuredLogger, onFailure: (error: unknown) => void): EtcdOptions {
  const listen = (url: Url): ListenAddress => listenAddress(url, config.socketReusePort);
  const { autoCompaction, features } = config;
  const isPeriodic = autoCompaction.mode === "periodic";
  const bothSides = {
    selfSignedCertValidityYears: config.selfSignedCertValidityYears,
    cipherSuites: config.cipherSuites,
    minVersion: config.tlsMinVersion,
    maxVersion: config.tlsMaxVersion,
  };
  return {
    ...config,
    server: {
      ...config,
      dataDir: resolve(config.dataDir),
      walDir: config.walDir === "" ? undefined : resolve(config.walDir),
      ...initialCluster(config, log),
      newCluster: config.initialClusterState === "new",
      advertiseClientUrls: urlTexts(config.advertiseClientUrls),
      electionTicks: Math.floor(config.electionMs / config.tickMs),
      autoCompactionMode: autoCompaction.mode,
      autoCompactionRetention: isPeriodic ? autoCompaction.retentionMs : autoCompaction.retentionRevisions,
      checks: {
        ...config.checks,
        initialCorruptCheck: features.enabled("InitialCorruptCheck"),
        compactHashCheckMs: features.enabled("CompactHashCheck") ? config.checks.compactHashCheckMs : 0,
      },
      auth: { ...config.auth, clientCertAuth: config.clientTls.clientCertAuth },
      fastLeaseKeepAlive: features.enabled("FastLeaseKeepAlive"),
      leaseCheckpoint: features.enabled("LeaseCheckpoint"),
      leaseCheckpointPersist: features.enabled("LeaseCheckpointPersist"),
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
    clientTls: { ...config.clientTls, ...bothSides, flagPrefix: "" },
    peerTls: { ...config.peerTls, ...bothSides, flagPrefix: "peer-", serverName: config.peerServerName },
    localAddress: findLocalAddress(config, log.named({ caller: "embed/config" })),
    keepalive: { ...config.keepalive, permitWithoutStream: false },
    extensiveMetrics: config.metrics === "extensive",
    features: features.list(),
  };
}

/** With v3 discovery a member knows only itself, and the registry's token distinguishes clusters. */
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
