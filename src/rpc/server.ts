/**
 * The RPC server: what the services register with, and what a listener hands its sockets to. Speaks gRPC over HTTP/2 on
 * the sockets themselves; connections that turn out to be HTTP/1, and HTTP/2 requests that are not gRPC, are passed on.
 *
 * ```ts
 * const rpc = new RpcServer({ ...RPC_DEFAULTS, clock: systemClock, logger });
 * rpc.unary("/etcdserverpb.KV/Range", (call) => call.respond(range(call.message)));
 * net.createServer((socket) => rpc.handleConnection(socket)).listen(2379, "127.0.0.1");
 * ```
 */
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { Complaints } from "../base/complaints.ts";
import { isFatal } from "../base/fatal.ts";
import { CODE_NAMES, Code } from "../base/grpc-codes.ts";
import type { Logger } from "../base/log.ts";
import { Compression } from "./compression.ts";
import { Connection } from "./connection.ts";
import { DeadlineWheel } from "./deadlines.ts";
import { detectProtocol } from "./detect.ts";
import type { Abuse } from "./guard.ts";
import type { Refusal } from "./head.ts";
import { HeldBytes } from "./held-bytes.ts";
import { ChunkPool } from "./output.ts";
import { HEADER_LIST_BYTES_MAX, STREAMS_MAX } from "./protocol.ts";
import { ReadTurns } from "./read-turns.ts";

/** A connection that rests for so long may be closed to make room, and so many at a time. */
const IDLE_MS = 5000;
const CLOSED_IDLE_MAX = 64;

export type RpcSocket = Socket | TLSSocket;

export interface KeepaliveOptions {
  /** Least time between pings of a client that has calls; its third violation ends the connection ("too_many_pings"). */
  readonly minTimeMs: number;
  /** Whether clients without calls may ping at that rate too; else once in two hours. */
  readonly permitWithoutStream: boolean;
  /** Silence after which the server pings. */
  readonly intervalMs: number;
  /** Silence after that ping which ends the connection. */
  readonly timeoutMs: number;
}

export interface RpcServerOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Open streams of one connection; never more than `STREAMS_MAX`. */
  readonly maxConcurrentStreams: number;
  /** A larger request fails with RESOURCE_EXHAUSTED. */
  readonly maxRecvMessageBytes: number;
  /** A larger reply fails with RESOURCE_EXHAUSTED. */
  readonly maxSendMessageBytes: number;
  /** Unfinished request messages that one connection may make the server hold; the call that exceeds it fails. */
  readonly receiveBufferBytesMax: number;
  /** The same for all connections together: those that hold most for longest give up first. */
  readonly heldRequestBytesMax: number;
  /**
   * Replies that all connections together may leave unread: those that hold most for longest give up first. One that leaves
   * a quarter of it unread, on many streams, gets no new calls.
   */
  readonly heldReplyBytesMax: number;
  readonly keepalive: KeepaliveOptions;
  /**
   * Takes a connection whose first bytes are not HTTP/2's. The socket is paused; `head` is what was read, to be unshifted
   * before it is resumed. Without this such a connection is closed.
   */
  readonly http1: ((socket: RpcSocket, head: Buffer) => void) | undefined;
  /** Takes an HTTP/2 request that is not gRPC. Without it such a request gets 415. */
  readonly http2Request: ((request: PlainRequest) => void) | undefined;
  /** A client of HTTP/2 has sent its settings. */
  readonly onHttp2?: ((socket: RpcSocket) => void) | undefined;
  /** For traces and histograms; the counters of `RpcServer.methods` cost less. */
  readonly onCallStart?: ((call: CallInfo) => void) | undefined;
  readonly onCallEnd?: ((call: CallInfo, code: number) => void) | undefined;
}

