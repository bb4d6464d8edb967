/** `etcd grpc-proxy start`: from flags to a running proxy. Source: etcd v3.7, server/etcdmain/grpc_proxy.go. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { HttpSide } from "../../api/http/http.ts";
import { openClientTls } from "../../api/listeners/client-tls.ts";
import { type ConnectionLimit, connectionLimits } from "../../api/listeners/connection-limit.ts";
import { type ListenAddress, Listeners } from "../../api/listeners/listeners.ts";
import { inBackground } from "../../base/background.ts";
import { messageOf } from "../../base/errors.ts";
import type { FlagSet } from "../../base/flags.ts";
import { CODE_NAMES } from "../../base/grpc-codes.ts";
import { systemText } from "../../base/system-error.ts";
import { Client } from "../../client/client.ts";
import type { Keyspace } from "../../client/keyspace.ts";
import type { ClientTls } from "../../client/options.ts";
import { RPC_DEFAULTS } from "../../rpc/options.ts";
import { RpcServer } from "../../rpc/server.ts";
import { type ProxyCommand, ProxyError, type ProxyIo, type RunningProxy } from "../contract.ts";
import { discoverRemotes } from "../discovery.ts";
import { splitHostPort } from "../host-port.ts";
import { ClusterProxy } from "./cluster.ts";
import { checkFlags, FLAGS } from "./flags.ts";
import { proxyHandlers } from "./http.ts";
import { KvProxy } from "./kv.ts";
import { LeaseProxy } from "./lease.ts";
import { LeasingKv } from "./leasing/leasing.ts";
import { lowerKv } from "./leasing/lower-kv.ts";
import { LeasingSession } from "./leasing/session.ts";
import { Namespace } from "./namespace.ts";
import { registerPassThrough } from "./pass-through.ts";
import { RangeCache } from "./range-cache.ts";
import { Upstream } from "./upstream.ts";
import { WatchProxy } from "./watch.ts";

const CLOSE_GRACE_MS = 1000;
/** The limit of messages that gRPC servers have by default; a proxy of stock etcd has it. */
const RECEIVE_BYTES_MAX = 4 * 1024 * 1024;

const start: ProxyCommand = {
  name: "start",
  short: "start the grpc proxy",
  flags: FLAGS,
  async run(context, { flags }) {
    checkFlags(flags);
    context.running = await startProxy(context.io, flags);
  },
};

export const grpcProxy: ProxyCommand = { name: "grpc-proxy", short: "grpc-proxy related command", commands: [start] };

