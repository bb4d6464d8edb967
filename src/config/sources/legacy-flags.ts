import type { SettingName } from "../settings/definitions.ts";
import type { Feature } from "../values/feature-gates.ts";

/**
 * Flags of etcd 3.3 to 3.6 that v3.7 no longer has, so that command lines from older documents keep working. Stock v3.7
 * refuses all of them as unknown. Here, a flag with a successor is mapped to it, one that requests nothing is accepted
 * with a warning, and one that requests a removed feature is refused with advice.
 */
export type LegacyFlag =
  /** etcd itself still ignores these, silently. */
  | { readonly state: "ignored"; readonly isBool: true }
  | { readonly state: "renamed"; readonly isBool: boolean; readonly to: SettingName }
  | { readonly state: "gate"; readonly isBool: true; readonly to: Feature }
  /** True sets the log level "debug". */
  | { readonly state: "debug"; readonly isBool: true }
  /** Accepted when the value is one of `harmless` (any value when absent), else refused with `advice`. */
  | {
      readonly state: "removed";
      readonly isBool: boolean;
      readonly harmless?: readonly string[];
      readonly advice: string;
    };

const ignored: LegacyFlag = { state: "ignored", isBool: true };
const renamed = (to: SettingName, isBool = false): LegacyFlag => ({ state: "renamed", to, isBool });
const gate = (to: Feature): LegacyFlag => ({ state: "gate", to, isBool: true });
const removed = (advice: string, harmless?: readonly string[], isBool = false): LegacyFlag => ({
  state: "removed",
  isBool,
  advice,
  ...(harmless === undefined ? {} : { harmless }),
});

const NO = ["false", "0", "f", "F", "False", "FALSE"];
const V2_PROXY =
  "the v2 proxy was removed in etcd v3.6. 'etcd grpc-proxy start' took its place; or give clients the members' own addresses";
const V2_DISCOVERY = "v2 discovery was removed in etcd v3.6; use --discovery-token and --discovery-endpoints";
const CA_FILE = "it was removed in etcd v3.3";

export const legacyFlags: ReadonlyMap<string, LegacyFlag> = new Map<string, LegacyFlag>([
  ["cluster-active-size", ignored],
  ["cluster-remove-delay", ignored],
  ["cluster-sync-interval", ignored],
  ["config", ignored],
  ["force", ignored],
  ["max-result-buffer", ignored],
  ["max-retry-attempts", ignored],
  ["peer-heartbeat-interval", ignored],
  ["peer-election-timeout", ignored],
  ["retry-interval", ignored],
  ["snapshot", ignored],
  ["v", ignored],
  ["vv", ignored],
  ["test.coverprofile", ignored],
  ["test.outputdir", ignored],

  ["enable-v2", removed("the v2 API was removed in etcd v3.6; move the clients to v3", NO, true)],
  ["experimental-enable-v2v3", removed("the v2 API was removed in etcd v3.6; move the clients to v3", [""])],
  ["proxy", removed(V2_PROXY, ["off"])],
  ["proxy-failure-wait", removed(V2_PROXY)],
  ["proxy-refresh-interval", removed(V2_PROXY)],
  ["proxy-dial-timeout", removed(V2_PROXY)],
  ["proxy-write-timeout", removed(V2_PROXY)],
  ["proxy-read-timeout", removed(V2_PROXY)],
  ["discovery", removed(V2_DISCOVERY, [""])],
  ["discovery-proxy", removed(V2_DISCOVERY, [""])],
  ["ca-file", removed(`${CA_FILE}; use --trusted-ca-file and --client-cert-auth`, [""])],
  ["peer-ca-file", removed(`${CA_FILE}; use --peer-trusted-ca-file and --peer-client-cert-auth`, [""])],
  ["log-package-levels", removed("packages no longer have log levels of their own; use --log-level")],
  ["debug", { state: "debug", isBool: true }],

  ["log-output", renamed("log-outputs")],
  ["experimental-backend-bbolt-freelist-type", renamed("backend-bbolt-freelist-type")],
  ["experimental-bootstrap-defrag-threshold-megabytes", renamed("bootstrap-defrag-threshold-megabytes")],
  ["experimental-compact-hash-check-time", renamed("compact-hash-check-time")],
  ["experimental-compaction-batch-limit", renamed("compaction-batch-limit")],
  ["experimental-compaction-sleep-interval", renamed("compaction-sleep-interval")],
  ["experimental-corrupt-check-time", renamed("corrupt-check-time")],
  ["experimental-distributed-tracing-address", renamed("distributed-tracing-address")],
  ["experimental-distributed-tracing-instance-id", renamed("distributed-tracing-instance-id")],
  ["experimental-distributed-tracing-sampling-rate", renamed("distributed-tracing-sampling-rate")],
  ["experimental-distributed-tracing-service-name", renamed("distributed-tracing-service-name")],
  ["experimental-downgrade-check-time", renamed("downgrade-check-time")],
  ["experimental-enable-distributed-tracing", renamed("enable-distributed-tracing", true)],
  ["experimental-max-learners", renamed("max-learners")],
  ["experimental-memory-mlock", renamed("memory-mlock", true)],
  ["experimental-peer-skip-client-san-verification", renamed("peer-skip-client-san-verification", true)],
  ["experimental-snapshot-catchup-entries", renamed("snapshot-catchup-entries")],
  ["experimental-warning-apply-duration", renamed("warning-apply-duration")],
  ["experimental-warning-unary-request-duration", renamed("warning-unary-request-duration")],
  ["experimental-watch-progress-notify-interval", renamed("watch-progress-notify-interval")],

  ["experimental-compact-hash-check-enabled", gate("CompactHashCheck")],
  ["experimental-enable-lease-checkpoint", gate("LeaseCheckpoint")],
  ["experimental-enable-lease-checkpoint-persist", gate("LeaseCheckpointPersist")],
  ["experimental-initial-corrupt-check", gate("InitialCorruptCheck")],
  ["experimental-set-member-localaddr", gate("SetMemberLocalAddr")],
  ["experimental-stop-grpc-service-on-defrag", gate("StopGRPCServiceOnDefrag")],
  ["experimental-txn-mode-write-with-shared-buffer", gate("TxnModeWriteWithSharedBuffer")],
]);