/** etcd's defaults, and our own limits. */
export const RPC_DEFAULTS = {
  maxConcurrentStreams: 0xffffffff,
  maxRecvMessageBytes: 1.5 * 1024 * 1024 + 512 * 1024,
  maxSendMessageBytes: 0x7fffffff,
  receiveBufferBytesMax: 128 * 1024 * 1024,
  heldRequestBytesMax: 256 * 1024 * 1024,
  heldReplyBytesMax: 256 * 1024 * 1024,
  keepalive: { minTimeMs: 5000, permitWithoutStream: false, intervalMs: 2 * 3600 * 1000, timeoutMs: 20_000 },
  http1: undefined,
  http2Request: undefined,
} as const;

/** What every call knows of its request. */
export interface CallInfo {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly remoteAddress: string;
  readonly socket: RpcSocket;
  /** On the clock's `nowMs`; Infinity when the client set none. */
  readonly deadlineMs: number;
  /** The client has gone or the deadline has passed: answers go nowhere. */
  readonly cancelled: boolean;
  /** The first value of a header, in lower case, or undefined. Values of `-bin` headers come as their base64. */
  header(name: string): string | undefined;
}

export interface UnaryCall extends CallInfo {
  /** The request: a view of the bytes read, never changed afterwards, so it may be kept. */
  readonly message: Uint8Array;
  /** Called once when the call is cancelled before it was answered. */
  onCancel: (() => void) | null;
  /** Answers. The bytes are copied before this returns. */
  respond(message: Uint8Array): void;
  /** Answers with `bytes[start .. end)`. */
  respondSlice(bytes: Uint8Array, start: number, end: number): void;
  /**
   * Answers with `bytes[start .. end)` without a copy where that is possible: the buffer is given away, with at least five
   * bytes before `start` that may be overwritten.
   */
  respondOwned(bytes: Buffer, start: number, end: number): void;
  /**
   * Begins an answer of exactly `bytes` bytes that is too large to be held: `writePiece` brings it as the client takes it.
   * False when so large an answer cannot be sent; the call has failed then. While it is written `onCancel` may still come.
   */
  respondInPieces(bytes: number): boolean;
  /**
   * The next piece of the answer, given away; about 64 KiB, never empty. False: wait for `onDrain` before the next one. With
   * the last byte the call is over.
   */
  writePiece(piece: Buffer): boolean;
  /** Room for a piece, 64 KiB that come back when it has been sent: a long answer then leaves nothing to be collected. */
  newPiece(): Buffer;
  /** Called when `writePiece` may go on after it returned false. */
  onDrain: (() => void) | null;
  /** Answers with an error: a gRPC code and its text. A begun answer is cut off by it. */
  fail(code: number, message: string): void;
  /**
   * What serves this call has thrown, outside of the handler and its callbacks (whose exceptions come here by themselves).
   * It is logged, and the call fails. A fatal error (`base/fatal.ts`) is thrown on.
   */
  crashed(error: unknown): void;
}

export interface StreamCall extends CallInfo {
  /** Called for each message of the client. Set it, like `onHalfClose`, before the handler returns. */
  onMessage: ((message: Uint8Array) => void) | null;
  /** The client will send no more. */
  onHalfClose: (() => void) | null;
  /** Called once when the call is cancelled before the server ended it. */
  onCancel: (() => void) | null;
  /** Called when `send` may go on after it returned false. */
  onDrain: (() => void) | null;
  /** Messages that are not yet with the socket, in bytes. */
  readonly bufferedBytes: number;
  /** Sends a message; its bytes are copied before this returns. False: wait for `onDrain` before the next. */
  send(message: Uint8Array): boolean;
  /**
   * Begins a message of exactly `bytes` bytes (not 0) that is too large to be copied or held: `writePiece` brings it. Until
   * its last byte nothing else may be sent; a call that ends before is cut off.
   */
  beginMessage(bytes: number): void;
  /**
   * The next piece, which must not change any more, and may go to other calls too. False: wait for `onDrain` before the next
   * piece or message.
   */
  writePiece(piece: Buffer): boolean;
  /** Sends the reply headers now, which else go with the first message. */
  sendHeaders(): void;
  /** Ends the call with status OK. */
  end(): void;
  /** Ends the call with an error. */
  fail(code: number, message: string): void;
  /** As of a UnaryCall; the handler learns of it by `onCancel`. */
  crashed(error: unknown): void;
  /** Ends the call with an error from outside of its handler, which learns of it by `onCancel`. */
  terminate(code: number, message: string): void;
  /** No more messages until `resumeReading`; the client's window closes once it has sent 1 MiB ahead. */
  pauseReading(): void;
  resumeReading(): void;
}

