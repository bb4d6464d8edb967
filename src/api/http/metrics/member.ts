/** Metrics of one member: raft and its requests, the store with its watchers and leases, and the disk. */
import type { Histogram } from "../../../base/histogram.ts";
import type { Labels, MetricsText } from "../../../base/metrics-text.ts";
import { shortVersion } from "../../../base/semver.ts";
import { ETCD_VERSION } from "../../../base/versions.ts";
import { formatId } from "../../../membership/member.ts";
import type { CompactionStatistics } from "../../../mvcc/store/compaction.ts";
import { QUOTA_DEFAULT_BYTES } from "../../../server/apply/quota.ts";
import type { EtcdServer } from "../../../server/server.ts";
import type { HealthCounts } from "../health.ts";

/** A feature gate. */
export interface FeatureState {
  readonly name: string;
  readonly stage: string;
  readonly enabled: boolean;
}

export function writeServer(
  text: MetricsText,
  server: EtcdServer,
  health: HealthCounts,
  features: readonly FeatureState[],
): void {
  const { metrics } = server;
  const bool = (value: boolean): number => (value ? 1 : 0);
  text
    .family(
      "etcd_cluster_version",
      "gauge",
      "Which version is running. 1 for 'cluster_version' label with current cluster version",
      clusterVersions(server),
    )
    .family(
      "etcd_server_version",
      "gauge",
      "Which version is running. 1 for 'server_version' label with current version.",
      [[{ server_version: ETCD_VERSION }, 1]],
    )
    .family(
      "etcd_server_go_version",
      "gauge",
      "Which version of its runtime the server is running with; here Node.js instead of Go.",
      [[{ server_go_version: `node${process.version}` }, 1]],
    )
    .family(
      "etcd_server_id",
      "gauge",
      "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
      [[{ server_id: server.memberId.toString(16) }, 1]],
    )
    .family(
      "etcd_server_feature_enabled",
      "gauge",
      "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
      features.map(({ name, stage, enabled }) => [{ name, stage }, bool(enabled)] as const),
    )
    .gauge(
      "etcd_server_has_leader",
      "Whether or not a leader exists. 1 is existence, 0 is not.",
      bool(server.replication.leader !== 0n),
    )
    .gauge(
      "etcd_server_is_leader",
      "Whether or not this member is a leader. 1 if is, 0 otherwise.",
      bool(server.replication.isLeader),
    )
    .gauge(
      "etcd_server_is_learner",
      "Whether or not this member is a learner. 1 if is, 0 otherwise.",
      bool(server.replication.isLearner),
    )
    .counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", metrics.leaderChanges)
    .counter(
      "etcd_server_learner_promote_successes",
      "The total number of successful learner promotions while this member is leader.",
      metrics.learnerPromotions,
    )
    .family(
      "etcd_server_learner_promote_failures",
      "counter",
      "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
      [...metrics.learnerPromotionsFailed].map(([Reason, count]) => [{ Reason }, count] as const),
    )
    .counter(
      "etcd_server_heartbeat_send_failures_total",
      "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
      metrics.heartbeatSendFailures,
    )
    .family("etcd_network_known_peers", "gauge", "The current number of known peers.", knownPeers(server))
    .gauge(
      "etcd_server_proposals_applied_total",
      "The total number of consensus proposals applied.",
      server.replication.appliedIndex,
    )
    .gauge(
      "etcd_server_proposals_committed_total",
      "The total number of consensus proposals committed.",
      server.replication.committedIndex,
    )
    .gauge(
      "etcd_server_proposals_pending",
      "The current number of pending proposals to commit.",
      server.replication.pendingProposals,
    )
    .counter(
      "etcd_server_proposals_failed_total",
      "The total number of failed proposals seen.",
      metrics.proposalsFailed,
    )
    .counter(
      "etcd_server_read_indexes_failed_total",
      "The total number of failed read indexes seen.",
      metrics.readIndexesFailed,
    )
    .counter(
      "etcd_server_slow_read_indexes_total",
      "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
      metrics.slowReadIndexes,
    )
    .counter(
      "etcd_server_slow_apply_total",
      "The total number of slow apply requests (likely overloaded from slow disk).",
      metrics.slowApplies,
    )
    .gauge(
      "etcd_server_snapshot_apply_in_progress_total",
      "1 if the server is applying the incoming snapshot. 0 if none.",
      metrics.applyingSnapshot,
    )
    .gauge(
      "etcd_server_quota_backend_bytes",
      "Current backend storage quota size in bytes.",
      server.options.quotaBackendBytes || QUOTA_DEFAULT_BYTES,
    )
    .histogram(
      "etcd_server_apply_duration_seconds",
      "The latency distributions of requests applied to the store.",
      applyHistograms(server),
    )
    .histogram(
      "etcd_server_request_duration_seconds",
      "Response latency distribution in seconds for each type.",
      requestHistograms(server),
    )
    .histogram("etcd_server_range_duration_seconds", "The latency distributions of txn.Range", [
      [{ success: "true" }, metrics.ranges.succeeded],
      [{ success: "false" }, metrics.ranges.failed],
    ])
    .counter("etcd_server_health_success", "The total number of successful health checks", health.success)
    .counter("etcd_server_health_failures", "The total number of failed health checks", health.failures)
    .family(
      "etcd_server_healthcheck",
      "gauge",
      "The result of each kind of healthcheck.",
      [...health.checks.values()].map(({ kind, name, last }) => [{ type: kind, name }, bool(last)] as const),
    )
    .family(
      "etcd_server_healthchecks_total",
      "counter",
      "The total number of each kind of healthcheck.",
      [...health.checks.values()].flatMap(({ kind, name, ok, failed }) => [
        [{ type: kind, name, status: "success" }, ok] as const,
        [{ type: kind, name, status: "error" }, failed] as const,
      ]),
    );
}

