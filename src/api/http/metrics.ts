import * as fs from "node:fs";
import { CODE_NAMES } from "../../base/grpc-codes.ts";
import type { Histogram } from "../../base/histogram.ts";
import type { LoopWatch } from "../../base/loop-watch.ts";
import { type Labels, MetricsText } from "../../base/metrics-text.ts";
import { shortVersion } from "../../base/semver.ts";
import type { Turns } from "../../base/turns.ts";
import { ETCD_VERSION } from "../../base/versions.ts";
import { formatId } from "../../membership/member.ts";
import type { CompactionStatistics } from "../../mvcc/store/compaction.ts";
import type { ByPeer, HistogramsByPeer, PeerMetrics } from "../../peer/metrics.ts";
import { statusFields } from "../../raft/describe.ts";
import { ABUSES, type Abuse } from "../../rpc/guard.ts";
import type { RpcServer } from "../../rpc/server.ts";
import { QUOTA_DEFAULT_BYTES } from "../../server/apply/quota.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { ClientVersions } from "../calls/client-versions.ts";
import { methodLabels } from "../calls/method-labels.ts";
import type { RpcDurations } from "../calls/rpc-durations.ts";
import type { ConnectionLimit, ConnectionLimits } from "../listeners/connection-limit.ts";
import type { HttpHandler } from "./contract.ts";
import type { HealthCounts } from "./health.ts";

/** The sources of the metrics page. */
export interface MetricsSources {
  readonly server: EtcdServer;
  readonly peers: PeerMetrics;
  readonly rpc: RpcServer;
  readonly clientVersions: ClientVersions;
  readonly limits: ConnectionLimits;
  readonly health: HealthCounts;
  readonly loop: LoopWatch;
  /** Feature gates and whether they are enabled. */
  readonly features: readonly { readonly name: string; readonly stage: string; readonly enabled: boolean }[];
  /** With `--metrics=extensive`. */
  readonly durations: RpcDurations | undefined;
}

/**
 * `/metrics` and `/debug/vars`, under etcd's names, so that dashboards and alerts made for etcd work, and
 * `/debug/turns`: the long turns of the event loop, with what they did.
 */
export function metricsHandler(sources: MetricsSources): HttpHandler {
  return (request) => {
    if (request.path === "/metrics") return respond("text/plain; version=0.0.4; charset=utf-8", metricsPage(sources));
    if (request.path === "/debug/vars") return respond("application/json; charset=utf-8", debugVars(sources.server));
    if (request.path === "/debug/turns") return respond("application/json; charset=utf-8", longTurns(sources.loop));
    return undefined;
  };
}

const respond = async (
  type: string,
  body: string,
): Promise<{ status: number; headers: Record<string, string>; body: string }> => ({
  status: 200,
  headers: { "content-type": type },
  body,
});

function metricsPage(sources: MetricsSources): string {
  const text = new MetricsText();
  writeServer(text, sources);
  writeStore(text, sources.server);
  writeDisk(text, sources.server);
  writePeers(text, sources.peers, sources.server.memberId.toString(16));
  writeRpc(text, sources.rpc, sources.clientVersions);
  writeConnections(text, sources.limits);
  if (sources.durations !== undefined) {
    text.histogram(
      "grpc_server_handling_seconds",
      "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
      sources.durations.byMethod(),
    );
  }
  writeLoop(text, sources.loop);
  writeLongRequests(text, sources.server.turns);
  writeProcess(text);
  return text.toString();
}

