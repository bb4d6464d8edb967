/**
 * The sockets on which a member waits for clients and other members. They are bound before the member starts, so that a
 * port in use is detected before anything is written; early connections wait until they can be served.
 *
 * An address may accept plain and TLS connections at once, as in etcd: the first byte distinguishes them.
 */
import * as fs from "node:fs";
import * as net from "node:net";
import type { Clock } from "../../base/clock.ts";
import { Complaints } from "../../base/complaints.ts";
import type { Logger } from "../../base/log.ts";
import type { RpcSocket } from "../../rpc/contract.ts";
import { TlsAcceptor } from "../../rpc/tls/acceptor.ts";
import type { TlsContext } from "../../rpc/tls/context.ts";
import type { ConnectionLimit } from "./connection-limit.ts";

/**
 * Address of a listener: an IP address (`name`: as written, such as localhost) and port, or the path of a Unix socket.
 * The URL's scheme says whether it uses TLS.
 */
export type ListenAddress =
  | {
      readonly kind: "tcp";
      readonly host: string;
      readonly port: number;
      readonly name?: string;
      /** Other processes may listen on the same port: SO_REUSEPORT. */
      readonly reusePort?: boolean;
      readonly url: string;
    }
  | { readonly kind: "unix"; readonly path: string; readonly url: string };

export const isSecure = ({ url }: ListenAddress): boolean => url.startsWith("https:") || url.startsWith("unixs:");

/** The kind of traffic of a listener, in etcd's words. */
export type Traffic = "grpc+http" | "grpc" | "http" | "metrics" | "peer";

/** ALPN: gRPC alone is HTTP/2; HTTP and metrics listeners use HTTP/1, as do members with each other. */
const PROTOCOLS: Readonly<Record<Traffic, readonly string[]>> = {
  "grpc+http": ["h2", "http/1.1"],
  grpc: ["h2"],
  http: ["http/1.1"],
  metrics: ["http/1.1"],
  peer: ["http/1.1"],
};

/**
 * Connections that may wait on one listener until the server is ready. The newest do: nothing is read from them, so one
 * whose client has given up looks like the others, and the oldest are the likeliest.
 */
const EARLY_MAX = 1024;

/** Time limit for the first byte, where it decides the protocol. */
const FIRST_BYTE_MS_MAX = 10_000;
/** Type of a TLS handshake record; HTTP never begins with it. */
const TLS_HANDSHAKE = 0x16;

export interface ListenersOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Absent: no address may be secure. */
  readonly tls: TlsContext | undefined;
  /** Limit of all connections to these listeners. */
  readonly limit: ConnectionLimit;
}

export class Listeners {
  readonly #options: ListenersOptions;
  readonly #servers: net.Server[] = [];
  readonly #listeners: Listener[] = [];

  constructor(options: ListenersOptions) {
    this.#options = options;
  }

