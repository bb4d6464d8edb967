import * as http from "node:http";
import { TLSSocket } from "node:tls";
import { inBackground } from "../base/background.ts";
import type { Clock } from "../base/clock.ts";
import { beginWork } from "../base/doing.ts";
import type { Logger } from "../base/log.ts";
import type { PlainRequest, RpcSocket } from "../rpc/server.ts";

/** A request of the plain side (health, metrics, version, gateway), whichever protocol brought it. */
export interface HttpRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
  readonly socket: RpcSocket;
  /** The client has gone: answers go nowhere. */
  cancelled: boolean;
  /** Called once when the client goes before the end of its answer. */
  onCancel: (() => void) | null;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** All of it, or what sends it in pieces. */
  readonly body: string | Uint8Array | ((sink: HttpSink) => void);
}

/** Where the pieces of an answer go. Once the client has gone they go nowhere. */
export interface HttpSink {
  /** False: wait for `onDrain` before the next. */
  write(text: string): boolean;
  end(): void;
  onDrain: (() => void) | null;
}

/** Answers a request, or undefined when it is not one of its paths. */
export type HttpHandler = (request: HttpRequest) => Promise<HttpResponse> | undefined;

export interface HttpSideOptions {
  readonly clock: Clock;
  readonly handlers: readonly HttpHandler[];
  readonly logger: Logger;
  /** `--cors`: origins that browsers may call from; "*" is all. */
  readonly cors: readonly string[];
  /** `--host-whitelist`: host names that an insecure listener answers to; "*" is all. */
  readonly hostWhitelist: readonly string[];
  readonly maxBodyBytes: number;
  /** A connection of HTTP/1 has sent the head of a request. */
  readonly onRequest?: (socket: RpcSocket) => void;
}

/** For the head of a request, all of it, and the rest between two on one connection. */
const HEAD_MS_MAX = 10_000;
const REQUEST_MS_MAX = 60_000;
const KEEP_ALIVE_MS = 5 * 60_000;
/** How often requests that take too long are looked for. */
const CHECK_INTERVAL_MS = 2000;

/** Of a request, where it is named in a log. */
const NAME_LENGTH_MAX = 100;

const NOT_FOUND: HttpResponse = {
  status: 404,
  headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  body: "404 page not found\n",
};

/** HTTP/1 on node:http and the HTTP/2 requests that are not gRPC, both answered by the same handlers. */
export class HttpSide {
  readonly #options: HttpSideOptions;
  readonly #server: http.Server;
  /** Requests of HTTP/1 that are not answered yet. */
  #open = 0;
  /** Connections of HTTP/1, and those of them of which a request is under way. */
  readonly #sockets = new Set<RpcSocket>();
  readonly #busy = new Set<RpcSocket>();
  #closing = false;
  #onIdle: (() => void) | null = null;