async function startProxy(io: ProxyIo, flags: FlagSet): Promise<RunningProxy> {
  const { logger, clock } = io;
  const address = flags.string("listen-addr");
  const { clients: limit } = connectionLimits({ clientsMax: 0, clock, logger });
  const secure = flags.string("cert-file") !== "" || flags.bool("auto-tls");
  const listenAddress = listenAddressOf(address, secure);
  const metricsUrl = flags.string("metrics-addr");
  const metricsAddresses = metricsUrl === "" ? [] : [metricsAddress(metricsUrl)];
  const listeners = await openListeners(io, flags, limit, listenAddress, metricsAddresses);
  const client = await openClient(io, flags);
  const end = (): void => {
    listeners.close();
    client.close();
  };
  try {
    const hosts = await listeners.bindAll([listenAddress], "grpc+http");
    const metricsHosts = await listeners.bindAll(metricsAddresses, "metrics");
    logger.info("listening for gRPC proxy client requests", { address });
    if (flags.bool("experimental-serializable-ordering")) await newestState(io, client);
    const { rpc, http, cluster, leasing } = createServices(io, flags, client, limit);
    for (const host of hosts) host.serve((socket) => rpc.handleConnection(socket));
    for (const host of metricsHosts) host.serve((socket) => http.handleConnection(socket, Buffer.alloc(0)));
    const sync = autoSync(io, client, flags.number("endpoints-auto-sync-interval"));
    logger.info("started gRPC proxy", { address });
    return {
      address: hosts[0]!.urls[0]!.replace(/^https?:\/\//, ""),
      async close() {
        sync?.cancel();
        listeners.close();
        cluster.close();
        leasing?.close();
        await Promise.all([rpc.close(CLOSE_GRACE_MS), http.close(CLOSE_GRACE_MS)]);
        client.close();
      },
    };
  } catch (error) {
    end();
    throw error instanceof ProxyError ? error : new ProxyError(messageOf(error));
  }
}

function createServices(io: ProxyIo, flags: FlagSet, client: Client, limit: ConnectionLimit) {
  const { logger, clock } = io;
  const handlers: ReturnType<typeof proxyHandlers>[number][] = [];
  const http = new HttpSide({
    clock,
    logger,
    handlers,
    cors: [],
    hostWhitelist: [],
    onRequest: (socket) => limit.spoke(socket),
  });
  const isLogging = flags.bool("experimental-enable-grpc-logging");
  const rpc = new RpcServer({
    ...RPC_DEFAULTS,
    clock,
    logger,
    maxConcurrentStreams: flags.number("max-concurrent-streams"),
    maxRecvMessageBytes: Math.max(RECEIVE_BYTES_MAX, flags.number("max-send-bytes")),
    keepalive: {
      minTimeMs: flags.number("grpc-keepalive-min-time"),
      permitWithoutStream: false,
      intervalMs: flags.number("grpc-keepalive-interval") || Number.POSITIVE_INFINITY,
      timeoutMs: flags.number("grpc-keepalive-timeout") || Number.POSITIVE_INFINITY,
    },
    http1: (socket, head) => http.handleConnection(socket, head),
    http2Request: (request) => http.handleHttp2(request),
    onHttp2: (socket) => limit.spoke(socket),
    onCallEnd: isLogging
      ? ({ path, remoteAddress }, code) =>
          logger.info("finished call", { method: path, "remote-addr": remoteAddress, code: CODE_NAMES[code] })
      : undefined,
  });
  limit.whenFull(() => [...http.closeIdle(), ...rpc.closeIdle()]);
  const upstream = new Upstream(client.caller, logger, flags.number("max-send-bytes"));
  const namespace = new Namespace(flags.string("namespace"));
  const cache = new RangeCache();
  const keys = namespace.isEmpty ? client : client.namespace(flags.string("namespace"));
  const leasing = openLeasing(io, flags, client, keys);
  const kv = new KvProxy({
    upstream,
    namespace,
    cache,
    ordering: flags.bool("experimental-serializable-ordering"),
    leasing: leasing && new LeasingKv(leasing, lowerKv(upstream, namespace)),
  });
  const watch = new WatchProxy({ upstream, namespace, logger });
  const cluster = new ClusterProxy({
    upstream,
    leases: client.leases,
    keys,
    logger,
    advertised: flags.string("advertise-client-url"),
    prefix: flags.string("resolver-prefix"),
    ttl: flags.number("resolver-ttl"),
  });
  for (const service of [kv, watch, cluster, new LeaseProxy(upstream, namespace)]) service.register(rpc);
  registerPassThrough(rpc, upstream);
  const tls = {
    ca: contentOf(flags.string("cacert")),
    cert: contentOf(flags.string("cert")),
    key: contentOf(flags.string("key")),
    rejectUnauthorized: !flags.bool("insecure-skip-tls-verify"),
  };
  const isSecure = membersTls(flags) !== undefined;
  handlers.push(...proxyHandlers({ client, tls, isSecure, kv, cache, watch, methods: () => rpc.methods }));
  return { rpc, http, cluster, leasing };
}

function openLeasing(
  { logger }: ProxyIo,
  flags: FlagSet,
  client: Client,
  keys: Keyspace<string, string>,
): LeasingSession | undefined {
  const prefix = flags.string("experimental-leasing-prefix");
  if (prefix === "") return undefined;
  return new LeasingSession({ leases: client.leases, keys: keys.bytes, prefix, logger });
}

async function openClient(io: ProxyIo, flags: FlagSet): Promise<Client> {
  const { logger } = io;
  const found = await discoverRemotes(io, {
    domain: flags.string("discovery-srv"),
    suffix: flags.string("discovery-srv-name"),
    caFile: flags.string("cacert"),
    insecure: flags.bool("insecure-discovery"),
  });
  const tls = membersTls(flags);
  if (tls?.certFile !== undefined) refuseCommonName(tls.certFile);
  if (flags.bool("insecure-skip-tls-verify")) {
    logger.warn("--insecure-skip-tls-verify: members' certificates are not verified; this is for tests only");
  }
  for (const flag of ["enable-pprof", "permit-without-stream"]) {
    if (flags.bool(flag)) logger.warn(`--${flag} has no effect`);
  }
  try {
    return new Client({
      endpoints: found.length > 0 ? found.map(({ address }) => address) : flags.strings("endpoints"),
      ...(tls === undefined ? {} : { tls }),
      connectTimeoutMs: 5000,
      keepAliveMs: flags.number("dial-keepalive-time") || Number.POSITIVE_INFINITY,
      keepAliveTimeoutMs: flags.number("dial-keepalive-timeout") || Number.POSITIVE_INFINITY,
      // Of what it forwards the proxy's own limits hold.
      requestBytesMax: Number.POSITIVE_INFINITY,
      pendingBytesMax: Number.POSITIVE_INFINITY,
      responseBytesMax: flags.number("max-recv-bytes"),
      balance: "round-robin",
      clock: io.clock,
      random: io.random,
    });
  } catch (error) {
    throw new ProxyError(messageOf(error));
  }
}

/** How members are spoken to over TLS; undefined when no flag asks for it. Throws ProxyError for a file. */
function membersTls(flags: FlagSet): ClientTls | undefined {
  const [caFile, certFile, keyFile] = [flags.string("cacert"), flags.string("cert"), flags.string("key")];
  const insecureSkipVerify = flags.bool("insecure-skip-tls-verify");
  if (caFile === "" && certFile === "" && !insecureSkipVerify) return undefined;
  return {
    ...(caFile === "" ? {} : { caFile }),
    ...(certFile === "" ? {} : { certFile, keyFile }),
    ...(insecureSkipVerify ? { insecureSkipVerify } : {}),
  };
}

/**
 * Members with users and --client-cert-auth take the common name of a certificate for a user's name: all clients of the
 * proxy would have that user's rights. Source: etcd `client/pkg/transport/listener.go`, EmptyCN.
 */
function refuseCommonName(certFile: string): void {
  const pem = contentOf(certFile)!;
  let name: unknown;
  try {
    name = new X509Certificate(pem).toLegacyObject().subject.CN;
  } catch (error) {
    throw new ProxyError(`${certFile} has no certificate: ${messageOf(error)}`);
  }
  if (name === undefined || name === "") return;
  throw new ProxyError(
    `cert has non empty Common Name (${[name].flat().join(", ")}): ${certFile}; use a certificate without one, because members may take it for a user's name`,
  );
}

/** Undefined without a path. Throws ProxyError. */
function contentOf(path: string): Buffer | undefined {
  if (path === "") return undefined;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new ProxyError(systemText(error));
  }
}