/** An HTTP/2 request that is not gRPC. */
export interface PlainRequest {
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly scheme: string;
  /** Without pseudo-headers; several of one name are joined with a comma. */
  readonly headers: Record<string, string>;
  readonly remoteAddress: string;
  readonly socket: RpcSocket;
  readonly cancelled: boolean;
  onCancel: (() => void) | null;
  onDrain: (() => void) | null;
  /** The whole body is here. */
  readonly bodyComplete: boolean;
  /**
   * Hands out the body: its pieces as they come, whose bytes stay as they are, then the end. Until this is called, and while
   * it is paused, the client's window closes behind what it has sent ahead.
   */
  readBody(onPiece: (piece: Buffer) => void, onEnd: () => void): void;
  pauseBody(): void;
  resumeBody(): void;
  /** The whole answer. `content-length` is added. */
  respond(status: number, headers: Readonly<Record<string, string>>, body: string | Uint8Array): void;
  /** Or in pieces: a head, any number of writes (false: wait for `onDrain`), the end. */
  respondHead(status: number, headers: Readonly<Record<string, string>>): void;
  write(bytes: Uint8Array): boolean;
  end(): void;
  /** Cuts the answer off: the client learns that it is not whole. */
  abort(): void;
}

/** May answer before it returns, or later. What it or a callback of its throws fails the call, unless it is fatal. */
export type UnaryHandler = (call: UnaryCall) => void;
export type StreamHandler = (call: StreamCall) => void;

/** Where services register their methods. */
export interface RpcRegistry {
  unary(path: string, handler: UnaryHandler): void;
  stream(path: string, handler: StreamHandler): void;
}

/** A registered method and its counters, which only grow. */
export interface MethodStats {
  readonly path: string;
  readonly streaming: boolean;
  readonly started: number;
  readonly messagesReceived: number;
  readonly messagesSent: number;
  /** Ended calls by status code. */
  readonly handled: readonly number[];
}

export interface Route {
  readonly path: string;
  readonly streaming: boolean;
  readonly unaryHandler: UnaryHandler | undefined;
  readonly streamHandler: StreamHandler | undefined;
  started: number;
  messagesReceived: number;
  messagesSent: number;
  readonly handled: number[];
}

export interface RpcStats {
  connections: number;
  connectionsAccepted: number;
  /** Connections that broke the protocol or flooded. */
  connectionErrors: number;
  /** Connections closed because the peer flooded, by reason. */
  readonly abuses: { [abuse in Abuse]?: number };
  /** Streams opened so far. */
  streams: number;
  bytesReceived: number;
  bytesSent: number;
  /** Exceptions of handlers, each of which failed its call. */
  crashes: number;
}

/** What connections share. */
export interface RpcCore extends Omit<RpcServerOptions, "http1"> {
  readonly routes: ReadonlyMap<string, Route>;
  readonly services: ReadonlySet<string>;
  readonly deadlines: DeadlineWheel;
  readonly chunks: ChunkPool;
  readonly compression: Compression;
  readonly heldRequests: HeldBytes;
  readonly heldReplies: HeldBytes;
  readonly readTurns: ReadTurns;
  readonly stats: RpcStats;
  readonly complaints: Complaints;
  readonly headersTooLarge: Refusal;
  flushLater(connection: Connection): void;
  connectionClosed(connection: Connection): void;
  /** A handler has thrown: tells the operator, and throws on what is fatal. */
  crashed(path: string, error: unknown): void;
}

