/** Metrics of what goes over the network: to other members, and to clients by method, flood and connection. */
import type { Labels, MetricsText } from "../../../base/metrics-text.ts";
import type { ByPeer, HistogramsByPeer, PeerMetrics } from "../../../peer/metrics.ts";
import { ABUSES, type Abuse } from "../../../rpc/guard.ts";
import type { RpcServer } from "../../../rpc/server.ts";
import type { ClientVersions } from "../../calls/client-versions.ts";
import type { ConnectionLimit, ConnectionLimits } from "../../listeners/connection-limit.ts";
import { writeMethods } from "./methods.ts";

export function writePeers(text: MetricsText, peers: PeerMetrics, local: string): void {
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

export function writeRpc(text: MetricsText, rpc: RpcServer, clientVersions: ClientVersions): void {
  writeMethods(text, rpc.methods);
  text
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

export function writeConnections(text: MetricsText, { clients, peers }: ConnectionLimits): void {
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
