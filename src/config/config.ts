import type { LogLevel } from "../base/log.ts";
import type { LogFormat } from "../base/log-encode.ts";
import type { LogRotation } from "../base/log-rotation.ts";
import { ConfigError } from "./errors.ts";
import { readLogSettings } from "./settings/log-settings.ts";
import { FILE_ONLY, Settings } from "./settings/settings.ts";
import { FeatureGates } from "./values/feature-gates.ts";
import { type GoValueError, parseGoDuration } from "./values/go-value.ts";
import { parseUrls, type Url } from "./values/url.ts";

/**
 * Everything that a member is told at its start: typed, complete, frozen. Times end in `Ms` and are milliseconds, sizes
 * end in `Bytes`. Fields carry etcd's names; `docs/configuration.md` says which flag, variable and key sets each.
 * Zeros that etcd reads as "the usual" (batch limits, intervals, quota) are already replaced.
 */
export interface Config {
  readonly name: string;
  /** Empty only until the program fills in `${name}.etcd`. */
  readonly dataDir: string;
  /** Empty means `<dataDir>/member/wal`. */
  readonly walDir: string;

  readonly listenPeerUrls: readonly Url[];
  readonly listenClientUrls: readonly Url[];
  /** When not empty, HTTP is served here and no longer on `listenClientUrls`. */
  readonly listenClientHttpUrls: readonly Url[];
  readonly listenMetricsUrls: readonly Url[];
  readonly advertisePeerUrls: readonly Url[];
  readonly advertiseClientUrls: readonly Url[];

  /** As given; `parseUrlsByMember` reads it. */
  readonly initialCluster: string;
  readonly initialClusterState: "new" | "existing";
  readonly initialClusterToken: string;
  readonly strictReconfigCheck: boolean;
  readonly preVote: boolean;
  readonly forceNewCluster: boolean;
  readonly maxLearners: number;
  readonly discovery: DiscoveryConfig;

  /** Length of a raft tick, which is one heartbeat. */
  readonly tickMs: number;
  readonly electionMs: number;
  readonly initialElectionTickAdvance: boolean;
  readonly peerReadTimeoutMs: number;
  readonly peerWriteTimeoutMs: number;

  /** Applied entries between two snapshots. */
  readonly snapshotCount: number;
  readonly snapshotCatchUpEntries: number;
  /** 0 keeps all. */
  readonly maxSnapshotFiles: number;
  /** 0 keeps all. */
  readonly maxWalFiles: number;
  readonly unsafeNoFsync: boolean;

  /** Negative means no limit. */
  readonly quotaBackendBytes: number;
  readonly backendBatchIntervalMs: number;
  readonly backendBatchLimit: number;
  /** Megabytes that defragmenting at the start must free to be done; 0 never. */
  readonly bootstrapDefragThresholdMegabytes: number;
  readonly autoCompaction: AutoCompaction;
  readonly compactionBatchLimit: number;
  readonly compactionSleepIntervalMs: number;
  /** 0 never. */
  readonly corruptCheckTimeMs: number;
  readonly compactHashCheckTimeMs: number;
  readonly downgradeCheckTimeMs: number;

  readonly maxTxnOps: number;
  /** Reads of more than one turn that are under way at one time, and those of one client. */
  readonly maxLongRequests: number;
  readonly maxLongRequestsPerClient: number;
  /** Open connections of clients; 0 for as many as there are file descriptors for. */
  readonly maxClientConnections: number;
  readonly maxRequestBytes: number;
  readonly maxConcurrentStreams: number;
  readonly grpcKeepAliveMinTimeMs: number;
  /** 0 never pings. */
  readonly grpcKeepAliveIntervalMs: number;
  readonly grpcKeepAliveTimeoutMs: number;
  readonly enableGrpcGateway: boolean;
  readonly socketReusePort: boolean;
  readonly socketReuseAddress: boolean;
  readonly watchProgressNotifyIntervalMs: number;
  readonly warningApplyDurationMs: number;
  readonly warningUnaryRequestDurationMs: number;
  /** Origins that browsers may call from; `*` means all. */
  readonly cors: ReadonlySet<string>;
  /** Hosts that plain HTTP requests may name; `*` means all. */
  readonly hostWhitelist: ReadonlySet<string>;

  readonly clientTls: TlsConfig;
  readonly peerTls: TlsConfig;
  /** Name that members' certificates have to carry in place of the host dialled; empty for the host. */
  readonly peerServerName: string;
  readonly selfSignedCertValidityYears: number;
  /** Go's names; empty means all that are safe. */
  readonly cipherSuites: readonly string[];
  readonly tlsMinVersion: string;
  readonly tlsMaxVersion: string;