export class RpcServer implements RpcRegistry {
  readonly stats: RpcStats = {
    connections: 0,
    connectionsAccepted: 0,
    connectionErrors: 0,
    abuses: {},
    streams: 0,
    bytesReceived: 0,
    bytesSent: 0,
    crashes: 0,
  };
  /** What is held because clients do not read their answers. */
  readonly heldReplies: HeldBytes;
  /** What is held because clients do not finish their requests. */
  readonly heldRequests: HeldBytes;

  readonly #options: RpcServerOptions;
  readonly #routes = new Map<string, Route>();
  readonly #services = new Set<string>();
  readonly #connections = new Set<Connection>();
  /** Sockets whose protocol is not known yet. */
  readonly #undecided = new Set<RpcSocket>();
  readonly #core: RpcCore;
  readonly #complaints: Complaints;
  /** Connections with replies written in this turn, outside of their own reading. */
  #touched: Connection[] = [];
  #closing = false;
  #onEmpty: (() => void) | undefined;

  constructor(options: RpcServerOptions) {
    this.#options = options;
    const { clock } = options;
    this.#complaints = new Complaints(options.logger, clock);
    this.heldReplies = this.#heldBytes(options.heldReplyBytesMax, "closed streams whose clients do not read");
    this.heldRequests = this.#heldBytes(options.heldRequestBytesMax, "failed calls whose requests are not finished");
    this.#core = {
      ...options,
      maxConcurrentStreams: Math.min(options.maxConcurrentStreams, STREAMS_MAX),
      complaints: this.#complaints,
      routes: this.#routes,
      services: this.#services,
      deadlines: new DeadlineWheel(clock),
      chunks: new ChunkPool(),
      compression: new Compression(clock),
      heldReplies: this.heldReplies,
      heldRequests: this.heldRequests,
      readTurns: new ReadTurns(clock),
      stats: this.stats,
      headersTooLarge: {
        httpStatus: 431,
        code: Code.RESOURCE_EXHAUSTED,
        message: `request header list larger than max (${HEADER_LIST_BYTES_MAX} bytes)`,
      },
      flushLater: (connection) => this.#flushLater(connection),
      connectionClosed: (connection) => this.#connectionClosed(connection),
      crashed: (path, error) => this.crashed(path, error),
    };
  }

  unary(path: string, handler: UnaryHandler): void {
    this.#register(path, handler, undefined);
  }

  stream(path: string, handler: StreamHandler): void {
    this.#register(path, undefined, handler);
  }

  /** The registered methods with their counters. */
  get methods(): Iterable<MethodStats> {
    return this.#routes.values();
  }

  /**
   * Begins a call that this process makes itself, such as the JSON gateway, and counts it like any other. The caller
   * runs the route's handler, and counts its messages. Undefined when there is no such method.
   */
  beginLocalCall(call: CallInfo): Route | undefined {
    const route = this.#routes.get(call.path);
    if (route === undefined) return undefined;
    route.started++;
    this.#options.onCallStart?.(call);
    return route;
  }

  endLocalCall(call: CallInfo, route: Route, code: number): void {
    route.handled[code]!++;
    this.#options.onCallEnd?.(call, code);
  }

  /** For calls from elsewhere: their handler has thrown. Logged, and thrown on when it is fatal. */
  crashed(path: string, error: unknown): void {
    if (isFatal(error)) throw error;
    this.stats.crashes++;
    const stack = error instanceof Error ? (error.stack ?? "") : "";
    this.#complaints.error(
      "a call failed by an exception, which is a mistake in this program: please report it",
      { method: path, stacktrace: stack.slice(stack.indexOf("\n    at ") + 1) },
      // Its text may hold what the client sent, and be another each time.
      { error: error instanceof Error ? error : String(error) },
    );
  }

  /** Full names of the services that have a method. */
  get services(): ReadonlySet<string> {
    return this.#services;
  }

  /** Takes over an accepted (for TLS: handshaken) socket. */
  handleConnection(socket: RpcSocket): void {
    if (this.#closing) {
      socket.destroy();
      return;
    }
    const { clock, logger, http1 } = this.#options;
    socket.on("error", (error) => {
      logger.debug("connection failed", { "remote-addr": socket.remoteAddress, error: error.message });
    });
    this.#undecided.add(socket);
    detectProtocol(clock, socket, (protocol, head) => {
      this.#undecided.delete(socket);
      if (protocol === "http2") return this.#accept(socket, head);
      if (protocol === "http1" && http1 !== undefined) return http1(socket, head);
      socket.destroy();
    });
  }

  /**
   * Closes connections that have had no call and sent nothing for a while, the ones that rest the longest first, and names
   * their sockets.
   */
  closeIdle(): RpcSocket[] {
    const beforeMs = this.#options.clock.nowMs() - IDLE_MS;
    const idle = [...this.#connections].filter((connection) => connection.idleSinceMs < beforeMs);
    idle.sort((a, b) => a.idleSinceMs - b.idleSinceMs);
    const closed = idle.slice(0, CLOSED_IDLE_MAX);
    for (const connection of closed) connection.closeIdle();
    return closed.map(({ socket }) => socket);
  }

  /** Tells clients to go, lets running calls finish for `graceMs`, then cuts the rest off. New sockets are refused. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    for (const socket of this.#undecided) socket.destroy();
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    for (const connection of [...this.#connections]) connection.drain();
    const timer = this.#options.clock.after(graceMs, () => {
      for (const connection of [...this.#connections]) connection.destroy();
    });
    if (this.#connections.size > 0) await empty;
    timer.cancel();
    this.#core.deadlines.stop();
  }

  #heldBytes(bytesMax: number, message: string): HeldBytes {
    return new HeldBytes(this.#options.clock, bytesMax, () =>
      this.#complaints.warn(message, { "limit-bytes": bytesMax }),
    );
  }

  #register(path: string, unaryHandler: UnaryHandler | undefined, streamHandler: StreamHandler | undefined): void {
    const service = /^\/([^/]+)\/[^/]+$/.exec(path)?.[1];
    if (service === undefined) throw new Error(`method path ${path} is not /package.Service/Method`);
    if (this.#routes.has(path)) throw new Error(`method ${path} is registered twice`);
    this.#services.add(service);
    this.#routes.set(path, {
      path,
      streaming: streamHandler !== undefined,
      unaryHandler,
      streamHandler,
      started: 0,
      messagesReceived: 0,
      messagesSent: 0,
      handled: new Array(CODE_NAMES.length).fill(0),
    });
  }

  #accept(socket: RpcSocket, head: Buffer): void {
    this.stats.connections++;
    this.stats.connectionsAccepted++;
    this.#connections.add(new Connection(this.#core, socket, head));
  }

  /** Replies gathered anywhere in this turn leave when its JavaScript is done, one write a connection, before any new event. */
  #flushLater(connection: Connection): void {
    if (connection.flushQueued) return;
    connection.flushQueued = true;
    if (this.#touched.push(connection) === 1) process.nextTick(this.#flushTouched);
  }

  readonly #flushTouched = (): void => {
    const touched = this.#touched;
    this.#touched = [];
    for (const connection of touched) {
      connection.flushQueued = false;
      try {
        connection.sender.flush();
      } catch (error) {
        connection.broken(error);
      }
    }
  };

  #connectionClosed(connection: Connection): void {
    this.stats.connections--;
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#onEmpty?.();
  }
}
