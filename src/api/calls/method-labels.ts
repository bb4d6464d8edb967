import type { Labels } from "../../base/metrics-text.ts";

/** The labels of go-grpc-prometheus, used by etcd's dashboards. */
export function methodLabels(path: string, streaming: boolean): Labels {
  const [, service = "", method = ""] = path.split("/");
  const type = streaming ? (STREAM_TYPES[path] ?? "bidi_stream") : "unary";
  return { grpc_method: method, grpc_service: service, grpc_type: type };
}

const STREAM_TYPES: Readonly<Record<string, string>> = {
  "/etcdserverpb.KV/RangeStream": "server_stream",
  "/etcdserverpb.Maintenance/Snapshot": "server_stream",
  "/v3electionpb.Election/Observe": "server_stream",
  "/grpc.health.v1.Health/Watch": "server_stream",
};