  /** `simple`, or `jwt` with its options. */
  readonly authToken: string;
  readonly bcryptCost: number;
  readonly authTokenTtlMs: number;

  readonly metrics: string;
  readonly enablePprof: boolean;
  readonly memoryMlock: boolean;
  readonly tracing: TracingConfig;
  readonly features: FeatureGates;
  readonly log: LogConfig;
}

export type AutoCompaction =
  | { readonly mode: "periodic"; readonly retentionMs: number }
  | { readonly mode: "revision"; readonly retentionRevisions: number };

export interface TlsConfig {
  readonly certFile: string;
  readonly keyFile: string;
  readonly clientCertFile: string;
  readonly clientKeyFile: string;
  readonly clientCertAuth: boolean;
  readonly trustedCaFile: string;
  readonly crlFile: string;
  readonly autoTls: boolean;
  readonly allowedCns: readonly string[];
  readonly allowedHostnames: readonly string[];
  readonly skipClientSanVerify: boolean;
}

export interface DiscoveryConfig {
  readonly token: string;
  /** Not empty: v3 discovery. */
  readonly endpoints: readonly string[];
  readonly dialTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly keepAliveTimeMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly insecureTransport: boolean;
  readonly insecureSkipVerify: boolean;
  readonly certFile: string;
  readonly keyFile: string;
  readonly caFile: string;
  /** May have the password behind a colon. */
  readonly user: string;
  readonly password: string;
  /** Not empty: discovery by DNS, in this domain. */
  readonly srv: string;
  readonly srvName: string;
}

export interface TracingConfig {
  readonly enabled: boolean;
  readonly address: string;
  readonly serviceName: string;
  readonly instanceId: string;
  readonly samplingRatePerMillion: number;
}

export interface LogConfig {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** `stderr`, `stdout`, `systemd/journal`, or paths of files. */
  readonly outputs: readonly string[];
  /** Present when the one file among the outputs is rotated. */
  readonly rotation?: LogRotation;
}

type UrlField =
  | "listenPeerUrls"
  | "listenClientUrls"
  | "listenClientHttpUrls"
  | "listenMetricsUrls"
  | "advertisePeerUrls"
  | "advertiseClientUrls";

/** Some fields of a `Config`; URLs may be texts separated by commas. */
export type ConfigOverrides = Partial<Omit<Config, UrlField>> & {
  readonly [K in UrlField]?: string | readonly Url[];
};

const urlFields: readonly UrlField[] = [
  "listenPeerUrls",
  "listenClientUrls",
  "listenClientHttpUrls",
  "listenMetricsUrls",
  "advertisePeerUrls",
  "advertiseClientUrls",
];

/**
 * The default configuration with some fields of your own, for embedding and for tests:
 * `newConfig({ name: "a", dataDir, listenClientUrls: "http://127.0.0.1:0" })`.
 * Without `initialCluster` the member founds a cluster of its own under its name and peer URLs.
 * Throws `ConfigError` for a URL or for times that make no sense.
 */
export function newConfig(overrides: ConfigOverrides = {}): Config {
  const config: Record<string, unknown> = { ...configFromSettings(new Settings()), ...overrides };
  for (const field of urlFields) if (typeof config[field] === "string") config[field] = parseUrlField(config[field]);
  const made = config as unknown as { -readonly [K in keyof Config]: Config[K] };
  checkTiming(made.tickMs, made.electionMs);
  if (overrides.initialCluster === undefined) made.initialCluster = clusterOf(made.name, made.advertisePeerUrls);
  return deepFreeze(made);
}

function parseUrlField(text: string): Url[] {
  try {
    return text === "" ? [] : parseUrls(text);
  } catch (error) {
    throw new ConfigError("verify", (error as GoValueError).message);
  }
}

/** `name=url,name=url`: a cluster of this member alone. */
export const clusterOf = (name: string, urls: readonly Url[]): string =>
  urls.map((url) => `${name === "" ? "default" : name}=${url.text}`).join(",");

/** Longest election timeout that etcd allows. */
const ELECTION_MS_MAX = 50_000;

export function checkTiming(tickMs: number, electionMs: number): void {
  const fail = (why: string): never => {
    throw new ConfigError("verify", why);
  };
  if (tickMs === 0) fail(`--heartbeat-interval must be >0 (set to ${tickMs}ms)`);
  if (electionMs === 0) fail(`--election-timeout must be >0 (set to ${electionMs}ms)`);
  if (5 * tickMs > electionMs) {
    fail(`--election-timeout[${electionMs}ms] should be at least as 5 times as --heartbeat-interval[${tickMs}ms]`);
  }
  if (electionMs > ELECTION_MS_MAX) {
    fail(`--election-timeout[${electionMs}ms] is too long, and should be set less than ${ELECTION_MS_MAX}ms`);
  }
}