function writeServer(text: MetricsText, { server, health, features }: MetricsSources): void {
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

function knownPeers({ cluster, memberId }: EtcdServer): (readonly [Labels, number])[] {
  const Local = formatId(memberId);
  const known = cluster.members().map(({ id }) => [{ Local, Remote: formatId(id) }, 1] as const);
  const removed = cluster.removed().map((id) => [{ Local, Remote: formatId(id) }, 0] as const);
  return [...known, ...removed];
}

function writeStore(text: MetricsText, server: EtcdServer): void {
  const { metrics, store, watchHub } = server;
  writeCompactions(text, store.compactionStatistics);
  text
    .counter("etcd_mvcc_put_total", "Total number of puts seen by this member.", metrics.puts)
    .counter("etcd_mvcc_range_total", "Total number of ranges seen by this member.", metrics.ranges)
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

function writeDisk(text: MetricsText, server: EtcdServer): void {
  const { metrics } = server;
  const { backend } = server.replication;
  text
    .histogram("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", [
      [{}, metrics.walSync],
    ])
    .histogram("etcd_disk_wal_write_duration_seconds", "The latency distributions of write called by WAL.", [
      [{}, metrics.walWrite],
    ])
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

function writePeers(text: MetricsText, peers: PeerMetrics, local: string): void {
  const pairs = ({ values }: ByPeer): (readonly [Labels, number])[] =>
    [...values].map(([peer, value]) => [{ Local: local, Remote: peer }, value]);
  const each = <T>(label: "From" | "To", { values }: { values: ReadonlyMap<string, T> }): (readonly [Labels, T])[] =>
    [...values].map(([peer, value]) => [{ [label]: peer }, value]);
  const counter = (name: string, help: string, label: "From" | "To", numbers: ByPeer): void =>
    void text.family(`etcd_network_${name}`, "counter", help, each(label, numbers));
  const gauge = (name: string, help: string, label: "From" | "To", numbers: ByPeer): void =>
    void text.family(`etcd_network_${name}`, "gauge", help, each(label, numbers));
  const histogram = (name: string, help: string, label: "From" | "To", histograms: HistogramsByPeer): void =>
    void text.histogram(`etcd_network_${name}`, help, each(label, histograms));
  text
    .family("etcd_network_active_peers", "gauge", "The current number of active peer connections.", pairs(peers.active))
    .family(
      "etcd_network_disconnected_peers_total",
      "counter",
      "The total number of disconnected peers.",
      pairs(peers.disconnected),
    );
  counter("peer_sent_bytes_total", "The total number of bytes sent to peers.", "To", peers.sentBytes);
  counter("peer_received_bytes_total", "The total number of bytes received from peers.", "From", peers.receivedBytes);
  counter("peer_sent_failures_total", "The total number of send failures from peers.", "To", peers.sendFailures);
  counter(
    "peer_received_failures_total",
    "The total number of receive failures from peers.",
    "From",
    peers.receiveFailures,
  );
  counter("snapshot_send_success", "Total number of successful snapshot sends", "To", peers.snapshotsSent);
  gauge("snapshot_send_inflights_total", "Total number of inflight snapshot sends", "To", peers.snapshotsSending);
  counter("snapshot_send_failures", "Total number of snapshot send failures", "To", peers.snapshotSendFailures);
  histogram(
    "snapshot_send_total_duration_seconds",
    "Total latency distributions of v3 snapshot sends",
    "To",
    peers.snapshotSendSeconds,
  );
  counter("snapshot_receive_success", "Total number of successful snapshot receives", "From", peers.snapshotsReceived);
  gauge(
    "snapshot_receive_inflights_total",
    "Total number of inflight snapshot receives",
    "From",
    peers.snapshotsReceiving,
  );
  counter(
    "snapshot_receive_failures",
    "Total number of snapshot receive failures",
    "From",
    peers.snapshotReceiveFailures,
  );
  histogram(
    "snapshot_receive_total_duration_seconds",
    "Total latency distributions of v3 snapshot receives",
    "From",
    peers.snapshotReceiveSeconds,
  );
  histogram("peer_round_trip_time_seconds", "Round-Trip-Time histogram between peers", "To", peers.roundTripSeconds);
}

function writeRpc(text: MetricsText, rpc: RpcServer, clientVersions: ClientVersions): void {
  const methods = [...rpc.methods].map((method) => ({ method, labels: methodLabels(method.path, method.streaming) }));
  const each = (read: (method: (typeof methods)[number]["method"]) => number): (readonly [Labels, number])[] =>
    methods.map(({ method, labels }) => [labels, read(method)] as const);
  text
    .family(
      "grpc_server_started_total",
      "counter",
      "Total number of RPCs started on the server.",
      each((m) => m.started),
    )
    .family(
      "grpc_server_msg_received_total",
      "counter",
      "Total number of RPC stream messages received on the server.",
      each((m) => m.messagesReceived),
    )
    .family(
      "grpc_server_msg_sent_total",
      "counter",
      "Total number of gRPC stream messages sent by the server.",
      each((m) => m.messagesSent),
    )
    .family(
      "grpc_server_handled_total",
      "counter",
      "Total number of RPCs completed on the server, regardless of success or failure.",
      methods.flatMap(({ method, labels }) =>
        CODE_NAMES.map((name, code) => [{ grpc_code: name, ...labels }, method.handled[code] ?? 0] as const),
      ),
    )
    .family("etcd_server_client_requests_total", "counter", "The total number of client requests per client version.", [
      ...[...clientVersions.all()].flatMap(({ version, unary, stream }) => [
        [{ client_api_version: version, type: "unary" }, unary] as const,
        [{ client_api_version: version, type: "stream" }, stream] as const,
      ]),
    ])
    .family(
      "kvorum_network_client_abusive_connections_total",
      "counter",
      "The total number of client connections closed because the client flooded, by reason.",
      Object.keys(ABUSES).map((reason) => [{ reason }, rpc.stats.abuses[reason as Abuse] ?? 0] as const),
    )
    .counter(
      "etcd_network_client_grpc_received_bytes_total",
      "The total number of bytes received from grpc clients.",
      rpc.stats.bytesReceived,
    )
    .counter(
      "etcd_network_client_grpc_sent_bytes_total",
      "The total number of bytes sent to grpc clients.",
      rpc.stats.bytesSent,
    )
    .gauge(
      "kvorum_network_client_held_reply_bytes",
      "Bytes of replies that clients have not taken yet.",
      rpc.heldReplies.total,
    )
    .gauge(
      "kvorum_network_client_held_request_bytes",
      "Bytes of requests that clients have begun and not finished.",
      rpc.heldRequests.total,
    )
    .family(
      "kvorum_network_client_held_exceeded_total",
      "counter",
      "How often clients together made the server hold too much, so that the worst of them had calls ended.",
      [
        [{ held: "replies" }, rpc.heldReplies.exceeded],
        [{ held: "requests" }, rpc.heldRequests.exceeded],
      ],
    )
    .counter(
      "kvorum_call_exceptions_total",
      "Calls that failed by an exception of the server's, which is a mistake in it.",
      rpc.stats.crashes,
    );
}

function writeConnections(text: MetricsText, { clients, peers }: ConnectionLimits): void {
  const each = (value: (limit: ConnectionLimit) => number): (readonly [Labels, number])[] => [
    [{ listener: "client" }, value(clients)],
    [{ listener: "peer" }, value(peers)],
  ];
  text
    .family(
      "kvorum_network_connections",
      "gauge",
      "Open connections, by kind of listener.",
      each((limit) => limit.open),
    )
    .family(
      "kvorum_network_connections_max",
      "gauge",
      "Connections that may be open, by kind of listener.",
      each((limit) => limit.max),
    )
    .family(
      "kvorum_network_connections_refused_total",
      "counter",
      "The total number of connections closed at once because too many were open and busy.",
      each((limit) => limit.refused),
    )
    .family(
      "kvorum_network_connections_displaced_total",
      "counter",
      "The total number of silent or idle connections closed to make room for others.",
      each((limit) => limit.displaced),
    );
}

function writeLoop(text: MetricsText, loop: LoopWatch): void {
  text
    .histogram(
      "kvorum_loop_turn_seconds",
      "Histogram of how long turns of the event loop took, during which nothing else was served.",
      [[{}, loop.turns]],
    )
    .gauge(
      "kvorum_loop_longest_turn_seconds",
      "The longest turn of the event loop in the last one to two minutes.",
      loop.longestMs / 1000,
    );
}

function writeLongRequests(text: MetricsText, turns: Turns): void {
  text
    .gauge("kvorum_long_requests_active", "Active reads of more than one turn of the loop.", turns.active)
    .gauge("kvorum_long_requests_waiting", "Such reads that wait for their start.", turns.waiting)
    .counter("kvorum_long_requests_refused_total", "Such reads refused because too many waited.", turns.refused)
    .counter("kvorum_long_requests_slices_total", "Slices that long reads were cut into.", turns.slices);
}

function longTurns(loop: LoopWatch): string {
  return JSON.stringify(
    loop.longTurns.map(({ endedAtMs, tookMs, queuedMs, collectingMs, what, whatMs }) => ({
      ended: new Date(endedAtMs).toISOString(),
      "took-ms": Math.round(tookMs),
      work: what,
      "work-took-ms": Math.round(whatMs),
      "garbage-collection-ms": Math.round(collectingMs),
      "waited-for-processor-at-most-ms": Math.round(queuedMs),
    })),
  );
}

function writeProcess(text: MetricsText): void {
  const { rss } = process.memoryUsage();
  const cpu = process.cpuUsage();
  const limits = readProc("/proc/self/limits");
  const maxFds = Number(/Max open files\s+(\d+)/.exec(limits)?.[1] ?? 0);
  const openFds = countFds();
  const statm = readProc("/proc/self/statm").split(" ");
  text
    .counter(
      "process_cpu_seconds_total",
      "Total user and system CPU time spent in seconds.",
      (cpu.user + cpu.system) / 1e6,
    )
    .gauge("process_resident_memory_bytes", "Resident memory size in bytes.", rss)
    .gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", Number(statm[0] ?? 0) * 4096)
    .gauge(
      "process_start_time_seconds",
      "Start time of the process since unix epoch in seconds.",
      performance.timeOrigin / 1000,
    )
    .gauge("process_open_fds", "Number of open file descriptors.", openFds)
    .gauge("process_max_fds", "Maximum number of open file descriptors.", maxFds)
    .gauge("os_fd_used", "The number of used file descriptors.", openFds)
    .gauge("os_fd_limit", "The file descriptor limit.", maxFds);
  const heap = process.memoryUsage();
  text
    .gauge("nodejs_heap_size_used_bytes", "Bytes of the JavaScript heap in use.", heap.heapUsed)
    .gauge("nodejs_external_memory_bytes", "Bytes of buffers outside of the JavaScript heap.", heap.external);
}

function readProc(path: string): string {
  try {
    return fs.readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function countFds(): number {
  try {
    return fs.readdirSync("/proc/self/fd").length;
  } catch {
    return 0;
  }
}

function debugVars(server: EtcdServer): string {
  const memory = process.memoryUsage();
  return JSON.stringify({
    cmdline: process.argv,
    file_descriptor_limit: Number(/Max open files\s+(\d+)/.exec(readProc("/proc/self/limits"))?.[1] ?? 0),
    memstats: { Alloc: memory.heapUsed, Sys: memory.rss, HeapAlloc: memory.heapUsed, HeapSys: memory.heapTotal },
    "raft.status": statusFields(server.replication.raftStatus()),
  });
}
