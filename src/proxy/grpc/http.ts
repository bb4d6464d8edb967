/**
 * What a proxy answers over HTTP: the cluster's metrics and health, and its own. Source: etcd v3.7,
 * server/proxy/grpcproxy/metrics.go and health.go.
 */
import { get as getPlain } from "node:http";
import { get as getSecure, type RequestOptions } from "node:https";
import type { HttpHandler, HttpResponse } from "../../api/http/contract.ts";
import { writeMethods } from "../../api/http/metrics/methods.ts";
import { Code } from "../../base/grpc-codes.ts";
import { MetricsText } from "../../base/metrics-text.ts";
import type { Client } from "../../client/client.ts";
import { RpcError } from "../../client/rpc-error.ts";
import type { MethodStats } from "../../rpc/contract.ts";
import type { KvProxy } from "./kv.ts";
import type { RangeCache } from "./range-cache.ts";
import type { WatchProxy } from "./watch.ts";

const HEALTH_TIMEOUT_MS = 1000;
const WATCH_TIMEOUT_MS = 3000;
const METRICS_TIMEOUT_MS = 10_000;
const METRICS_BYTES_MAX = 16 * 1024 * 1024;
/** Read to see whether the cluster answers. Source: etcd's checkHealth. */
const HEALTH_KEY = "a";

export interface ProxyHttpOptions {
  readonly client: Client;
  /** For requests to members over HTTPS. */
  readonly tls: Pick<RequestOptions, "ca" | "cert" | "key" | "rejectUnauthorized">;
  /** Members without a scheme are reached over HTTPS. */
  readonly isSecure: boolean;
  readonly kv: KvProxy;
  readonly cache: RangeCache;
  readonly watch: WatchProxy;
  readonly methods: () => Iterable<MethodStats>;
}

export function proxyHandlers(options: ProxyHttpOptions): readonly HttpHandler[] {
  const pages: Readonly<Record<string, () => Promise<HttpResponse>>> = {
    "/metrics": () => clusterMetrics(options),
    "/health": async () => health(await clusterProblem(options.client)),
    "/proxy/metrics": async () => ({ status: 200, headers: METRICS, body: ownMetrics(options) }),
    "/proxy/health": async () => health((await clusterProblem(options.client)) ?? (await watchProblem(options.client))),
  };
  return [
    ({ path, method }) => {
      const page = pages[path];
      if (page === undefined) return undefined;
      return method === "GET" || method === "HEAD" ? page() : Promise.resolve(METHOD_NOT_ALLOWED);
    },
  ];
}

const PLAIN = { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" };
const METRICS = { "content-type": "text/plain; version=0.0.4" };
const METHOD_NOT_ALLOWED: HttpResponse = {
  status: 405,
  headers: { ...PLAIN, allow: "GET" },
  body: "Method Not Allowed\n",
};

function health(problem: string | undefined): HttpResponse {
  const body = JSON.stringify({ health: problem === undefined ? "true" : "false", reason: problem ?? "" });
  if (problem === undefined) return { status: 200, headers: PLAIN, body };
  return { status: 503, headers: PLAIN, body: `${body}\n` };
}

async function clusterProblem(client: Client): Promise<string | undefined> {
  try {
    await client.get(HEALTH_KEY, { timeoutMs: HEALTH_TIMEOUT_MS });
    return undefined;
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    // A cluster with users answers: it only does not answer the proxy itself.
    const isAnswer = error.code === Code.PERMISSION_DENIED || error.details === "etcdserver: user name is empty";
    return isAnswer ? undefined : `GET ERROR:${error.details}`;
  }
}

async function watchProblem(client: Client): Promise<string | undefined> {
  const signal = AbortSignal.timeout(WATCH_TIMEOUT_MS);
  const watch = client.watch(HEALTH_KEY, { signal });
  try {
    await watch.ready;
    return undefined;
  } catch {
    return signal.aborted ? "WATCH TIMEOUT" : undefined;
  } finally {
    watch.close();
  }
}

/** The metrics of one member. */
async function clusterMetrics({ client, tls, isSecure }: ProxyHttpOptions): Promise<HttpResponse> {
  const connected = client.status.find((status) => status.connected)?.endpoint ?? client.endpoints[0]!;
  const url = `${/^https?:/.test(connected) ? connected : `http${isSecure ? "s" : ""}://${connected}`}/metrics`;
  try {
    return { status: 200, headers: METRICS, body: await read(url, tls) };
  } catch {
    return { status: 500, headers: PLAIN, body: "Internal server error\n" };
  }
}

function read(url: string, tls: ProxyHttpOptions["tls"]): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(METRICS_TIMEOUT_MS);
    const request = url.startsWith("https:") ? getSecure(url, { ...tls, signal }) : getPlain(url, { signal });
    request.on("error", reject);
    request.on("response", (response) => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      response.on("data", (piece: Buffer) => {
        bytes += piece.length;
        if (bytes > METRICS_BYTES_MAX) response.destroy(new Error("the metrics are too long"));
        else pieces.push(piece);
      });
      response.on("error", reject);
      response.on("end", () => resolve(Buffer.concat(pieces)));
    });
  });
}

function ownMetrics({ kv, cache, watch, methods }: ProxyHttpOptions): string {
  const text = new MetricsText()
    .gauge("etcd_grpc_proxy_cache_hits_total", "Total number of cache hits", kv.hits)
    .gauge("etcd_grpc_proxy_cache_keys_total", "Total number of keys/ranges cached", cache.size)
    .gauge("etcd_grpc_proxy_cache_misses_total", "Total number of cache misses", kv.misses)
    .counter(
      "etcd_grpc_proxy_events_coalescing_total",
      "Total number of events coalescing",
      watch.broadcasts.coalescedEvents,
    )
    .gauge(
      "etcd_grpc_proxy_watchers_coalescing_total",
      "Total number of current watchers coalescing",
      watch.broadcasts.coalescedWatches,
    );
  writeMethods(text, methods());
  return text.toString();
}
