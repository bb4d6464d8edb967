import type { LoopWatch } from "../../../base/loop-watch.ts";
import { MetricsText } from "../../../base/metrics-text.ts";
import type { PeerMetrics } from "../../../peer/metrics.ts";
import { statusFields } from "../../../raft/describe.ts";
import type { RpcServer } from "../../../rpc/server.ts";
import type { EtcdServer } from "../../../server/server.ts";
import type { ClientVersions } from "../../calls/client-versions.ts";
import type { RpcDurations } from "../../calls/rpc-durations.ts";
import type { ConnectionLimits } from "../../listeners/connection-limit.ts";
import type { HttpHandler } from "../contract.ts";
import type { HealthCounts } from "../health.ts";
import { type FeatureState, writeDisk, writeServer, writeStore } from "./member.ts";
import { writeConnections, writePeers, writeRpc } from "./network.ts";
import { openFilesMax, writeLongRequests, writeLoop, writeProcess } from "./process.ts";

/** The sources of the metrics page. */
export interface MetricsSources {
  readonly server: EtcdServer;
  readonly peers: PeerMetrics;
  readonly rpc: RpcServer;
  readonly clientVersions: ClientVersions;
  readonly limits: ConnectionLimits;
  readonly health: HealthCounts;
  readonly loop: LoopWatch;
  readonly features: readonly FeatureState[];
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
  const { server, health, features } = sources;
  const text = new MetricsText();
  writeServer(text, server, health, features);
  writeStore(text, server);
  writeDisk(text, server);
  writePeers(text, sources.peers, server.memberId.toString(16));
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
  writeLongRequests(text, server.turns);
  writeProcess(text);
  return text.toString();
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

function debugVars(server: EtcdServer): string {
  const memory = process.memoryUsage();
  return JSON.stringify({
    cmdline: process.argv,
    file_descriptor_limit: openFilesMax(),
    memstats: { Alloc: memory.heapUsed, Sys: memory.rss, HeapAlloc: memory.heapUsed, HeapSys: memory.heapTotal },
    "raft.status": statusFields(server.replication.raftStatus()),
  });
}