/** 1 for the current version, 0 for former ones. */
function clusterVersions(server: EtcdServer): (readonly [Labels, number])[] {
  const { version, former } = server.cluster.agreed;
  const all = [...former].map((one) => [{ cluster_version: shortVersion(one) }, 0] as const);
  return version === undefined ? all : [...all, [{ cluster_version: shortVersion(version) }, 1]];
}

function* applyHistograms(server: EtcdServer): Iterable<readonly [Labels, Histogram]> {
  for (const [op, histogram] of server.metrics.apply) yield [{ op, success: "true", version: "v3" }, histogram];
}

/** As in etcd, a pair of labels appears with its first request. */
function* requestHistograms(server: EtcdServer): Iterable<readonly [Labels, Histogram]> {
  for (const [type, { succeeded, failed }] of server.metrics.requests) {
    if (succeeded.count > 0) yield [{ type, success: "true" }, succeeded];
    if (failed.count > 0) yield [{ type, success: "false" }, failed];
  }
}

function knownPeers({ cluster, memberId }: EtcdServer): (readonly [Labels, number])[] {
  const Local = formatId(memberId);
  const known = cluster.members().map(({ id }) => [{ Local, Remote: formatId(id) }, 1] as const);
  const removed = cluster.removed().map((id) => [{ Local, Remote: formatId(id) }, 0] as const);
  return [...known, ...removed];
}

export function writeStore(text: MetricsText, server: EtcdServer): void {
  const { metrics, store, watchHub } = server;
  writeCompactions(text, store.compactionStatistics);
  text
    .counter("etcd_mvcc_put_total", "Total number of puts seen by this member.", metrics.puts)
    .counter("etcd_mvcc_range_total", "Total number of ranges seen by this member.", metrics.rangeCount)
    .counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", metrics.deletes)
    .counter("etcd_mvcc_txn_total", "Total number of txns seen by this member.", metrics.txns)
    .gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", store.currentRevision)
    .gauge(
      "etcd_debugging_mvcc_compact_revision",
      "The revision of the last compaction in store.",
      store.compactRevision,
    )
    .gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", store.keyCount)
    .gauge(
      "etcd_debugging_mvcc_total_put_size_in_bytes",
      "The total size of put kv pairs seen by this member.",
      metrics.putBytes,
    )
    .counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", watchHub.deliveredCount)
    .gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", watchHub.streamCount)
    .gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", watchHub.watcherCount)
    .gauge("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.", watchHub.slowCount)
    .gauge("etcd_debugging_mvcc_pending_events_total", "Total number of pending events to be sent.", 0)
    .counter("etcd_debugging_lease_granted_total", "The total number of granted leases.", metrics.leasesGranted)
    .counter(
      "etcd_debugging_lease_renewed_total",
      "The number of renewed leases seen by the leader.",
      server.lessor.renewedTotal,
    )
    .counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases.", metrics.leasesRevoked)
    .counter("etcd_debugging_server_lease_expired_total", "The total number of expired leases.", metrics.leasesExpired)
    .histogram("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", [[{}, metrics.leaseTtl]])
    .gauge("etcd_debugging_auth_revision", "The current revision of auth store.", server.auth.revision)
    .histogram("etcd_mvcc_hash_duration_seconds", "The latency distribution of storage hash operation.", [
      [{}, metrics.hash],
    ])
    .histogram(
      "etcd_mvcc_hash_rev_duration_seconds",
      "The latency distribution of storage hash by revision operation.",
      [[{}, metrics.hashRevision]],
    );
}

