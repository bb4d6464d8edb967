/**
 * Turns accepted sockets into TLS sockets of authorised clients: handshake, then certificate checks. A failed client is
 * logged as etcd logs it, but at most once a minute for the same address and reason, and closed. A client's first
 * message must arrive within ten seconds; the handshake has another ten. The listeners' connection limit bounds how
 * many wait for that message. Of those that have been answered and do not go on, only the newest are kept: an honest
 * client goes on at once, and a thousand that end together would take tens of milliseconds of one turn.
 *
 * Source: etcd's client/pkg/transport/listener_tls.go.
 */
import type { X509Certificate } from "node:crypto";
import { lookup, reverse } from "node:dns/promises";
import type { Socket } from "node:net";
import * as tls from "node:tls";
import type { Clock } from "../../base/clock.ts";
import { Complaints } from "../../base/complaints.ts";
import type { Logger } from "../../base/log.ts";
import { isAllowed, type NameLookup, namesOf, sanProblem } from "./certificate-names.ts";
import type { TlsContext } from "./context.ts";
import { handshakeProblem } from "./handshake-errors.ts";
import { HandshakeQueue } from "./handshake-queue.ts";
import { rawSocket } from "./raw-socket.ts";
import { RevocationList } from "./revocation.ts";

const HANDSHAKE_MS_MAX = 10_000;
const HELLO_MS_MAX = 10_000;
/** Handshakes that wait for their client. A client with 500 ms to the server loses its place at 500 handshakes a second. */
const UNANSWERED_MAX = 256;
/** A TLS record begins with its type, version and length. */
const RECORD_HEADER_BYTES = 5;
const RECORD_BYTES_MAX = 16 * 1024;
const HANDSHAKE_RECORD = 0x16;
/** Certificates of a chain that are checked. */
const CHAIN_LENGTH_MAX = 16;

export interface TlsAcceptorOptions {
  readonly context: TlsContext;
  /**
   * ALPN: the protocols spoken here, preferred first. A client that names none of them is refused; one without ALPN is
   * not.
   */
  readonly protocols: readonly string[];
  /** Whether a client's certificate must name the client's address. */
  readonly checkSan: boolean;
  /** The log message for a refused connection. */
  readonly refusal: "rejected connection on client endpoint" | "rejected connection on peer endpoint";
  readonly clock: Clock;
  readonly logger: Logger;
  /** Gets the sockets of accepted clients. */
  readonly onSocket: (socket: tls.TLSSocket) => void;
  /** The system's when absent. */
  readonly lookup?: NameLookup | undefined;
}

const systemLookup: NameLookup = {
  reverse: (address) => reverse(address).catch((error) => notFound(address, error)),
  forward: (name) =>
    lookup(name, { all: true }).then(
      (found) => found.map(({ address }) => address),
      (error) => notFound(name, error),
    ),
};

/** In Go's words. */
function notFound(name: string, error: NodeJS.ErrnoException): never {
  const why = error.code === "ENOTFOUND" ? "no such host" : error.message;
  throw new Error(`lookup ${name}: ${why}`, { cause: error });
}

export class TlsAcceptor {
  readonly #options: TlsAcceptorOptions;
  readonly #revoked: RevocationList | undefined;
  /** Sockets with a pending handshake or check. */
  readonly #pending = new Set<Socket>();
  /** Those of them whose handshake has begun, oldest first. */
  readonly #begun = new Set<Socket>();
  readonly #queue: HandshakeQueue;
  readonly #complaints: Complaints;
  #contextOptions: tls.TlsOptions;
  #server: tls.Server;

  constructor(options: TlsAcceptorOptions) {
    this.#options = options;
    const { crlFile, flagPrefix } = options.context.options;
    // etcd's flags: --client-crl-file and --peer-crl-file.
    const flag = flagPrefix === "" ? "--client-crl-file" : "--peer-crl-file";
    this.#revoked = crlFile === "" ? undefined : new RevocationList(crlFile, flag);
    this.#queue = new HandshakeQueue(options.clock, (socket) => this.#begin(socket));
    this.#complaints = new Complaints(options.logger, options.clock);
    this.#contextOptions = options.context.current;
    this.#server = this.#createServer();
  }

  /** Takes a newly accepted socket and waits for its complete first message: until then it costs almost nothing. */
  accept(socket: Socket): void {
    const timer = this.#options.clock.after(HELLO_MS_MAX, () => socket.destroy());
    const gone = (): void => {
      timer.cancel();
      this.#pending.delete(socket);
      socket.destroy();
    };
    this.#pending.add(socket);
    socket.once("error", gone);
    socket.once("end", gone);
    socket.once("close", gone);
    let hello: Buffer | undefined;
    const onData = (chunk: Buffer): void => {
      hello = hello === undefined ? chunk : Buffer.concat([hello, chunk]);
      if (!isWhole(hello)) return;
      timer.cancel();
      socket.off("data", onData);
      for (const event of ["error", "end", "close"]) socket.off(event, gone);
      socket.pause();
      socket.unshift(hello);
      this.#enqueue(socket);
    };
    socket.on("data", onData);
    socket.resume();
  }

  #enqueue(socket: Socket): void {
    // Read once, so that it is still known after the connection is closed.
    void socket.remoteAddress;
    socket.on("error", destroy);
    this.#pending.add(socket);
    socket.once("close", () => this.#forget(socket));
    this.#queue.push(socket);
  }

