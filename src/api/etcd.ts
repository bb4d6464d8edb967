import type { Socket } from "node:net";
import { inBackground } from "../base/background.ts";
import { type LoopProbe, systemLoop } from "../base/loop-probe.ts";
import { LoopWatch } from "../base/loop-watch.ts";
import { ETCD_VERSION } from "../base/versions.ts";
import { formatId, type Member } from "../membership/member.ts";
import { PeerEndpoints } from "../peer/endpoints.ts";
import { protoSources } from "../proto/sources.ts";
import type { CallInfo, RpcSocket } from "../rpc/contract.ts";
import { HealthService } from "../rpc/health.ts";
import { type KeepaliveOptions, RPC_DEFAULTS } from "../rpc/options.ts";
import { registerReflection } from "../rpc/reflection.ts";
import { RpcServer } from "../rpc/server.ts";
import type { BootstrapOptions } from "../server/contract/options.ts";
import { EtcdServer } from "../server/server.ts";
import { bootstrap } from "../server/start/bootstrap.ts";
import { reportWaiting } from "../server/start/report.ts";
import { AuditLog, type AuditOptions } from "./audit/audit-log.ts";
import { Access } from "./calls/access.ts";
import { CallLog } from "./calls/call-log.ts";
import { HeaderWriter } from "./calls/header.ts";
import { MemberGate } from "./calls/member-gate.ts";
import { RpcDurations } from "./calls/rpc-durations.ts";
import { withTokenGate } from "./calls/token-gate.ts";
import { gatewayHandler } from "./gateway/gateway.ts";
import type { HttpHandler } from "./http/contract.ts";
import { HealthCounts, healthHandler } from "./http/health.ts";
import { HttpSide } from "./http/http.ts";
import { metricsHandler } from "./http/metrics/page.ts";
import { type ClientTls, openClientTls } from "./listeners/client-tls.ts";
import { type ConnectionLimits, connectionLimits } from "./listeners/connection-limit.ts";
import { type ListenAddress, type Listener, Listeners } from "./listeners/listeners.ts";
import { PeerSide, type PeerSideOptions, type Peers } from "./listeners/peer-side.ts";
import { AuthApi } from "./services/auth.ts";
import { ClusterApi } from "./services/cluster.ts";
import { ElectionApi } from "./services/election.ts";
import { KvApi } from "./services/kv.ts";
import { LeaseApi } from "./services/lease.ts";
import { LockApi } from "./services/lock.ts";
import { MaintenanceApi } from "./services/maintenance.ts";
import { GRPC_OVERHEAD_BYTES, WatchApi } from "./services/watch.ts";
import type { Tracer } from "./tracing/tracer.ts";

/** A member with its listeners. */
export interface EtcdOptions extends PeerSideOptions {
  readonly server: BootstrapOptions;
  readonly listenClient: readonly ListenAddress[];
  /** If set, HTTP is served here, and the client listeners speak only gRPC (`--listen-client-http-urls`). */
  readonly listenClientHttp: readonly ListenAddress[];
  /** Additional addresses for `/metrics` and `/health`. */
  readonly listenMetrics: readonly ListenAddress[];
  /** For addresses with `https` or `unixs` URLs. */
  readonly clientTls?: ClientTls | undefined;
  /** Open connections to all listeners except the peers'; 0 for as many as the file descriptor limit allows. */
  readonly maxClientConnections: number;
  readonly maxConcurrentStreams: number;
  readonly keepalive: KeepaliveOptions;
  readonly cors: readonly string[];
  readonly hostWhitelist: readonly string[];
  readonly watchProgressNotifyIntervalMs: number;
  /** `--metrics=extensive`: also histograms per RPC. */
  readonly extensiveMetrics: boolean;
  readonly enableGrpcGateway: boolean;
  /** Also `server.trace`. */
  readonly tracer?: Tracer | undefined;
  /** Without a path, nothing is recorded. */
  readonly audit?: AuditOptions | undefined;
  /** Feature gates, for the metrics page. */
  readonly features: readonly { readonly name: string; readonly stage: string; readonly enabled: boolean }[];
  /** For a member embedded in a program; absent in a process of its own. */
  readonly embedding?: Embedding | undefined;
}