  constructor(options: HttpSideOptions) {
    this.#options = options;
    this.#server = http.createServer({
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: HEAD_MS_MAX,
      requestTimeout: REQUEST_MS_MAX,
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
    });
    this.#server.on("request", (request, response) => {
      const done = this.#serveHttp1(request, response).catch((error: unknown) => {
        request.socket.destroy();
        throw error;
      });
      inBackground(done, "serve an HTTP request", options.logger);
    });
    this.#server.on("clientError", (_error, socket) => {
      if (socket.writable)
        socket.end(
          "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request",
        );
    });
    // This server never listens itself, but only one that does keeps count of its connections and ends slow ones.
    this.#server.emit("listening");
  }

  /** Closes the connections that wait for their next request, and names them. */
  closeIdle(): RpcSocket[] {
    const idle = [...this.#sockets].filter((socket) => !this.#busy.has(socket));
    for (const socket of idle) socket.destroy();
    return idle;
  }

  /** Takes over a connection that speaks HTTP/1; `head` is what was read of it. */
  handleConnection(socket: RpcSocket, head: Buffer): void {
    if (head.length > 0) socket.unshift(head);
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    this.#server.emit("connection", socket);
    socket.resume();
  }

  handleHttp2(plain: PlainRequest): void {
    const request = httpRequest(plain.method, plain.path, plain.headers, plain.body, plain.socket);
    plain.onCancel = () => cancel(request);
    const done = this.#answer(request, plain.authority).then(({ status, headers, body }) => {
      if (plain.cancelled) return;
      if (typeof body !== "function") {
        plain.respond(status, headers, body);
        return;
      }
      plain.respondHead(status, headers);
      const sink: HttpSink = {
        write: (text) => plain.write(Buffer.from(text)),
        end: () => plain.end(),
        onDrain: null,
      };
      plain.onDrain = () => sink.onDrain?.();
      body(sink);
    });
    inBackground(done, "serve an HTTP request", this.#options.logger);
  }

  /** Ends idle connections at once, and the others when they are answered or `graceMs` have passed. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    this.#server.close();
    if (this.#open > 0) {
      const timer = this.#options.clock.after(graceMs, () => this.#server.closeAllConnections());
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
      timer.cancel();
    }
    this.#server.closeAllConnections();
  }

  async #serveHttp1(incoming: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { socket } = incoming;
    this.#options.onRequest?.(socket);
    this.#busy.add(socket);
    response.on("close", () => this.#busy.delete(socket));
    this.#open++;
    response.on("close", () => {
      if (--this.#open === 0) this.#onIdle?.();
    });
    const body = await readBody(incoming, this.#options.maxBodyBytes);
    if (body === "aborted") return;
    if (this.#closing) response.shouldKeepAlive = false;
    if (body === "too large") {
      response.writeHead(413, { connection: "close" }).end("request body too large\n");
      return;
    }
    const request = httpRequest(incoming.method ?? "GET", incoming.url ?? "/", incoming.headers, body, incoming.socket);
    response.on("close", () => {
      if (!response.writableFinished) cancel(request);
    });
    const answer = await this.#answer(request, incoming.headers.host ?? "");
    if (request.cancelled) return;
    if (typeof answer.body === "function") {
      response.writeHead(answer.status, answer.headers);
      const sink: HttpSink = {
        write: (text) => response.write(text),
        end: () => response.end(),
        onDrain: null,
      };
      response.on("drain", () => sink.onDrain?.());
      answer.body(sink);
      return;
    }
    const bytes = typeof answer.body === "string" ? Buffer.from(answer.body) : answer.body;
    response.writeHead(answer.status, { ...answer.headers, "content-length": bytes.length });
    response.end(request.method === "HEAD" ? undefined : bytes);
  }

  async #answer(request: HttpRequest, host: string): Promise<HttpResponse> {
    // A page that is not ours cannot make a browser speak TLS to us: the certificate would not be its host's.
    if (!(request.socket instanceof TLSSocket) && !this.#hostAllowed(host)) {
      this.#options.logger.warn("rejecting HTTP request from untrusted host", { host });
      return { status: 421, headers: { "content-type": "text/plain" }, body: `${host} is not in --host-whitelist\n` };
    }
    beginWork(`${request.method} ${request.path}`.slice(0, NAME_LENGTH_MAX), this.#options.clock.nowMs());
    const cors = this.#corsHeaders(request);
    if (request.method === "OPTIONS") return { status: 200, headers: cors ?? {}, body: "" };
    try {
      for (const handler of this.#options.handlers) {
        const answer = handler(request);
        if (answer === undefined) continue;
        const response = await answer;
        return cors === undefined ? response : { ...response, headers: { ...response.headers, ...cors } };
      }
      return cors === undefined ? NOT_FOUND : { ...NOT_FOUND, headers: { ...NOT_FOUND.headers, ...cors } };
    } catch (error) {
      this.#options.logger.warn("failed to serve an HTTP request", { path: request.path, error: `${error}` });
      return { status: 500, headers: { "content-type": "text/plain; charset=utf-8" }, body: "internal error\n" };
    }
  }

  #hostAllowed(host: string): boolean {
    const { hostWhitelist } = this.#options;
    if (hostWhitelist.length === 0 || hostWhitelist.includes("*")) return true;
    return hostWhitelist.includes(host.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1"));
  }

  #corsHeaders(request: HttpRequest): Record<string, string> | undefined {
    const { cors } = this.#options;
    if (cors.length === 0) return undefined;
    const { origin } = request.headers;
    const allowed = cors.includes("*") ? "*" : typeof origin === "string" && cors.includes(origin) ? origin : undefined;
    if (allowed === undefined) return undefined;
    return {
      "access-control-allow-methods": "POST, GET, OPTIONS, PUT, DELETE",
      "access-control-allow-origin": allowed,
      "access-control-allow-headers": "accept, content-type, authorization",
    };
  }
}

function splitTarget(target: string): [path: string, query: URLSearchParams] {
  const mark = target.indexOf("?");
  if (mark < 0) return [unescapePath(target), new URLSearchParams()];
  return [unescapePath(target.slice(0, mark)), new URLSearchParams(target.slice(mark + 1))];
}

function unescapePath(path: string): string {
  if (!path.includes("%")) return path;
  try {
    return decodeURIComponent(path);
  } catch {
    // Not an escaped path, so none of ours.
    return path;
  }
}

function httpRequest(
  method: string,
  target: string,
  headers: HttpRequest["headers"],
  body: Buffer,
  socket: RpcSocket,
): HttpRequest {
  const [path, query] = splitTarget(target);
  return { method, path, query, headers, body, socket, cancelled: false, onCancel: null };
}

function cancel(request: HttpRequest): void {
  request.cancelled = true;
  request.onCancel?.();
}

/** A request whose client went away in the middle must not be served with the part that came. */
function readBody(request: http.IncomingMessage, bytesMax: number): Promise<Buffer | "too large" | "aborted"> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    request.on("data", (part: Buffer) => {
      bytes += part.length;
      if (bytes <= bytesMax) parts.push(part);
      else resolve("too large");
    });
    request.on("end", () => resolve(Buffer.concat(parts)));
    request.on("error", () => resolve("aborted"));
    request.on("close", () => resolve("aborted"));
  });
}
