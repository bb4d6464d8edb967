/**
 * The server side of the transport: raft messages, streams, snapshots and probes, and other endpoints for members under
 * their own paths. Speaks HTTP/1.1, as members do, plain or over TLS.
 *
 * Bounded: connections, heads, bodies and the duration of a request. An invalid request is answered 400 and its
 * connection closed. Source: etcd's rafthttp/http.go.
 */
import * as http from "node:http";
import type { Socket } from "node:net";
import { attempt, inBackground } from "../base/background.ts";
import { ETCD_VERSION } from "../base/versions.ts";
import { formatId } from "../membership/member.ts";
import { Message } from "../proto/raftpb.ts";
import { ByteBudget } from "./byte-budget.ts";
import { type HeaderReader, incompatibility, parseId } from "./headers.ts";
import { PieceReader } from "./piece-reader.ts";
import { PROBING_PATH } from "./prober.ts";
import { receiveSnapshot } from "./snapshot-receiver.ts";
import { MESSAGE_STREAM, MSG_APP_STREAM } from "./stream-kind.ts";
import type { PeerTransport } from "./transport.ts";

/** Serves a request, now or later, or returns false for a path it does not serve. The path has no query. */
export type PeerHandler = (request: http.IncomingMessage, response: http.ServerResponse, path: string) => boolean;

/** For the head of a request, and for all of a request that is not a message, a stream or a snapshot. */
const HEAD_MS_MAX = 10_000;
const REQUEST_MS_MAX = 30_000;
/** How often slow requests are checked for. */
const CHECK_INTERVAL_MS = 2000;
const POSTED_BYTES_MAX = 512 * 1024 * 1024;
const STREAMS = [MSG_APP_STREAM, MESSAGE_STREAM];

export interface PeerServerOptions {
  /** Limit on messages posted at a time, including those before databases, in total. */
  readonly postedBytesMax?: number;
  /** A connection has sent the head of a request. */
  readonly onRequest?: (socket: Socket) => void;
}

export class PeerServer {
  readonly #transport: PeerTransport;
  readonly #handlers: readonly PeerHandler[];
  readonly #server: http.Server;
  readonly #sockets = new Set<Socket>();
  readonly #posted: ByteBudget;
  readonly #onRequest: (socket: Socket) => void;
  /** Connections with a request in progress. */
  readonly #busy = new Set<Socket>();
  #closing = false;

