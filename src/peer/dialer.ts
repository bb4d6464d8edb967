import * as net from "node:net";
import * as tls from "node:tls";
import type { Clock } from "../base/clock.ts";
import { isTls, isUnixSocket, type Url, unixSocketPath } from "../config/values/url.ts";
import type { TlsClient } from "../rpc/tls/client.ts";
import { outgoingHandshakeProblem } from "../rpc/tls/handshake-errors.ts";

export interface PeerDialerOptions {
  readonly clock: Clock;
  /** For URLs with TLS. */
  readonly tls: TlsClient;
  /** For connecting; the TLS handshake has ten seconds more. */
  readonly dialTimeoutMs: number;
  /** The local address to connect from; undefined for the system's choice. */
  readonly localAddress?: string | undefined;
}

const HANDSHAKE_MS_MAX = 10_000;
const KEEP_ALIVE_DELAY_MS = 30_000;

/** Connects to peer URLs: plain or with TLS, over TCP or a Unix socket. */
export class PeerDialer {
  readonly #options: PeerDialerOptions;

  constructor(options: PeerDialerOptions) {
    this.#options = options;
  }

  /**
   * A connecting socket; data written earlier is sent once it is connected. It emits an error with Go's text when the
   * peer is unreachable.
   */
  connect(url: Url): net.Socket {
    const { clock, dialTimeoutMs } = this.#options;
    const raw = this.#open(url);
    const fail = (why: string): void => void raw.destroy(new Error(why));
    const timer = clock.after(dialTimeoutMs, () => fail(`dial ${place(url)}: i/o timeout`));
    raw.once("connect", () => timer.cancel());
    raw.once("close", () => timer.cancel());
    if (!isTls(url)) return translateErrors(raw, url);
    const socket = tls.connect({ ...this.#options.tls.connectOptions(url.hostname), socket: raw });
    raw.once("connect", () => {
      const handshake = clock.after(HANDSHAKE_MS_MAX, () => fail("net/http: TLS handshake timeout"));
      socket.once("secureConnect", () => handshake.cancel());
      socket.once("close", () => handshake.cancel());
    });
    // Before the handshake, the TLS socket does not see the end of its underlying socket.
    raw.once("error", (error) => socket.destroy(error));
    raw.once("close", () => socket.destroy());
    return translateErrors(socket, url);
  }

  #open(url: Url): net.Socket {
    if (isUnixSocket(url)) return net.connect({ path: unixSocketPath(url) });
    const { localAddress } = this.#options;
    return net.connect({
      host: url.hostname,
      port: Number(url.port),
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS,
      ...(localAddress === undefined ? {} : { localAddress }),
    });
  }
}

/** Translates Node's error texts to Go's; listeners added later receive those. */
function translateErrors<S extends net.Socket>(socket: S, url: Url): S {
  socket.prependListener("error", (error: NodeJS.ErrnoException) => {
    error.message = problemText(error, url);
  });
  return socket;
}

function problemText(error: NodeJS.ErrnoException, url: Url): string {
  const reason = REASONS[error.code ?? ""];
  if (reason === undefined) return outgoingHandshakeProblem(error) ?? error.message;
  // With several addresses the error covers all of them and is less specific.
  if (error.syscall === "connect" || error instanceof AggregateError) return `dial ${place(url)}: connect: ${reason}`;
  if (error.syscall === "getaddrinfo") return `dial ${place(url)}: lookup ${url.hostname}: ${reason}`;
  return `${error.syscall ?? "read"} ${place(url)}: ${reason}`;
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset by peer",
  EPIPE: "broken pipe",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network is unreachable",
  ETIMEDOUT: "connection timed out",
  ENOTFOUND: "no such host",
  ENOENT: "no such file or directory",
};

const place = (url: Url): string => (isUnixSocket(url) ? `unix ${unixSocketPath(url)}` : `tcp ${url.host}`);
