import type { FlagSpec } from "./flag-spec.ts";
import { noEffect, notBuilt } from "./flag-spec.ts";

const TRACING = notBuilt("distributed tracing");

/** Flags about certificates and about who may connect. */
export const securityFlags: readonly Omit<FlagSpec, "section">[] = [
  { name: "cert-file", kind: "text", default: "", help: "Certificate of the server for its clients." },
  { name: "key-file", kind: "text", default: "", help: "Private key of that certificate." },
  {
    name: "client-cert-auth",
    kind: "bool",
    default: "false",
    help: "Clients have to show a certificate signed by --trusted-ca-file.",
  },
  {
    name: "client-cert-file",
    kind: "text",
    default: "",
    help: "Certificate that the server itself shows as a client; without it --cert-file.",
  },
  { name: "client-key-file", kind: "text", default: "", help: "Private key of that certificate." },
  { name: "client-crl-file", kind: "text", default: "", help: "Revoked client certificates." },
  {
    name: "client-cert-allowed-hostname",
    kind: "list",
    default: "",
    help: "Names one of which a client certificate has to carry (SAN), separated by commas.",
  },
  {
    name: "trusted-ca-file",
    kind: "text",
    default: "",
    help: "Authorities that sign the certificates of clients.",
  },
  {
    name: "auto-tls",
    kind: "bool",
    default: "false",
    help: "TLS for clients with a certificate made at the start.",
  },
  {
    name: "peer-cert-file",
    kind: "text",
    default: "",
    help: "Certificate of the server for other members.",
  },
  { name: "peer-key-file", kind: "text", default: "", help: "Private key of that certificate." },
  {
    name: "peer-client-cert-auth",
    kind: "bool",
    default: "false",
    help: "Other members have to show a certificate signed by --peer-trusted-ca-file.",
  },
  {
    name: "peer-client-cert-file",
    kind: "text",
    default: "",
    help: "Certificate shown to other members as a client; without it --peer-cert-file.",
  },
  {
    name: "peer-client-key-file",
    kind: "text",
    default: "",
    help: "Private key of that certificate.",
  },
  {
    name: "peer-trusted-ca-file",
    kind: "text",
    default: "",
    help: "Authorities that sign the certificates of members.",
  },
  {
    name: "peer-cert-allowed-cn",
    kind: "list",
    default: "",
    help: "Common names one of which a member's certificate has to carry, separated by commas.",
  },
  {
    name: "peer-cert-allowed-hostname",
    kind: "list",
    default: "",
    help: "Names one of which a member's certificate has to carry (SAN), separated by commas.",
  },
  {
    name: "peer-auto-tls",
    kind: "bool",
    default: "false",
    help: "TLS between members with certificates made at the start.",
  },
  {
    name: "self-signed-cert-validity",
    kind: "uint",
    default: "1",
    help: "Years that certificates made at the start are valid.",
  },
  { name: "peer-crl-file", kind: "text", default: "", help: "Revoked certificates of members." },
  {
    name: "cipher-suites",
    kind: "list",
    default: "",
    help: "TLS 1.2 cipher suites to accept, by Go's names, separated by commas.",
  },
  {
    name: "cors",
    kind: "origins",
    default: "*",
    help: "Origins that browsers may call from, separated by commas; empty or * means all.",
  },
  {
    name: "host-whitelist",
    kind: "set",
    default: "*",
    help: "Host names that plain HTTP requests may ask for; empty or * means all.",
  },
  {
    name: "tls-min-version",
    kind: "text",
    default: "TLS1.2",
    help: "Oldest TLS version to accept, TLS1.2 or TLS1.3.",
  },
  {
    name: "tls-max-version",
    kind: "text",
    default: "",
    help: "Newest TLS version to accept, TLS1.2 or TLS1.3; empty means the newest there is.",
  },
];

/** Flags about users and their tokens. */
export const authFlags: readonly Omit<FlagSpec, "section">[] = [
  {
    name: "auth-token",
    kind: "text",
    default: "simple",
    help: "Kind of the tokens that users get, with options: 'simple', or 'jwt,pub-key=…,priv-key=…,sign-method=…,ttl=…'.",
  },
  {
    name: "bcrypt-cost",
    kind: "uint",
    default: "10",
    help: "Cost of hashing passwords with bcrypt, 4 to 31.",
  },
  {
    name: "auth-token-ttl",
    kind: "uint",
    default: "300",
    help: "Seconds that a simple token stays valid without being used.",
  },
];

/** Flags about what can be measured. */
export const monitoringFlags: readonly Omit<FlagSpec, "section">[] = [
  {
    name: "enable-pprof",
    kind: "bool",
    default: "false",
    help: "Serve Go's profiles under /debug/pprof/.",
    status: noEffect("Go's profiles do not exist here; profile with NODE_OPTIONS='--cpu-prof' or node --inspect"),
  },
  {
    name: "metrics",
    kind: "text",
    default: "basic",
    help: "Detail of the metrics: 'basic', or 'extensive' for histograms of gRPC calls.",
  },
  {
    name: "listen-metrics-urls",
    kind: "urls",
    default: "",
    help: "Further addresses that serve /metrics and /health.",
  },
];

