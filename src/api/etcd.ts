import * as net from "node:net";
import type { Logger } from "../base/log.ts";
import { formatId } from "../membership/member.ts";
import { protoSources } from "../proto/sources.ts";
import { HealthService } from "../rpc/health.ts";
import { registerReflection } from "../rpc/reflection.ts";
import { type KeepaliveOptions, RPC_DEFAULTS, RpcServer, type RpcSocket } from "../rpc/server.ts";
import { bootstrap } from "../server/bootstrap.ts";
import { ETCD_VERSION, type ServerOptions } from "../server/options.ts";
import { EtcdServer } from "../server/server.ts";
import { registerAuth } from "./auth.ts";
import { ClusterApi } from "./cluster.ts";
import { ElectionApi } from "./election.ts";
import { HeaderWriter } from "./header.ts";
import { HealthCounts, healthHandler } from "./health.ts";
import { type HttpHandler, HttpSide } from "./http.ts";
import { KvApi } from "./kv.ts";
import { LeaseApi } from "./lease.ts";
import { LockApi } from "./lock.ts";
import { MaintenanceApi } from "./maintenance.ts";
import { metricsHandler } from "./metrics.ts";
import { RpcDurations } from "./rpc-durations.ts";
import { GRPC_OVERHEAD_BYTES, WatchApi } from "./watch.ts";

/** Where a listener waits: an IP address (or localhost) and port, or the path of a unix socket. */
export type ListenAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number; readonly url: string }
  | { readonly kind: "unix"; readonly path: string; readonly url: string };

/** A member with its listeners. */
export interface EtcdOptions {
  readonly server: ServerOptions;
  readonly listenClient: readonly ListenAddress[];
  /** Given: HTTP is served here, and the client listeners speak gRPC alone (`--listen-client-http-urls`). */
  readonly listenClientHttp: readonly ListenAddress[];
  /** More places for `/metrics` and `/health`. */
  readonly listenMetrics: readonly ListenAddress[];
  readonly maxConcurrentStreams: number;
  readonly keepalive: KeepaliveOptions;
  readonly cors: readonly string[];
  readonly hostWhitelist: readonly string[];
  readonly watchProgressNotifyIntervalMs: number;
  /** `--metrics=extensive`: histograms for each RPC too. */
  readonly extensiveMetrics: boolean;
  readonly enableGrpcGateway: boolean;
  /** Feature gates, as the metrics page shows them. */
  readonly features: readonly { readonly name: string; readonly stage: string; readonly enabled: boolean }[];
}

/** A running member. */
export interface Etcd {
  readonly server: EtcdServer;
  /** Bound addresses of the client listeners: with port 0 the ones that the system chose. */
  readonly clientAddresses: readonly string[];
  /** Ends calls, gives their clients `graceMs` to notice, then closes everything in order. */
  close(graceMs?: number): Promise<void>;
}

const CLOSE_GRACE_MS = 1000;

/** Starts a member and resolves when it serves clients. Rejects with what prevented it. */
export async function startEtcd(options: EtcdOptions): Promise<Etcd> {
  const { logger } = options.server;
  const listeners = new Listeners(logger);
  try {
    // Ports first: one that is taken must be known before anything is written.
    const parts = await bootstrap(options.server);
    const server = await EtcdServer.create(options.server, parts);
    const rpc = createRpc(options, server);
    logger.info("starting etcd server", {
      "local-member-id": formatId(server.memberId),
      "local-server-version": ETCD_VERSION,
      "cluster-id": formatId(server.cluster.id),
      "cluster-version": server.cluster.version ?? "to_be_decided",
    });
    server.start();
    await server.ready;
    logger.info("ready to serve client requests");
    const clientAddresses: string[] = [];
    for (const address of options.listenClient) {
      clientAddresses.push(await listeners.listen(address, (socket) => rpc.grpc.handleConnection(socket)));
    }
    const plain = (socket: RpcSocket): void => rpc.http.handleConnection(socket, Buffer.alloc(0));
    for (const address of options.listenClientHttp) await listeners.listen(address, plain);
    for (const address of options.listenMetrics) await listeners.listen(address, plain);
    return {
      server,
      clientAddresses,
      async close(graceMs = CLOSE_GRACE_MS) {
        listeners.close();
        rpc.health.shutDown();
        rpc.http.close();
        await rpc.grpc.close(graceMs);
        await server.stop();
      },
    };
  } catch (error) {
    listeners.close();
    throw error;
  }
}

