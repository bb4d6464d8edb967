/**
 * The HTTP/1 side of the client port, on node:http. Requests of one connection are served one at a time, as in Go:
 * pipelined requests wait, and cost no more than one request at a time.
 */
import * as http from "node:http";
import { inBackground } from "../../base/background.ts";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { RpcSocket } from "../../rpc/contract.ts";
import { RequestBody, type SlowBodies } from "./body.ts";
import type { HttpRequest, HttpResponse, HttpSink } from "./contract.ts";
import { parseTarget, type Target } from "./paths.ts";

/** Maximum size of request headers, as over HTTP/2. */
const HEADER_BYTES_MAX = 128 * 1024;
/** Up to this much of an unwanted body is read, to keep the connection usable; as in Go. */
const DRAINED_BYTES_MAX = 256 * 1024;
/** For the head of a request, and for the idle time between two on one connection. */
const HEAD_MS_MAX = 10_000;
const KEEP_ALIVE_MS = 5 * 60_000;
/** How often slow requests are checked for. */
const CHECK_INTERVAL_MS = 2000;

export interface Http1Options {
  readonly clock: Clock;
  readonly slowBodies: SlowBodies;
  readonly answer: (request: HttpRequest, host: string) => Promise<HttpResponse>;
  readonly logger: Logger;
  /** A connection has sent the head of a request. */
  readonly onRequest: ((socket: RpcSocket) => void) | undefined;
}

type Exchange = readonly [http.IncomingMessage, http.ServerResponse];

export class Http1Side {
  readonly #options: Http1Options;
  readonly #server: http.Server;
  /** Requests waiting for the previous one on their connection. A connection without an entry serves none. */
  readonly #queues = new Map<RpcSocket, Exchange[]>();
  readonly #sockets = new Set<RpcSocket>();
  /** Unanswered requests. */
  #open = 0;
  #closing = false;
  #onIdle: (() => void) | null = null;

  constructor(options: Http1Options) {
    this.#options = options;
    // `SlowBodies` times bodies: some may take any time.
    this.#server = http.createServer({
      keepAliveTimeout: KEEP_ALIVE_MS,
      requestTimeout: 0,
      headersTimeout: HEAD_MS_MAX,
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
      maxHeaderSize: HEADER_BYTES_MAX,
      requireHostHeader: false,
    });
    this.#server.on("request", (incoming, response) => this.#arrived(incoming, response));
    this.#server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
      if (socket.writable) socket.end(badRequest(error.code));
      (socket as RpcSocket).destroySoon();
    });
    // This server never listens itself, but only a listening server tracks its connections and ends slow ones.
    this.#server.emit("listening");
  }

  /** Closes idle connections and returns them. */
  closeIdle(): RpcSocket[] {
    const idle = [...this.#sockets].filter((socket) => !this.#queues.has(socket));
    for (const socket of idle) socket.destroy();
    return idle;
  }

  /** Takes over an HTTP/1 connection; `head` holds the bytes read so far. */
  handleConnection(socket: RpcSocket, head: Buffer): void {
    if (head.length > 0) socket.unshift(head);
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      // Requests that had not begun end here; the running one ends itself.
      this.#ended(this.#queues.get(socket)?.length ?? 0);
      this.#queues.delete(socket);
    });
    this.#server.emit("connection", socket);
    socket.resume();
  }

  /** Ends idle connections at once, the others when they are answered or after `graceMs`. */
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

  #arrived(incoming: http.IncomingMessage, response: http.ServerResponse): void {
    this.#open++;
    const { socket } = incoming;
    this.#options.onRequest?.(socket);
    response.on("close", () => {
      this.#next(socket);
      this.#ended(1);
    });
    response.on("error", () => {});
    incoming.on("error", () => {});
    const queue = this.#queues.get(socket);
    if (queue === undefined) {
      this.#queues.set(socket, []);
      this.#begin(incoming, response);
    } else {
      queue.push([incoming, response]);
      socket.pause();
    }
  }

  #ended(requests: number): void {
    this.#open -= requests;
    if (this.#open === 0) this.#onIdle?.();
  }

  /** The previous request is answered. */
  #next(socket: RpcSocket): void {
    const queue = this.#queues.get(socket);
    if (queue === undefined) return;
    const next = queue.shift();
    if (next === undefined) this.#queues.delete(socket);
    else this.#begin(...next);
    if (queue.length === 0 && !socket.destroyed) socket.resume();
  }

  #begin(incoming: http.IncomingMessage, response: http.ServerResponse): void {
    const done = this.#serve(incoming, response).catch((error: unknown) => {
      response.destroy();
      throw error;
    });
    inBackground(done, "serve an HTTP request", this.#options.logger);
  }

  async #serve(incoming: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const problem = hostProblem(incoming);
    if (problem !== undefined) {
      return refuse(response, 400, `400 ${problem}`, problem);
    }
    const { slowBodies } = this.#options;
    const body: RequestBody = RequestBody.ofHttp1(incoming, slowBodies, () => this.#tooSlow(request, response));
    const parsed = parseTarget(incoming.url ?? "/");
    const request = httpRequest(incoming.method ?? "GET", parsed, incoming.headers, body, incoming.socket);
    response.on("close", () => {
      body.stop();
      if (!response.writableFinished) cancel(request);
    });
    if (this.#closing) response.shouldKeepAlive = false;
    const answer = await this.#options.answer(request, parsed?.host ?? incoming.headers.host ?? "");
    if (request.cancelled) return;
    if (typeof answer.body === "function") {
      if (!body.isComplete) response.shouldKeepAlive = false;
      response.writeHead(answer.status, answer.headers);
      answer.body(sinkOf(response));
      return;
    }
    if (!body.isComplete && !(await body.drain(DRAINED_BYTES_MAX))) response.shouldKeepAlive = false;
    respond(request, response, answer);
  }

  #tooSlow(request: HttpRequest, response: http.ServerResponse): void {
    cancel(request);
    if (response.headersSent) {
      response.destroy();
      return;
    }
    refuse(response, 408, "the body of the request comes too slowly\n");
  }
}