/** Flags about the log. */
export const loggingFlags: readonly Omit<FlagSpec, "section">[] = [
  { name: "logger", kind: "text", default: "zap", help: "Shape of the log. Only 'zap' is left." },
  {
    name: "log-outputs",
    kind: "set",
    default: "default",
    help: "Where the log goes, separated by commas: 'default' (stderr), 'stderr', 'stdout', 'systemd/journal' or files.",
  },
  {
    name: "log-level",
    kind: "text",
    default: "info",
    help: "Least level written: debug, info, warn, error, panic or fatal.",
  },
  { name: "log-format", kind: "text", default: "json", help: "Encoding of the lines: json or console." },
  {
    name: "enable-log-rotation",
    kind: "bool",
    default: "false",
    help: "Set the log file aside when it has grown; needs one file in --log-outputs.",
  },
  {
    name: "log-rotation-config-json",
    kind: "text",
    default: '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}',
    help: "Rotation: maxsize (MB), maxage (days, 0 no limit), maxbackups (0 no limit), localtime, compress (gzip).",
  },
  {
    name: "warning-unary-request-duration",
    kind: "duration",
    default: "300ms",
    help: "A request that takes longer is logged.",
  },
];

/** Flags about traces. */
export const tracingFlags: readonly Omit<FlagSpec, "section">[] = [
  {
    name: "enable-distributed-tracing",
    kind: "bool",
    default: "false",
    help: "Send traces with OpenTelemetry.",
    status: TRACING,
  },
  {
    name: "distributed-tracing-address",
    kind: "text",
    default: "localhost:4317",
    help: "Address of the collector.",
    status: TRACING,
  },
  {
    name: "distributed-tracing-service-name",
    kind: "text",
    default: "etcd",
    help: "Service name in the traces, the same for all members.",
    status: TRACING,
  },
  {
    name: "distributed-tracing-instance-id",
    kind: "text",
    default: "",
    help: "Instance id in the traces, different for each member.",
    status: TRACING,
  },
  {
    name: "distributed-tracing-sampling-rate",
    kind: "int",
    default: "0",
    help: "Spans recorded of a million.",
    status: TRACING,
  },
];

/** Flags about single features. */
export const featureFlags: readonly Omit<FlagSpec, "section">[] = [
  {
    name: "corrupt-check-time",
    kind: "duration",
    default: "0s",
    help: "Time between two comparisons of the members' data; 0 never.",
  },
  {
    name: "compact-hash-check-time",
    kind: "duration",
    default: "1m",
    help: "Time between two comparisons of the hashes of compactions.",
  },
  {
    name: "compaction-batch-limit",
    kind: "int",
    default: "0",
    help: "Most revisions that compaction deletes in one batch. 0 means 1000.",
  },
  {
    name: "peer-skip-client-san-verification",
    kind: "bool",
    default: "false",
    help: "Do not check the names in the client certificates of members.",
  },
  {
    name: "watch-progress-notify-interval",
    kind: "duration",
    default: "0s",
    help: "Time between two progress notifications of a watch that asked for them. 0 means 10m; at least 100ms.",
  },
  {
    name: "warning-apply-duration",
    kind: "duration",
    default: "100ms",
    help: "An entry that takes longer to apply is logged.",
  },
  {
    name: "bootstrap-defrag-threshold-megabytes",
    kind: "uint",
    default: "0",
    help: "Defragment at the start when that frees at least so many megabytes; 0 never.",
  },
  { name: "max-learners", kind: "int", default: "1", help: "Most learners in the cluster." },
  {
    name: "compaction-sleep-interval",
    kind: "duration",
    default: "0s",
    help: "Pause between two batches of compaction. 0 means 10ms.",
  },
  {
    name: "downgrade-check-time",
    kind: "duration",
    default: "5s",
    help: "Time between two looks at a running downgrade.",
  },
  {
    name: "snapshot-catchup-entries",
    kind: "uint64",
    default: "5000",
    help: "Entries of the raft log left for slow followers when it is compacted.",
  },
];

/** Flags that give up a guarantee. */
export const unsafeFlags: readonly Omit<FlagSpec, "section">[] = [
  {
    name: "force-new-cluster",
    kind: "bool",
    default: "false",
    help: "Make a cluster of this member alone from its data, as the last resort after a loss of the quorum.",
  },
  {
    name: "unsafe-no-fsync",
    kind: "bool",
    default: "false",
    help: "Do not sync the log to the disk. A power cut loses acknowledged writes.",
  },
];