function writeCompactions(text: MetricsText, { index, batch, total, ...counted }: CompactionStatistics): void {
  const milliseconds = (what: string, help: string, histogram: Histogram): void =>
    void text.histogram(`etcd_debugging_mvcc_${what}_duration_milliseconds`, help, [[{}, histogram]]);
  milliseconds("index_compaction_pause", "Bucketed histogram of index compaction pause duration.", index);
  milliseconds("db_compaction_pause", "Bucketed histogram of db compaction pause duration.", batch);
  milliseconds("db_compaction_total", "Bucketed histogram of db compaction total duration.", total);
  text
    .gauge(
      "etcd_debugging_mvcc_db_compaction_last",
      "The unix time of the last db compaction. Resets to 0 on start.",
      counted.lastEndSeconds,
    )
    .counter("etcd_debugging_mvcc_db_compaction_keys_total", "Total number of db keys compacted.", counted.deletedRows);
}

export function writeDisk(text: MetricsText, server: EtcdServer): void {
  const { metrics } = server;
  const { backend } = server.replication;
  text
    .histogram("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", [
      [{}, metrics.walSync],
    ])
    .histogram("etcd_disk_wal_write_duration_seconds", "The latency distributions of write called by WAL.", [
      [{}, metrics.walWrite],
    ])
    .histogram("etcd_snap_fsync_duration_seconds", "The latency distributions of fsync called by snap.", [
      [{}, metrics.snapshotSync],
    ])
    .histogram("etcd_snap_db_fsync_duration_seconds", "The latency distributions of fsyncing .snap.db file", [
      [{}, metrics.receivedSync],
    ])
    .histogram("etcd_snap_db_save_total_duration_seconds", "The total latency distributions of v3 snapshot save", [
      [{}, metrics.receivedSave],
    ])
    .histogram(
      "etcd_debugging_snap_save_marshalling_duration_seconds",
      "The marshalling cost distributions of save called by snapshot.",
      [[{}, metrics.snapshotEncode]],
    )
    .histogram(
      "etcd_debugging_snap_save_total_duration_seconds",
      "The total latency distributions of save called by snapshot.",
      [[{}, metrics.snapshotSave]],
    )
    .gauge("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.", metrics.walWrittenBytes)
    .histogram("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.", [
      [{}, metrics.backendCommit],
    ])
    .histogram("etcd_disk_backend_snapshot_duration_seconds", "The latency distribution of backend snapshots.", [
      [{}, metrics.backendSnapshot],
    ])
    .histogram("etcd_disk_backend_defrag_duration_seconds", "The latency distribution of backend defragmentation.", [
      [{}, metrics.defragment],
    ])
    .gauge(
      "etcd_disk_defrag_inflight",
      "Whether or not defrag is active on the member. 1 means active, 0 means not.",
      metrics.defragmenting,
    )
    .gauge(
      "etcd_mvcc_db_total_size_in_bytes",
      "Total size of the underlying database physically allocated in bytes.",
      backend.sizeBytes(),
    )
    .gauge(
      "etcd_mvcc_db_total_size_in_use_in_bytes",
      "Total size of the underlying database logically in use in bytes.",
      backend.sizeInUseBytes(),
    )
    .gauge(
      "etcd_mvcc_db_open_read_transactions",
      "The number of currently open read transactions",
      backend.openReadCount(),
    );
}