function createRpc(
  options: EtcdOptions,
  server: EtcdServer,
): { grpc: RpcServer; http: HttpSide; health: HealthService } {
  const { clock, logger, maxRequestBytes } = options.server;
  const header = new HeaderWriter(server);
  const health = new HealthCounts();
  const durations = options.extensiveMetrics ? new RpcDurations(clock) : undefined;
  const handlers: HttpHandler[] = [healthHandler(server, health)];
  const http = new HttpSide({
    handlers,
    logger,
    cors: options.cors,
    hostWhitelist: options.hostWhitelist,
    maxBodyBytes: maxRequestBytes + GRPC_OVERHEAD_BYTES,
  });
  const separate = options.listenClientHttp.length > 0;
  const grpc = new RpcServer({
    clock,
    logger,
    maxConcurrentStreams: options.maxConcurrentStreams,
    maxRecvMessageBytes: maxRequestBytes + GRPC_OVERHEAD_BYTES,
    maxSendMessageBytes: 0x7fffffff,
    receiveBufferBytesMax: RPC_DEFAULTS.receiveBufferBytesMax,
    sendQueueBytesMax: RPC_DEFAULTS.sendQueueBytesMax,
    keepalive: options.keepalive,
    http1: separate ? undefined : (socket, head) => http.handleConnection(socket, head),
    http2Request: separate ? undefined : (request) => http.handleHttp2(request),
    onCallStart: durations?.onCallStart,
    onCallEnd: durations?.onCallEnd,
  });
  handlers.push(metricsHandler({ server, rpc: grpc, health, features: options.features, durations }));
  new KvApi(server, header).register(grpc);
  new WatchApi(server, options.watchProgressNotifyIntervalMs).register(grpc);
  new LeaseApi(server, header).register(grpc);
  new ClusterApi(server, header).register(grpc);
  new MaintenanceApi(server, header).register(grpc);
  new LockApi(server, header).register(grpc);
  new ElectionApi(server, header).register(grpc);
  registerAuth(grpc, server, header);
  registerReflection(grpc, protoSources);
  return { grpc, http, health: new HealthService(grpc) };
}

/** The sockets that wait for clients. */
class Listeners {
  readonly #logger: Logger;
  readonly #servers: net.Server[] = [];

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Resolves with the bound address as a URL. */
  async listen(address: ListenAddress, accept: (socket: RpcSocket) => void): Promise<string> {
    const server = net.createServer({ noDelay: true, keepAlive: true }, accept);
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error: NodeJS.ErrnoException) =>
        reject(new Error(listenProblem(address, error), { cause: error })),
      );
      if (address.kind === "unix") server.listen(address.path, resolve);
      else server.listen({ host: address.host, port: address.port, backlog: 1024 }, resolve);
    });
    server.on("error", (error) => this.#logger.warn("failed to accept a connection", { error: error.message }));
    const bound = server.address();
    const url =
      typeof bound === "object" && bound !== null
        ? `http://${bound.family === "IPv6" ? `[${bound.address}]` : bound.address}:${bound.port}`
        : address.url;
    this.#logger.info("serving client traffic insecurely; this is strongly discouraged!", {
      traffic: "grpc+http",
      address: url,
    });
    return url;
  }

  close(): void {
    for (const server of this.#servers) server.close();
  }
}

function listenProblem(address: ListenAddress, error: NodeJS.ErrnoException): string {
  const where = address.kind === "unix" ? address.path : `tcp ${address.host}:${address.port}`;
  switch (error.code) {
    case "EADDRINUSE":
      return `listen ${where}: bind: address already in use: another process listens there (see: ss -ltnp), stop it or choose another URL`;
    case "EACCES":
      return `listen ${where}: permission denied: choose a port above 1023 or a path that this user may write`;
    case "EADDRNOTAVAIL":
      return `listen ${where}: this host has no such address: use one of its own (see: ip addr)`;
    default:
      return `listen ${where}: ${error.message}`;
  }
}