async function openListeners(
  io: ProxyIo,
  flags: FlagSet,
  limit: ConnectionLimit,
  address: ListenAddress,
  metrics: readonly ListenAddress[],
): Promise<Listeners> {
  const trustedCaFile = flags.string("trusted-ca-file");
  try {
    const tls = await openClientTls(
      {
        certFile: flags.string("cert-file"),
        keyFile: flags.string("key-file"),
        clientCertFile: "",
        clientKeyFile: "",
        trustedCaFile,
        clientCertAuth: trustedCaFile !== "",
        crlFile: flags.string("client-crl-file"),
        allowedCns: [],
        allowedHostnames: [],
        skipClientSanVerify: true,
        cipherSuites: flags.strings("listen-cipher-suites"),
        minVersion: flags.string("tls-min-version"),
        maxVersion: flags.string("tls-max-version"),
        flagPrefix: "",
        autoTls: flags.bool("auto-tls"),
        selfSignedCertValidityYears: flags.number("self-signed-cert-validity"),
      },
      { dataDir: flags.string("data-dir"), clock: io.clock, logger: io.logger, clients: [address], metrics },
    );
    return new Listeners({ clock: io.clock, logger: io.logger, tls, limit });
  } catch (error) {
    throw new ProxyError(messageOf(error));
  }
}

function listenAddressOf(address: string, secure: boolean): ListenAddress {
  const parts = splitHostPort(address);
  if (parts === undefined) throw new ProxyError(`failed to validate listen address: ${address}`);
  const { host, port } = parts;
  const url = `http${secure ? "s" : ""}://${address}`;
  return { kind: "tcp", host: host === "localhost" ? "127.0.0.1" : host, port, name: host, url };
}

function metricsAddress(text: string): ListenAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isKnown = url?.protocol === "http:" || url?.protocol === "https:";
  if (url === undefined || !isKnown || url.port === "")
    throw new ProxyError(`cannot parse ${text}: give http://host:port`);
  const host = url.hostname === "localhost" ? "127.0.0.1" : url.hostname.replace(/^\[(.*)\]$/, "$1");
  return { kind: "tcp", host, port: Number(url.port), name: url.hostname, url: text };
}

/** Waits until the cluster answers a linearizable read, so that no older state is shown after it. */
async function newestState({ logger, clock }: ProxyIo, client: Client): Promise<void> {
  logger.info("waiting for linearized read from cluster to recover ordering");
  for (;;) {
    try {
      await client.get("_");
      return;
    } catch (error) {
      logger.warn("ordering recovery failed, retrying in 1s", { error: messageOf(error) });
      await new Promise<void>((resolve) => clock.after(1000, resolve));
    }
  }
}

/** Follows the members' addresses. */
function autoSync({ clock, logger }: ProxyIo, client: Client, intervalMs: number) {
  if (intervalMs === 0) return undefined;
  const sync = async (): Promise<void> => {
    const members = await client.cluster.members();
    const endpoints = members.flatMap(({ isLearner, clientUrls }) => (isLearner ? [] : clientUrls));
    if (endpoints.length === 0 || endpoints.join() === client.endpoints.join()) return;
    client.endpoints = endpoints;
    logger.info("the addresses of the members have changed", { endpoints });
  };
  return clock.every(intervalMs, () => inBackground(sync(), "ask for the members", logger));
}