/** What a program that has a member inside replaces. */
export interface Embedding {
  /** The way to other members in the same process, instead of sockets. */
  readonly peers?: Peers | undefined;
  /** The event loop is the program's: how long its turns take is not this member's business. */
  readonly loop: LoopProbe;
  /** An accepted connection: `serve` takes it over, now or later. */
  onSocket(socket: RpcSocket, serve: () => void): void;
  /** Rejects when the start is to be given up. */
  readonly givenUp: Promise<never>;
}

/** A running member. */
export interface Etcd {
  readonly server: EtcdServer;
  /** Bound addresses of the client listeners; for port 0, the port that the system chose. */
  readonly clientAddresses: readonly string[];
  /** The same for the HTTP-only listeners, and for metrics. */
  readonly clientHttpAddresses: readonly string[];
  readonly metricsAddresses: readonly string[];
  readonly peerAddresses: readonly string[];
  /** Serves a connection from within the process, like one of a client listener. */
  accept(socket: Socket): void;
  /** Lets go of what the system holds, and ends nothing: for a member without files, whose clock and network have ended. */
  abandon(): void;
  /** Ends calls, gives their clients `graceMs`, then closes everything in order. */
  close(graceMs?: number): Promise<void>;
}

const CLOSE_GRACE_MS = 1000;

/** Starts a member and resolves when it serves clients. Rejects with the reason if it cannot start. */
export async function startEtcd(options: EtcdOptions): Promise<Etcd> {
  const { clock, logger } = options.server;
  const loop = new LoopWatch({ clock, probe: options.embedding?.loop ?? systemLoop, logger });
  try {
    return await startWatched(options, loop);
  } catch (error) {
    loop.close();
    throw error;
  }
}