  /** `handlers` are asked in order about paths outside `/raft`. */
  constructor(transport: PeerTransport, handlers: readonly PeerHandler[], options: PeerServerOptions = {}) {
    this.#transport = transport;
    this.#posted = new ByteBudget(options.postedBytesMax ?? POSTED_BYTES_MAX);
    this.#onRequest = options.onRequest ?? (() => {});
    this.#handlers = handlers;
    // A member closes its idle connections after four seconds; this end allows one more.
    this.#server = http.createServer({
      keepAliveTimeout: 5000,
      headersTimeout: HEAD_MS_MAX,
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
      // A snapshot may take any length of time.
      requestTimeout: 0,
    });
    this.#server.on("request", (request, response) => this.#guarded(request, response));
    // Treat "Expect: 100-continue" like any other request.
    this.#server.on("checkContinue", (request, response) => {
      response.writeContinue();
      this.#guarded(request, response);
    });
    this.#server.on("clientError", (_error, socket) => {
      if (!socket.writable) return;
      socket.end(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request",
      );
    });
    // This server never listens itself, but only a listening server tracks its connections and ends slow ones.
    this.#server.emit("listening");
  }

  /** Takes over an accepted connection. */
  handleConnection(socket: Socket): void {
    if (this.#closing) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    this.#server.emit("connection", socket);
  }

  /** Closes and returns the connections without a request in progress. */
  closeIdle(): Socket[] {
    const idle = [...this.#sockets].filter((socket) => !this.#busy.has(socket));
    for (const socket of idle) socket.destroy();
    return idle;
  }

  /** Ends idle connections at once, the others when they are answered or after `graceMs`. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    this.#server.close();
    this.#server.closeIdleConnections();
    const { clock } = this.#transport;
    if (this.#sockets.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = clock.after(graceMs, resolve);
        for (const socket of this.#sockets) {
          socket.once("close", () => {
            if (this.#sockets.size > 0) return;
            timer.cancel();
            resolve();
          });
        }
      });
    }
    for (const socket of this.#sockets) socket.destroy();
  }

  /** An error in a request ends only its connection. */
  #guarded(request: http.IncomingMessage, response: http.ServerResponse): void {
    const { logger } = this.#transport.context;
    if (!attempt(() => this.#serve(request, response), "serve a peer", logger)) request.socket.destroy();
  }

  #serve(request: http.IncomingMessage, response: http.ServerResponse): void {
    request.on("error", () => {});
    const { socket } = request;
    this.#onRequest(socket);
    this.#busy.add(socket);
    // A write after the end fails only this request.
    response.on("error", () => socket.destroy());
    response.on("close", () => this.#busy.delete(socket));
    if (this.#closing) response.shouldKeepAlive = false;
    const target = request.url ?? "/";
    const mark = target.indexOf("?");
    const path = mark < 0 ? target : target.slice(0, mark);
    if (path === "/raft") this.#finish(this.#post(request, response), request);
    else if (path === "/raft/snapshot") this.#finish(this.#snapshot(request, response), request);
    else if (path === PROBING_PATH) this.#probe(response);
    else if (path.startsWith("/raft/stream/")) this.#stream(request, response, path);
    else {
      const timer = this.#transport.clock.after(REQUEST_MS_MAX, () => {
        if (!request.complete) request.destroy();
      });
      response.on("close", () => timer.cancel());
      this.#ask(request, response, path);
    }
  }

  #finish(done: Promise<void>, request: http.IncomingMessage): void {
    const closed = done.catch((error: unknown) => {
      request.socket.destroy();
      throw error;
    });
    inBackground(closed, "serve a peer", this.#transport.context.logger);
  }

  #ask(request: http.IncomingMessage, response: http.ServerResponse, path: string): void {
    if (!this.#handlers.some((handler) => handler(request, response, path))) {
      sendError(response, 404, "404 page not found");
    }
  }

  async #post(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    if (!this.#admit(request, response, "POST")) return;
    const { context, metrics } = this.#transport;
    const failed = (text: string, status: number, why: string, error: unknown): void => {
      const fields = { "local-member-id": formatId(context.local.id), error: (error as Error).message };
      context.complaints.warn(why, fields);
      metrics.receiveFailures.add(request.socket.remoteAddress ?? "@", 1);
      sendError(response, status, text, true);
    };
    let body: Buffer;
    try {
      body = await this.#readBody(request);
    } catch (error) {
      return failed("error reading raft message", 400, "failed to read Raft message", error);
    }
    let message: Message;
    try {
      message = Message.decode(body);
    } catch (error) {
      return failed("error unmarshalling raft message", 400, "failed to unmarshal Raft message", error);
    }
    metrics.receivedBytes.add(formatId(message.from), body.length);
    const problem = context.deliver(message);
    if (problem === undefined) response.writeHead(204).end();
    else if (problem === "error processing raft message") {
      failed(problem, 500, "failed to process Raft message", new Error("a message that raft cannot take"));
    } else sendForbidden(response, problem);
  }

  async #readBody(request: http.IncomingMessage): Promise<Buffer> {
    const { clock, readTimeoutMs } = this.#transport.context;
    const pieces = new PieceReader(request, clock, readTimeoutMs);
    const parts: Buffer[] = [];
    let bytes = 0;
    try {
      for (let piece = await pieces.next(); piece !== undefined; piece = await pieces.next()) {
        bytes += piece.length;
        this.#posted.take(piece.length);
        parts.push(piece);
      }
    } finally {
      this.#posted.giveBack(bytes);
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  async #snapshot(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    if (!this.#admit(request, response, "POST")) {
      this.#transport.metrics.snapshotReceiveFailures.add("UNKNOWN_SNAPSHOT_SENDER", 1);
      return;
    }
    const { status, text } = await receiveSnapshot(this.#transport, request, this.#posted);
    if (status === 204) response.writeHead(204).end();
    else if (status === 403) sendForbidden(response, text, true);
    else sendError(response, status, text, true);
  }

  #probe(response: http.ServerResponse): void {
    const now = new Date(this.#transport.context.clock.wallMs()).toISOString();
    send(response, 200, "text/plain; charset=utf-8", `${JSON.stringify({ OK: true, Now: now })}\n`);
  }

  /** The checks of method and headers common to all raft requests; answers the failures. */
  #admit(request: http.IncomingMessage, response: http.ServerResponse, method: "GET" | "POST"): boolean {
    if (request.method !== method) {
      response.setHeader("Allow", method);
      sendError(response, 405, "Method Not Allowed", true);
      return false;
    }
    const { local, complaints } = this.#transport.context;
    response.setHeader("X-Etcd-Cluster-ID", formatId(local.clusterId));
    if (method === "GET") response.setHeader("X-Server-Version", ETCD_VERSION);
    const header = headersOf(request);
    const refusal = incompatibility(header, local);
    if (refusal !== undefined) {
      complaints.warn(refusal.message, refusal.fields);
      sendError(response, 412, refusal.problem, true);
      return false;
    }
    const from = parseId(header("x-server-from") ?? "");
    if (method === "POST" && from !== undefined) this.#addRemote(from, header);
    return true;
  }

  /** An unknown sender can be answered at the address it gives. */
  #addRemote(id: bigint, header: HeaderReader): void {
    const urls = header("x-peerurls") ?? "";
    if (urls !== "") this.#transport.addRemote({ id, urls: urls.split(",") });
  }

  #stream(request: http.IncomingMessage, response: http.ServerResponse, path: string): void {
    if (!this.#admit(request, response, "GET")) return;
    const { context, receiver } = this.#transport;
    const { logger, complaints, local } = context;
    const fields = {
      "local-member-id": formatId(local.id),
      "remote-peer-id-stream-handler": formatId(local.id),
    };
    const kind = STREAMS.find((one) => path.startsWith(one.path) && !path.slice(one.path.length).includes("/"));
    if (kind === undefined) {
      logger.debug("ignored unexpected streaming request path", { ...fields, path });
      return sendError(response, 404, "invalid path");
    }
    const name = path.slice(kind.path.length);
    const from = parseId(name);
    if (from === undefined) {
      const error = `strconv.ParseUint: parsing ${JSON.stringify(name)}: invalid syntax`;
      complaints.warn("failed to parse path into ID", { ...fields, path: name, error });
      return sendError(response, 404, "invalid from");
    }
    const about = { ...fields, "remote-peer-id-from": formatId(from) };
    if (receiver.isRemoved(from)) {
      complaints.warn("rejected stream from remote peer because it was removed", about);
      return sendError(response, 410, "removed member");
    }
    const header = headersOf(request);
    const peer = this.#transport.peer(from);
    if (peer === undefined) {
      this.#addRemote(from, header);
      complaints.warn("failed to find remote peer in cluster", { ...about, "cluster-id": formatId(local.clusterId) });
      return sendError(response, 404, "error sender not found");
    }
    const to = header("x-raft-to") ?? "";
    if (to !== formatId(local.id)) {
      complaints.warn("ignored streaming request; ID mismatch", {
        ...about,
        "remote-peer-id-header": to,
        "cluster-id": formatId(local.clusterId),
      });
      return sendError(response, 412, "to field mismatch");
    }
    // The head is sent the usual way, the body directly to the socket: one chunk per batch of messages.
    response.writeHead(200, { "Transfer-Encoding": "chunked" });
    response.flushHeaders();
    const { socket } = request;
    // Further input on this connection does not belong to the stream.
    request.resume();
    peer.attach(kind, socket);
  }
}

function headersOf(request: http.IncomingMessage): HeaderReader {
  return (name) => {
    const value = request.headers[name];
    return Array.isArray(value) ? value[0] : value;
  };
}

/** As Go's `http.Error`. With `close` the rest of the request is not read. */
function sendError(response: http.ServerResponse, status: number, text: string, close = false): void {
  response.setHeader("X-Content-Type-Options", "nosniff");
  send(response, status, "text/plain; charset=utf-8", `${text}\n`, close);
}

function sendForbidden(response: http.ServerResponse, text: string, close = false): void {
  send(response, 403, "application/json", JSON.stringify({ message: text }), close);
}

function send(response: http.ServerResponse, status: number, type: string, text: string, close = false): void {
  if (response.destroyed) return;
  if (close && !response.req.readableEnded) response.shouldKeepAlive = false;
  response.writeHead(status, { "Content-Type": type, "Content-Length": Buffer.byteLength(text) }).end(text);
}
