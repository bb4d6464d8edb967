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
import { Complaints } from "../base/complaints.ts";
import { isFatal } from "../base/fatal.ts";
import { CODE_NAMES, Code } from "../base/grpc-codes.ts";
import { Compression } from "./compression.ts";
import { Connection } from "./connection.ts";
import type { CallInfo, MethodStats, Route, RpcRegistry, RpcSocket, StreamHandler, UnaryHandler } from "./contract.ts";
import type { Flushable, RpcCore, RpcStats } from "./core.ts";
import { DeadlineWheel } from "./deadlines.ts";
import { detectProtocol } from "./detect.ts";
import { HeldBytes } from "./held-bytes.ts";
import type { RpcServerOptions } from "./options.ts";
import { ChunkPool } from "./output.ts";
import { HEADER_LIST_BYTES_MAX, STREAMS_MAX } from "./protocol.ts";
import { ReadTurns } from "./read-turns.ts";

/** A connection idle this long may be closed to make room, and how many at a time. */
const IDLE_MS = 5000;
const CLOSED_IDLE_MAX = 64;

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
  /** Bytes held because clients do not read their answers. */
  readonly heldReplies: HeldBytes;
  /** Bytes held because clients do not complete their requests. */
  readonly heldRequests: HeldBytes;

  readonly #options: RpcServerOptions;
  readonly #routes = new Map<string, Route>();
  readonly #services = new Set<string>();
  readonly #connections = new Set<Connection>();
  /** Sockets whose protocol is not detected yet. */
  readonly #undecided = new Set<RpcSocket>();
  readonly #core: RpcCore;
  readonly #complaints: Complaints;
  /** Connections with replies written in this turn, outside of reading. */
  #touched: Flushable[] = [];
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
   * Begins a call made by this process itself, such as the JSON gateway's, and counts it like any other. The caller
   * runs the route's handler and counts its messages. Undefined when there is no such method.
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

  /** For calls from elsewhere: their handler threw. Logs the error, and rethrows it if it is fatal. */
  crashed(path: string, error: unknown): void {
    if (isFatal(error)) throw error;
    this.stats.crashes++;
    const stack = error instanceof Error ? (error.stack ?? "") : "";
    this.#complaints.error(
      "a call failed by an exception, which is a mistake in this program: please report it",
      { method: path, stacktrace: stack.slice(stack.indexOf("\n    at ") + 1) },
      // The text may contain client input and differ each time.
      { error: error instanceof Error ? error : String(error) },
    );
  }

  /** Full names of the services with at least one method. */
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
   * Closes connections that have had no call and no input for a while, the longest idle first, and returns their
   * sockets.
   */
  closeIdle(): RpcSocket[] {
    const beforeMs = this.#options.clock.nowMs() - IDLE_MS;
    const idle = [...this.#connections].filter((connection) => connection.idleSinceMs < beforeMs);
    idle.sort((a, b) => a.idleSinceMs - b.idleSinceMs);
    const closed = idle.slice(0, CLOSED_IDLE_MAX);
    for (const connection of closed) connection.closeIdle();
    return closed.map(({ socket }) => socket);
  }

  /** Sends GOAWAY, lets running calls finish for `graceMs`, then ends the rest. New sockets are refused. */
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
    const connection = new Connection(this.#core, socket, head, () => this.#connectionClosed(connection));
    this.#connections.add(connection);
  }

  /**
   * Replies written in this turn are sent when its JavaScript is done, one write per connection, before any new event.
   */
  #flushLater(connection: Flushable): void {
    if (connection.flushQueued) return;
    connection.flushQueued = true;
    if (this.#touched.push(connection) === 1) process.nextTick(this.#flushTouched);
  }

  readonly #flushTouched = (): void => {
    const touched = this.#touched;
    this.#touched = [];
    for (const connection of touched) {
      connection.flushQueued = false;
      connection.flush();
    }
  };

  #connectionClosed(connection: Connection): void {
    this.stats.connections--;
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#onEmpty?.();
  }
}