  #forget(socket: Socket): void {
    this.#pending.delete(socket);
    this.#begun.delete(socket);
  }

  #begin(socket: Socket): void {
    const current = this.#options.context.current;
    if (current !== this.#contextOptions) {
      this.#contextOptions = current;
      this.#server = this.#createServer();
    }
    // From here on the TLS socket receives errors.
    socket.off("error", destroy);
    if (this.#begun.size >= UNANSWERED_MAX) this.#dropOldest();
    this.#begun.add(socket);
    this.#server.emit("connection", socket);
  }

  #dropOldest(): void {
    const [oldest] = this.#begun;
    this.#begun.delete(oldest!);
    oldest!.destroy();
    this.#complaints.warn("dropped the oldest TLS handshake, since very many wait for their clients to go on", {
      "handshakes-max": UNANSWERED_MAX,
    });
  }

  /** Aborts pending handshakes. */
  close(): void {
    for (const socket of this.#pending) socket.destroy();
  }

  /** A server that never listens and is given sockets. One is made for each version of the certificate. */
  #createServer(): tls.Server {
    const server = tls.createServer({
      ...this.#contextOptions,
      ALPNProtocols: [...this.#options.protocols],
      handshakeTimeout: HANDSHAKE_MS_MAX,
    });
    useContext(server, this.#contextOptions);
    server.on("secureConnection", (socket) => this.#secured(socket));
    server.on("tlsClientError", (error, socket) => {
      this.#refused(socket, handshakeProblem(error, socket), undefined);
      socket.destroy();
    });
    return server;
  }

  #secured(socket: tls.TLSSocket): void {
    const { context, checkSan } = this.#options;
    this.#begun.delete(rawSocket(socket));
    if (!context.requiresCertificate) return this.#pass(socket);
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) return this.#refuse(socket, "tls: client didn't provide a certificate", undefined);
    const { allowedCns, allowedHostnames } = context.options;
    if (!isAllowed(certificate, allowedCns, allowedHostnames)) {
      return this.#refuse(socket, "client certificate authentication failed", certificate);
    }
    if (!checkSan && this.#revoked === undefined) return this.#pass(socket);
    const failed = (): void => void socket.destroy();
    socket.on("error", failed);
    void this.#problem(socket, certificate).then((problem) => {
      socket.off("error", failed);
      if (socket.destroyed) return;
      if (problem === undefined) this.#pass(socket);
      else this.#refuse(socket, problem, certificate);
    });
  }

  async #problem(socket: tls.TLSSocket, certificate: X509Certificate): Promise<string | undefined> {
    if (this.#options.checkSan) {
      const problem = await sanProblem(certificate, socket.remoteAddress ?? "", this.#options.lookup ?? systemLookup);
      if (problem !== undefined) return problem;
    }
    return this.#revoked?.problem(chainOf(certificate));
  }

  #pass(socket: tls.TLSSocket): void {
    this.#pending.delete(rawSocket(socket));
    this.#options.onSocket(socket);
  }

  #refuse(socket: tls.TLSSocket, problem: string, certificate: X509Certificate | undefined): void {
    this.#refused(socket, problem, certificate);
    socket.on("error", () => {});
    socket.destroy();
  }

  #refused(socket: tls.TLSSocket, problem: string, certificate: X509Certificate | undefined): void {
    const { logger, refusal } = this.#options;
    // Port scans and probes that only connect are not worth a warning, and there may be thousands at once.
    const isWorthALine = problem !== "EOF";
    if (!isWorthALine && !logger.debugEnabled) return;
    const names = certificate === undefined ? undefined : namesOf(certificate);
    const raw = rawSocket(socket);
    const details = {
      "remote-addr": remoteText(raw),
      "server-name": socket.servername || "",
      ...(names === undefined ? {} : { "ip-addresses": names.ipAddresses, "dns-names": names.dnsNames }),
    };
    if (!isWorthALine) logger.debug(refusal, { ...details, error: problem });
    else this.#complaints.warn(refusal, { error: problem }, details, raw.remoteAddress);
  }
}

/** Whether the first record is complete, or is invalid and for OpenSSL to reject. */
function isWhole(hello: Buffer): boolean {
  if (hello[0] !== HANDSHAKE_RECORD) return true;
  if (hello.length < RECORD_HEADER_BYTES) return false;
  return hello.length >= RECORD_HEADER_BYTES + Math.min(hello.readUInt16BE(3), RECORD_BYTES_MAX);
}

function destroy(this: Socket): void {
  this.destroy();
}

/**
 * Node's servers do not pass `allowPartialTrustChain` on to their secure context, so they are given one that has it. If
 * a later Node stores the context elsewhere, only intermediate CAs without their root stop being trusted.
 */
function useContext(server: tls.Server, options: tls.TlsOptions): void {
  if (options.ca === undefined) return;
  const context = tls.createSecureContext({ ...options, honorCipherOrder: true, sessionIdContext: "kvorum" });
  (server as { _sharedCreds?: tls.SecureContext })._sharedCreds = context;
}

/** The certificate and its known issuers. */
function chainOf(certificate: X509Certificate): X509Certificate[] {
  const chain: X509Certificate[] = [];
  for (let one: X509Certificate | undefined = certificate; one !== undefined; one = one.issuerCertificate) {
    if (chain.length === CHAIN_LENGTH_MAX || chain.at(-1)?.fingerprint256 === one.fingerprint256) break;
    chain.push(one);
  }
  return chain;
}

/** As Go prints an address; a Unix socket's is "@". */
function remoteText(socket: Socket): string {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined) return "@";
  return remoteAddress.includes(":") ? `[${remoteAddress}]:${remotePort}` : `${remoteAddress}:${remotePort}`;
}
