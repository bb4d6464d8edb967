import * as fs from "node:fs";
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
import { gatewayHandler } from "./gateway.ts";
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
  /** The same of the listeners for HTTP alone, and for metrics. */
  readonly clientHttpAddresses: readonly string[];
  readonly metricsAddresses: readonly string[];
  /** Ends calls, gives their clients `graceMs` to notice, then closes everything in order. */
  close(graceMs?: number): Promise<void>;
}

const CLOSE_GRACE_MS = 1000;

/** Starts a member and resolves when it serves clients. Rejects with what prevented it. */
export async function startEtcd(options: EtcdOptions): Promise<Etcd> {
  const { logger } = options.server;
  const listeners = new Listeners(logger);
  let server: EtcdServer | undefined;
  try {
    // Ports first: one that is taken must be known before anything is written. Who connects early waits.
    const grpcHosts = await listeners.bindAll(options.listenClient);
    const httpHosts = await listeners.bindAll(options.listenClientHttp);
    const metricsHosts = await listeners.bindAll(options.listenMetrics);
    const parts = await bootstrap(options.server);
    const started = await EtcdServer.create(options.server, parts);
    server = started;
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
    for (const host of grpcHosts) host.serve((socket) => rpc.grpc.handleConnection(socket));
    for (const host of httpHosts) host.serve((socket) => rpc.http.handleConnection(socket, Buffer.alloc(0)));
    for (const host of metricsHosts) host.serve((socket) => rpc.metrics.handleConnection(socket, Buffer.alloc(0)));
    let closed: Promise<void> | undefined;
    const close = async (graceMs: number): Promise<void> => {
      listeners.close();
      rpc.health.shutDown();
      await Promise.all([rpc.http.close(graceMs), rpc.metrics.close(graceMs), rpc.grpc.close(graceMs)]);
      await started.stop();
    };
    const urls = (hosts: readonly Listener[]): string[] => hosts.map(({ url }) => url);
    return {
      server,
      clientAddresses: urls(grpcHosts),
      clientHttpAddresses: urls(httpHosts),
      metricsAddresses: urls(metricsHosts),
      close(graceMs = CLOSE_GRACE_MS) {
        closed ??= close(graceMs);
        return closed;
      },
    };
  } catch (error) {
    listeners.close();
    await server?.stop();
    throw error;
  }
}

/** Bytes of JSON that a message of one byte may take: base64 adds a third, and names and spaces come on top. */
const JSON_EXPANSION = 2;

function createRpc(
  options: EtcdOptions,
  server: EtcdServer,
): { grpc: RpcServer; http: HttpSide; metrics: HttpSide; health: HealthService } {
  const { clock, logger } = options.server;
  const maxMessageBytes = options.server.maxRequestBytes + GRPC_OVERHEAD_BYTES;
  const header = new HeaderWriter(server);
  const health = new HealthCounts();
  const durations = options.extensiveMetrics ? new RpcDurations(clock) : undefined;
  /** What the listeners for metrics serve, and nothing else: they are often open to more than the clients are. */
  const monitoring: HttpHandler[] = [healthHandler(server, health)];
  const handlers: HttpHandler[] = [];
  const metrics = new HttpSide({ clock, handlers: monitoring, logger, cors: [], hostWhitelist: [], maxBodyBytes: 0 });
  const http = new HttpSide({
    clock,
    handlers,
    logger,
    cors: options.cors,
    hostWhitelist: options.hostWhitelist,
    maxBodyBytes: maxMessageBytes * JSON_EXPANSION,
  });
  const separate = options.listenClientHttp.length > 0;
  const grpc = new RpcServer({
    clock,
    logger,
    maxConcurrentStreams: options.maxConcurrentStreams,
    maxRecvMessageBytes: maxMessageBytes,
    maxSendMessageBytes: 0x7fffffff,
    receiveBufferBytesMax: RPC_DEFAULTS.receiveBufferBytesMax,
    sendQueueBytesMax: RPC_DEFAULTS.sendQueueBytesMax,
    keepalive: options.keepalive,
    http1: separate ? undefined : (socket, head) => http.handleConnection(socket, head),
    http2Request: separate ? undefined : (request) => http.handleHttp2(request),
    onCallStart: durations?.onCallStart,
    onCallEnd: durations?.onCallEnd,
  });
  monitoring.push(metricsHandler({ server, rpc: grpc, health, features: options.features, durations }));
  handlers.push(...monitoring);
  if (options.enableGrpcGateway) handlers.push(gatewayHandler({ rpc: grpc, clock, maxMessageBytes }));
  new KvApi(server, header).register(grpc);
  new WatchApi(server, options.watchProgressNotifyIntervalMs).register(grpc);
  new LeaseApi(server, header).register(grpc);
  new ClusterApi(server, header).register(grpc);
  new MaintenanceApi(server, header).register(grpc);
  new LockApi(server, header).register(grpc);
  new ElectionApi(server, header).register(grpc);
  registerAuth(grpc, server, header);
  registerReflection(grpc, protoSources);
  return { grpc, http, metrics, health: new HealthService(grpc) };
}