async function startWatched(options: EtcdOptions, loop: LoopWatch): Promise<Etcd> {
  const { clock, dataDir, logger } = options.server;
  const tls = await openClientTls(options.clientTls, {
    dataDir,
    clients: [...options.listenClient, ...options.listenClientHttp],
    metrics: options.listenMetrics,
    clock,
    logger,
  });
  const limits = connectionLimits({ clientsMax: options.maxClientConnections, clock, logger });
  const listeners = new Listeners({ clock, logger, tls, limit: limits.clients });
  // Ports first: a port in use must be detected before anything is written. Early clients wait.
  const peers = options.embedding?.peers ?? (await PeerSide.open(options, options.server, limits.peers));
  let server: EtcdServer | undefined;
  try {
    const isSplit = options.listenClientHttp.length > 0;
    const grpcHosts = await listeners.bindAll(options.listenClient, isSplit ? "grpc" : "grpc+http");
    const httpHosts = await listeners.bindAll(options.listenClientHttp, "http");
    const metricsHosts = await listeners.bindAll(options.listenMetrics, "metrics");
    const { server: started, members } = await createServer(withAddresses(options.server, grpcHosts), peers);
    server = started;
    const rpc = createRpc(options, server, peers, loop, limits);
    logger.info("starting etcd server", {
      "local-member-id": formatId(server.memberId),
      "local-server-version": ETCD_VERSION,
      "cluster-id": formatId(server.cluster.id),
      "cluster-version": server.cluster.version ?? "to_be_decided",
    });
    await server.checkData();
    server.start();
    const endpoints = new PeerEndpoints(server, logger);
    peers.serve([(request, response, path) => endpoints.handle(request, response, path)]);
    const { embedding } = options;
    const serve = (hosts: readonly Listener[], handle: (socket: RpcSocket) => void): void => {
      for (const host of hosts) {
        host.serve(embedding === undefined ? handle : (socket) => embedding.onSocket(socket, () => handle(socket)));
      }
    };
    // Before there is a leader, as in etcd: a probe must not have a member restarted because others are missing.
    serve(metricsHosts, (socket) => rpc.metrics.handleConnection(socket, Buffer.alloc(0)));
    const waiting = reportWaiting({
      clock,
      logger,
      localId: server.memberId,
      // A joining member knows the members from its flags until the log names them.
      members: () => (started.cluster.members().length > 0 ? started.cluster.members() : members),
      activeSince: (id) => peers.transport.activeSince(id),
      leader: () => started.replication.leader,
    });
    await (embedding === undefined ? server.ready : Promise.race([server.ready, embedding.givenUp])).finally(() =>
      waiting.cancel(),
    );
    logger.info("ready to serve client requests");
    loop.startWarning();
    serve(grpcHosts, (socket) => rpc.grpc.handleConnection(socket));
    serve(httpHosts, (socket) => rpc.http.handleConnection(socket, Buffer.alloc(0)));
    let closed: Promise<void> | undefined;
    const close = async (graceMs: number): Promise<void> => {
      listeners.close();
      rpc.health.shutDown();
      await Promise.all([rpc.http.close(graceMs), rpc.metrics.close(graceMs), rpc.grpc.close(graceMs)]);
      await rpc.audit?.close();
      // It transfers leadership, which needs the other members.
      await started.stop();
      await peers.close();
      loop.close();
    };
    const urls = (hosts: readonly Listener[]): string[] => hosts.flatMap((host) => host.urls);
    return {
      server,
      clientAddresses: urls(grpcHosts),
      clientHttpAddresses: urls(httpHosts),
      metricsAddresses: urls(metricsHosts),
      peerAddresses: peers.addresses,
      abandon() {
        listeners.close();
        inBackground(Promise.all([rpc.http.close(0), rpc.metrics.close(0)]), "close the HTTP side", logger);
      },
      accept: (socket) => rpc.grpc.handleConnection(socket),
      close(graceMs = CLOSE_GRACE_MS) {
        closed ??= close(graceMs);
        return closed;
      },
    };
  } catch (error) {
    listeners.close();
    await server?.stop();
    await peers.close();
    throw error;
  }
}

/** Without addresses to advertise, a member advertises those that it listens on. */
function withAddresses(options: BootstrapOptions, hosts: readonly Listener[]): BootstrapOptions {
  if (options.advertiseClientUrls.length > 0) return options;
  return { ...options, advertiseClientUrls: hosts.flatMap((host) => host.urls) };
}

async function createServer(
  options: BootstrapOptions,
  peers: Peers,
): Promise<{ readonly server: EtcdServer; readonly members: readonly Member[] }> {
  const { transport: network, client: peerClient } = peers;
  const parts = await bootstrap(options, peerClient);
  try {
    const server = await EtcdServer.create({ ...options, network, peerClient }, parts);
    return { server, members: parts.members };
  } catch (error) {
    parts.wal.close();
    await parts.backend.close();
    parts.unlock();
    throw error;
  }
}