/** Ends a request and its connection, without calling a handler. */
function refuse(response: http.ServerResponse, status: number, text: string, reason?: string): void {
  const headers = {
    "content-type": "text/plain; charset=utf-8",
    "content-length": text.length,
    connection: "close",
  };
  if (reason === undefined) response.writeHead(status, headers);
  else response.writeHead(status, reason, headers);
  response.end(text);
}

function respond(request: HttpRequest, response: http.ServerResponse, answer: HttpResponse): void {
  if (request.cancelled) return;
  const body = answer.body as string | Uint8Array;
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  response.writeHead(answer.status, { ...answer.headers, "content-length": bytes.length });
  response.end(request.method === "HEAD" ? undefined : bytes);
}

function sinkOf(response: http.ServerResponse): HttpSink {
  const sink: HttpSink = {
    write: (text) => response.write(text),
    end: () => response.end(),
    abort: () => response.destroy(),
    onDrain: null,
  };
  response.on("drain", () => sink.onDrain?.());
  return sink;
}

export function httpRequest(
  method: string,
  target: Target | undefined,
  headers: HttpRequest["headers"],
  body: RequestBody,
  socket: RpcSocket,
): HttpRequest {
  const query = new URLSearchParams(target?.query);
  return { method, target, path: target?.path ?? "", query, headers, body, socket, cancelled: false, onCancel: null };
}

export function cancel(request: HttpRequest): void {
  if (request.cancelled) return;
  request.cancelled = true;
  request.onCancel?.();
}

/** What is wrong with the Host header, in Go's words. */
function hostProblem({ httpVersion, headersDistinct }: http.IncomingMessage): string | undefined {
  const { host = [] } = headersDistinct;
  if (host.length > 1) return "Bad Request";
  if (host.length === 0) return httpVersion === "1.1" ? "Bad Request: missing required Host header" : undefined;
  return HOST.test(host[0]!) ? undefined : "Bad Request: malformed Host header";
}

const HOST = /^[A-Za-z0-9!$%&'()*+,\-.:;=[\]_~]*$/;

const STATUS_OF_ERROR: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: "431 Request Header Fields Too Large",
  ERR_HTTP_REQUEST_TIMEOUT: "408 Request Timeout",
};

function badRequest(code: string | undefined): string {
  const status = STATUS_OF_ERROR[code ?? ""] ?? "400 Bad Request";
  return `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n${status}`;
}