  async bindAll(addresses: readonly ListenAddress[], traffic: Traffic): Promise<Listener[]> {
    const bound: Listener[] = [];
    for (const group of groupByPlace(addresses)) bound.push(await this.#bind(group, traffic));
    return bound;
  }

  async #bind(addresses: readonly ListenAddress[], traffic: Traffic): Promise<Listener> {
    const address = addresses[0]!;
    const server = net.createServer({ noDelay: true, keepAlive: true });
    this.#servers.push(server);
    const { logger } = this.#options;
    try {
      await listen(server, address).catch(async (error: NodeJS.ErrnoException) => {
        if (address.kind !== "unix" || error.code !== "EADDRINUSE" || !(await removeStaleSocket(address.path)))
          throw error;
        logger.info("removed the unix socket of a process that is gone", { path: address.path });
        await listen(server, address);
      });
    } catch (error) {
      throw new Error(listenProblem(address, error as NodeJS.ErrnoException), { cause: error });
    }
    const complaints = new Complaints(logger, this.#options.clock);
    server.on("error", (error) => complaints.warn("failed to accept a connection", { error: error.message }));
    const listener = new Listener(server, addresses, traffic, this.#options);
    this.#listeners.push(listener);
    return listener;
  }

  close(): void {
    for (const server of this.#servers) server.close();
    for (const listener of this.#listeners) listener.destroyEarly();
  }
}

/** Addresses that differ only in the scheme share one socket. Each port 0 is a different port. */
function groupByPlace(addresses: readonly ListenAddress[]): ListenAddress[][] {
  const groups = new Map<string, ListenAddress[]>();
  for (const address of addresses) {
    const isAny = address.kind === "tcp" && address.port === 0;
    const place = address.kind === "unix" ? address.path : `${address.host} ${address.port}`;
    const key = isAny ? `any ${groups.size}` : place;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [address]);
    else group.push(address);
  }
  return [...groups.values()];
}

/** A bound address. */
export class Listener {
  /** For port 0: the port that the system chose. One per scheme. */
  readonly urls: readonly string[];
  readonly #traffic: Traffic;
  readonly #options: ListenersOptions;
  readonly #plain: boolean;
  readonly #acceptor: TlsAcceptor | undefined;
  /** Sockets waiting for their first byte. */
  readonly #undecided = new Set<net.Socket>();
  readonly #early = new Set<RpcSocket>();
  #accept: ((socket: RpcSocket) => void) | null = null;

  constructor(server: net.Server, addresses: readonly ListenAddress[], traffic: Traffic, options: ListenersOptions) {
    this.#traffic = traffic;
    this.#options = options;
    this.#plain = addresses.some((address) => !isSecure(address));
    this.#acceptor = addresses.some(isSecure) ? this.#createAcceptor() : undefined;
    this.urls = addresses.map((address) => boundUrl(server, address));
    server.on("connection", (socket) => this.#connection(socket));
  }

  serve(accept: (socket: RpcSocket) => void): void {
    for (const url of this.urls) this.#announce(url);
    this.#accept = accept;
    const early = [...this.#early];
    this.#early.clear();
    for (const socket of early) {
      if (socket.destroyed) continue;
      accept(socket);
      // A socket is paused after its first byte was read.
      socket.resume();
    }
  }

  destroyEarly(): void {
    this.#acceptor?.close();
    for (const socket of this.#undecided) socket.destroy();
    for (const socket of [...this.#early]) socket.destroy();
  }

  #announce(url: string): void {
    const { logger } = this.#options;
    if (this.#traffic === "metrics") return logger.info("serving metrics", { address: url });
    if (this.#traffic === "peer")
      return logger.info("serving peer traffic", { address: url.replace(/^[a-z]+:\/\//, "") });
    const secure = url.startsWith("https:") || url.startsWith("unixs:");
    const what = secure
      ? "serving client traffic securely"
      : "serving client traffic insecurely; this is strongly discouraged!";
    logger.info(what, { traffic: this.#traffic, address: url });
  }

  #createAcceptor(): TlsAcceptor {
    const { tls, clock, logger } = this.#options;
    if (tls === undefined) throw new Error("a secure address has to have a certificate");
    const isPeer = this.#traffic === "peer";
    return new TlsAcceptor({
      context: tls,
      protocols: PROTOCOLS[this.#traffic],
      // In etcd only the metrics and peer listeners compare a certificate with its address.
      checkSan: (isPeer || this.#traffic === "metrics") && !tls.options.skipClientSanVerify,
      refusal: isPeer ? "rejected connection on peer endpoint" : "rejected connection on client endpoint",
      clock,
      logger,
      onSocket: (socket) => this.#ready(socket),
    });
  }

  #connection(socket: net.Socket): void {
    if (!this.#options.limit.admit(socket)) return;
    if (this.#acceptor === undefined) this.#ready(socket);
    else if (!this.#plain) this.#acceptor.accept(socket);
    else this.#decide(socket, this.#acceptor);
  }

  #decide(socket: net.Socket, acceptor: TlsAcceptor): void {
    const timer = this.#options.clock.after(FIRST_BYTE_MS_MAX, () => socket.destroy());
    const gone = (): void => {
      timer.cancel();
      this.#undecided.delete(socket);
      socket.destroy();
    };
    this.#undecided.add(socket);
    socket.once("error", gone);
    socket.once("end", gone);
    socket.once("close", gone);
    socket.once("data", (chunk: Buffer) => {
      timer.cancel();
      this.#undecided.delete(socket);
      for (const event of ["error", "end", "close"]) socket.off(event, gone);
      socket.pause();
      socket.unshift(chunk);
      if (chunk[0] === TLS_HANDSHAKE) return acceptor.accept(socket);
      this.#ready(socket);
      if (this.#accept !== null) socket.resume();
    });
  }

  #ready(socket: RpcSocket): void {
    if (this.#accept !== null) {
      this.#accept(socket);
      return;
    }
    socket.on("error", () => socket.destroy());
    this.#early.add(socket);
    socket.once("close", () => this.#early.delete(socket));
    if (this.#early.size <= EARLY_MAX) return;
    const [oldest] = this.#early;
    this.#early.delete(oldest!);
    oldest!.destroy();
  }
}

function boundUrl(server: net.Server, address: ListenAddress): string {
  const bound = server.address();
  if (typeof bound !== "object" || bound === null) return address.url;
  const host = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return `${isSecure(address) ? "https" : "http"}://${host}:${bound.port}`;
}

function listen(server: net.Server, address: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const listening = (): void => {
      server.off("error", reject);
      resolve();
    };
    if (address.kind === "unix") server.listen(address.path, listening);
    else {
      const { host, port, reusePort = false } = address;
      // The types are for the oldest supported Node, which lacks `reusePort`; `config/` refuses it there.
      const listenOptions = { host, port, backlog: 1024, reusePort };
      server.listen(listenOptions, listening);
    }
  });
}

/**
 * Removes a socket file without a listener, as left by a killed process, and returns whether it did. etcd removes any
 * file there; this keeps a socket with a listener, and any other file.
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