/** Connections that may wait for the server to be ready. */
const EARLY_MAX = 1024;

/** A bound address. Connections are kept until there is someone to serve them. */
class Listener {
  readonly url: string;
  readonly #logger: Logger;
  #early: RpcSocket[] = [];
  #accept: ((socket: RpcSocket) => void) | null = null;

  constructor(server: net.Server, address: ListenAddress, logger: Logger) {
    this.#logger = logger;
    const bound = server.address();
    this.url =
      typeof bound === "object" && bound !== null
        ? `http://${bound.family === "IPv6" ? `[${bound.address}]` : bound.address}:${bound.port}`
        : address.url;
    server.on("connection", (socket) => this.#connection(socket));
  }

  serve(accept: (socket: RpcSocket) => void): void {
    this.#logger.info("serving client traffic insecurely; this is strongly discouraged!", {
      traffic: "grpc+http",
      address: this.url,
    });
    this.#accept = accept;
    const early = this.#early;
    this.#early = [];
    for (const socket of early) if (!socket.destroyed) accept(socket);
  }

  destroyEarly(): void {
    for (const socket of this.#early) socket.destroy();
  }

  #connection(socket: RpcSocket): void {
    if (this.#accept !== null) this.#accept(socket);
    else if (this.#early.length >= EARLY_MAX) socket.destroy();
    else {
      socket.on("error", () => socket.destroy());
      this.#early.push(socket);
    }
  }
}

/** The sockets that wait for clients. */
class Listeners {
  readonly #logger: Logger;
  readonly #servers: net.Server[] = [];
  readonly #listeners: Listener[] = [];

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  async bindAll(addresses: readonly ListenAddress[]): Promise<Listener[]> {
    const bound: Listener[] = [];
    for (const address of addresses) bound.push(await this.#bind(address));
    return bound;
  }

  async #bind(address: ListenAddress): Promise<Listener> {
    const server = net.createServer({ noDelay: true, keepAlive: true });
    this.#servers.push(server);
    try {
      await listen(server, address).catch(async (error: NodeJS.ErrnoException) => {
        if (address.kind !== "unix" || error.code !== "EADDRINUSE" || !(await removeStaleSocket(address.path)))
          throw error;
        this.#logger.info("removed the unix socket of a process that is gone", { path: address.path });
        await listen(server, address);
      });
    } catch (error) {
      throw new Error(listenProblem(address, error as NodeJS.ErrnoException), { cause: error });
    }
    server.on("error", (error) => this.#logger.warn("failed to accept a connection", { error: error.message }));
    const listener = new Listener(server, address, this.#logger);
    this.#listeners.push(listener);
    return listener;
  }

  close(): void {
    for (const server of this.#servers) server.close();
    for (const listener of this.#listeners) listener.destroyEarly();
  }
}

function listen(server: net.Server, address: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const listening = (): void => {
      server.off("error", reject);
      resolve();
    };
    if (address.kind === "unix") server.listen(address.path, listening);
    else server.listen({ host: address.host, port: address.port, backlog: 1024 }, listening);
  });
}

/**
 * Removes a socket file that nobody listens on, as a killed process leaves it, and tells whether it did. etcd removes
 * any file there; one that somebody answers on, or that is no socket, is kept.
 */
async function removeStaleSocket(path: string): Promise<boolean> {
  const refused = await new Promise<boolean>((resolve) => {
    const probe = net.connect(path, () => {
      probe.destroy();
      resolve(false);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
  if (!refused || !fs.lstatSync(path).isSocket()) return false;
  fs.rmSync(path, { force: true });
  return true;
}

function listenProblem(address: ListenAddress, error: NodeJS.ErrnoException): string {
  const where = address.kind === "unix" ? address.path : `tcp ${address.host}:${address.port}`;
  switch (error.code) {
    case "EADDRINUSE":
      return `listen ${where}: bind: address already in use: another process listens there (see: ss ${address.kind === "unix" ? "-lxp" : "-ltnp"}), stop it or choose another URL`;
    case "EACCES":
      return `listen ${where}: permission denied: choose a port above 1023 or a path that this user may write`;
    case "EADDRNOTAVAIL":
      return `listen ${where}: this host has no such address: use one of its own (see: ip addr)`;
    default:
      return `listen ${where}: ${error.message}`;
  }
}