/** What etcd's 0 stands for. */
const DEFAULTS = {
  quotaBackendBytes: 2 * 1024 ** 3,
  backendBatchIntervalMs: 100,
  backendBatchLimit: 10_000,
  compactionBatchLimit: 1000,
  compactionSleepIntervalMs: 10,
  watchProgressNotifyIntervalMs: 600_000,
  warningUnaryRequestDurationMs: 300,
  peerTimeoutMs: 5000,
};

/** Makes the configuration of settings that were validated. Throws `ConfigError` of kind `start`. */
export function configFromSettings(s: Settings): Config {
  return deepFreeze({
    name: s.text("name"),
    dataDir: s.text("data-dir"),
    walDir: s.text("wal-dir"),
    listenPeerUrls: s.urls("listen-peer-urls"),
    listenClientUrls: s.urls("listen-client-urls"),
    listenClientHttpUrls: s.urls("listen-client-http-urls"),
    listenMetricsUrls: s.urls("listen-metrics-urls"),
    advertisePeerUrls: s.urls("initial-advertise-peer-urls"),
    advertiseClientUrls: s.urls("advertise-client-urls"),
    initialCluster: s.text("initial-cluster"),
    initialClusterState: s.text("initial-cluster-state") as "new" | "existing",
    initialClusterToken: s.text("initial-cluster-token"),
    strictReconfigCheck: s.bool("strict-reconfig-check"),
    preVote: s.bool("pre-vote"),
    forceNewCluster: s.bool("force-new-cluster"),
    maxLearners: s.number("max-learners"),
    discovery: {
      token: s.text("discovery-token"),
      endpoints: s.strings("discovery-endpoints"),
      dialTimeoutMs: s.number("discovery-dial-timeout"),
      requestTimeoutMs: s.number("discovery-request-timeout"),
      keepAliveTimeMs: s.number("discovery-keepalive-time"),
      keepAliveTimeoutMs: s.number("discovery-keepalive-timeout"),
      insecureTransport: s.bool("discovery-insecure-transport"),
      insecureSkipVerify: s.bool("discovery-insecure-skip-tls-verify"),
      certFile: s.text("discovery-cert"),
      keyFile: s.text("discovery-key"),
      caFile: s.text("discovery-cacert"),
      user: s.text("discovery-user"),
      password: s.text("discovery-password"),
      srv: s.text("discovery-srv"),
      srvName: s.text("discovery-srv-name"),
    },
    tickMs: s.number("heartbeat-interval"),
    electionMs: s.number("election-timeout"),
    initialElectionTickAdvance: s.bool("initial-election-tick-advance"),
    peerReadTimeoutMs: Math.max(s.number("raft-read-timeout"), DEFAULTS.peerTimeoutMs),
    peerWriteTimeoutMs: Math.max(s.number("raft-write-timeout"), DEFAULTS.peerTimeoutMs),
    snapshotCount: s.number("snapshot-count"),
    snapshotCatchUpEntries: s.number("snapshot-catchup-entries"),
    maxSnapshotFiles: s.number("max-snapshots"),
    maxWalFiles: s.number("max-wals"),
    unsafeNoFsync: s.bool("unsafe-no-fsync"),
    quotaBackendBytes: s.number("quota-backend-bytes") || DEFAULTS.quotaBackendBytes,
    backendBatchIntervalMs: s.number("backend-batch-interval") || DEFAULTS.backendBatchIntervalMs,
    backendBatchLimit: s.number("backend-batch-limit") || DEFAULTS.backendBatchLimit,
    bootstrapDefragThresholdMegabytes: s.number("bootstrap-defrag-threshold-megabytes"),
    autoCompaction: autoCompaction(s.text("auto-compaction-mode"), s.text("auto-compaction-retention")),
    compactionBatchLimit: s.number("compaction-batch-limit") || DEFAULTS.compactionBatchLimit,
    compactionSleepIntervalMs: s.number("compaction-sleep-interval") || DEFAULTS.compactionSleepIntervalMs,
    corruptCheckTimeMs: s.number("corrupt-check-time"),
    compactHashCheckTimeMs: s.number("compact-hash-check-time"),
    downgradeCheckTimeMs: s.number("downgrade-check-time"),
    maxTxnOps: s.number("max-txn-ops"),
    maxLongRequests: s.number("max-long-requests"),
    maxLongRequestsPerClient: s.number("max-long-requests-per-client"),
    maxClientConnections: s.number("max-client-connections"),
    maxRequestBytes: s.number("max-request-bytes"),
    maxConcurrentStreams: s.number("max-concurrent-streams"),
    grpcKeepAliveMinTimeMs: s.number("grpc-keepalive-min-time"),
    grpcKeepAliveIntervalMs: s.number("grpc-keepalive-interval"),
    grpcKeepAliveTimeoutMs: s.number("grpc-keepalive-timeout"),
    enableGrpcGateway: s.bool("enable-grpc-gateway"),
    socketReusePort: s.bool("socket-reuse-port"),
    socketReuseAddress: s.bool("socket-reuse-address"),
    watchProgressNotifyIntervalMs: s.number("watch-progress-notify-interval") || DEFAULTS.watchProgressNotifyIntervalMs,
    warningApplyDurationMs: s.number("warning-apply-duration"),
    warningUnaryRequestDurationMs: s.number("warning-unary-request-duration") || DEFAULTS.warningUnaryRequestDurationMs,
    cors: new Set(s.strings("cors")),
    hostWhitelist: new Set(s.strings("host-whitelist")),
    clientTls: {
      certFile: s.text("cert-file"),
      keyFile: s.text("key-file"),
      clientCertFile: s.text("client-cert-file"),
      clientKeyFile: s.text("client-key-file"),
      clientCertAuth: s.bool("client-cert-auth"),
      trustedCaFile: s.text("trusted-ca-file"),
      crlFile: s.text("client-crl-file"),
      autoTls: s.bool("auto-tls"),
      allowedCns: s.strings(FILE_ONLY.clientAllowedCn),
      allowedHostnames: s.strings("client-cert-allowed-hostname"),
      skipClientSanVerify: s.bool(FILE_ONLY.clientSkipSan),
    },
    peerTls: {
      certFile: s.text("peer-cert-file"),
      keyFile: s.text("peer-key-file"),
      clientCertFile: s.text("peer-client-cert-file"),
      clientKeyFile: s.text("peer-client-key-file"),
      clientCertAuth: s.bool("peer-client-cert-auth"),
      trustedCaFile: s.text("peer-trusted-ca-file"),
      crlFile: s.text("peer-crl-file"),
      autoTls: s.bool("peer-auto-tls"),
      allowedCns: s.strings("peer-cert-allowed-cn"),
      allowedHostnames: s.strings("peer-cert-allowed-hostname"),
      skipClientSanVerify: s.bool("peer-skip-client-san-verification"),
    },
    peerServerName: "",
    selfSignedCertValidityYears: s.number("self-signed-cert-validity") || 1,
    cipherSuites: s.strings("cipher-suites"),
    tlsMinVersion: s.text("tls-min-version"),
    tlsMaxVersion: s.text("tls-max-version"),
    authToken: s.text("auth-token"),
    bcryptCost: s.number("bcrypt-cost"),
    authTokenTtlMs: s.number("auth-token-ttl") * 1000,
    metrics: s.text("metrics"),
    enablePprof: s.bool("enable-pprof"),
    memoryMlock: s.bool("memory-mlock"),
    tracing: {
      enabled: s.bool("enable-distributed-tracing"),
      address: s.text("distributed-tracing-address"),
      serviceName: s.text("distributed-tracing-service-name"),
      instanceId: s.text("distributed-tracing-instance-id"),
      samplingRatePerMillion: s.number("distributed-tracing-sampling-rate"),
    },
    features: s.features(),
    log: readLogSettings(s),
  });
}

const HOUR_MS = 3_600_000;

/** A bare number counts hours or revisions, depending on the mode; anything else is a duration. */
function autoCompaction(mode: string, retention: string): AutoCompaction {
  const text = retention === "" ? "0" : retention;
  const count = /^[+]?\d+$/.test(text) ? Number(text) : undefined;
  if (mode === "revision") return { mode, retentionRevisions: count ?? retentionMs(text) * 1e6 };
  return { mode: "periodic", retentionMs: count === undefined ? retentionMs(text) : count * HOUR_MS };
}

function retentionMs(text: string): number {
  try {
    return parseGoDuration(text);
  } catch (error) {
    throw new ConfigError("start", `error parsing CompactionRetention: ${(error as GoValueError).message}`);
  }
}

/** Freezes what a configuration is made of; sets and gates are read-only by type. */
function deepFreeze<T extends object>(value: T): T {
  for (const item of Object.values(value)) {
    const isPlain = typeof item === "object" && item !== null && !(item instanceof Set || item instanceof FeatureGates);
    if (isPlain && !Object.isFrozen(item)) deepFreeze(item);
  }
  return Object.freeze(value);
}