function createRpc(
  options: EtcdOptions,
  server: EtcdServer,
  peers: Peers,
  loop: LoopWatch,
  limits: ConnectionLimits,
): { grpc: RpcServer; http: HttpSide; metrics: HttpSide; health: HealthService; audit: AuditLog | undefined } {
  const { clock, logger } = options.server;
  const maxMessageBytes = options.server.maxRequestBytes + GRPC_OVERHEAD_BYTES;
  const header = new HeaderWriter(server);
  const gate = new MemberGate(server);
  const health = new HealthCounts();
  const durations = options.extensiveMetrics ? new RpcDurations(clock) : undefined;
  /** Served by the metrics listeners, and nothing else: they are often reachable by more than the clients. */
  const monitoring: HttpHandler[] = [healthHandler(server, health)];
  const handlers: HttpHandler[] = [];
  const spoke = (socket: RpcSocket): void => limits.clients.spoke(socket);
  const metrics = new HttpSide({
    clock,
    handlers: monitoring,
    logger,
    cors: [],
    hostWhitelist: [],
    onRequest: spoke,
  });
  const http = new HttpSide({
    clock,
    handlers,
    logger,
    cors: options.cors,
    hostWhitelist: options.hostWhitelist,
    onRequest: spoke,
  });
  const { tracer } = options;
  const access = new Access(server, tracer);
  const audit = openAudit(options, server, access);
  const debugLog = logger.debugEnabled ? new CallLog(clock, logger) : undefined;
  const separate = options.listenClientHttp.length > 0;
  const grpc = new RpcServer({
    clock,
    logger,
    maxConcurrentStreams: options.maxConcurrentStreams,
    maxRecvMessageBytes: maxMessageBytes,
    maxSendMessageBytes: 0x7fffffff,
    // A few of the largest permitted requests must fit.
    receiveBufferBytesMax: Math.max(RPC_DEFAULTS.receiveBufferBytesMax, 2 * maxMessageBytes),
    heldRequestBytesMax: Math.max(RPC_DEFAULTS.heldRequestBytesMax, 4 * maxMessageBytes),
    heldReplyBytesMax: RPC_DEFAULTS.heldReplyBytesMax,
    keepalive: options.keepalive,
    http1: separate ? undefined : (socket, head) => http.handleConnection(socket, head),
    http2Request: separate ? undefined : (request) => http.handleHttp2(request),
    onHttp2: spoke,
    onCallStart: allOf(durations?.onCallStart, debugLog?.onCallStart, tracer?.started),
    onCallEnd: (call, code) => {
      audit?.ended(call, code);
      tracer?.ended(call, code);
      durations?.onCallEnd(call);
      debugLog?.onCallEnd(call, code);
      gate.callEnded(call);
    },
  });
  limits.clients.whenFull(() => [...metrics.closeIdle(), ...http.closeIdle(), ...grpc.closeIdle()]);
  monitoring.push(
    metricsHandler({
      server,
      peers: peers.transport.metrics,
      rpc: grpc,
      clientVersions: gate.versions,
      limits,
      health,
      loop,
      features: options.features,
      durations,
    }),
  );
  handlers.push(...monitoring);
  if (options.enableGrpcGateway) {
    const { turns } = server;
    handlers.push(gatewayHandler({ rpc: grpc, access, clock, turns, logger, maxMessageBytes }));
  }
  const gated = withTokenGate(gate.wrap(grpc), server);
  new KvApi(server, header, access, audit).register(gated);
  new WatchApi(server, access, options.watchProgressNotifyIntervalMs, audit).register(gated);
  new LeaseApi(server, header, access).register(gated);
  new ClusterApi(server, header, access).register(gated);
  new MaintenanceApi(server, header, access).register(gated);
  new LockApi(server, header, access).register(gated);
  new ElectionApi(server, header, access).register(gated);
  new AuthApi(server, header, access).register(gated);
  registerReflection(grpc, protoSources);
  return { grpc, http, metrics, health: new HealthService(grpc), audit };
}

type CallStart = (call: CallInfo) => void;

/** One function that calls those that there are; undefined without any, so that nothing is called for a call. */
function allOf(...starts: readonly (CallStart | undefined)[]): CallStart | undefined {
  const all = starts.filter((each) => each !== undefined);
  if (all.length < 2) return all[0];
  return (call) => {
    for (const start of all) start(call);
  };
}

/** Throws what the file system says. */
function openAudit({ audit, server }: EtcdOptions, state: EtcdServer, access: Access): AuditLog | undefined {
  if (audit === undefined || audit.path === "") return undefined;
  return new AuditLog(audit, {
    clock: server.clock,
    logger: server.logger,
    revision: () => state.store.currentRevision,
    userOf: (call) => access.knownUserOf(call),
  });
}
