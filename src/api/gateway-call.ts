import type { Clock, Timer } from "../base/clock.ts";
import { Code } from "../base/grpc-codes.ts";
import type { Route, RpcServer, RpcSocket, StreamCall, UnaryCall } from "../rpc/server.ts";
import type { HttpRequest } from "./http.ts";

/** What becomes of a call, told to who made it. */
export interface LocalCallSink {
  /** A response. False: the call may not send more until `drained` is called. */
  message(bytes: Uint8Array): boolean;
  /** The call is over; nothing follows. */
  ended(code: number, text: string): void;
}

/**
 * A call that comes from HTTP instead of gRPC: the same handlers serve it, the same counters count it. Handlers get it
 * as the UnaryCall or StreamCall that they know.
 */
export class LocalCall implements UnaryCall, StreamCall {
  readonly path: string;
  readonly deadlineMs: number;
  cancelled = false;
  message: Uint8Array = NO_MESSAGE;
  onMessage: ((message: Uint8Array) => void) | null = null;
  onHalfClose: (() => void) | null = null;
  onCancel: (() => void) | null = null;
  onDrain: (() => void) | null = null;

  readonly #rpc: RpcServer;
  readonly #request: HttpRequest;
  readonly #sink: LocalCallSink;
  readonly #timer: Timer | null;
  #route: Route | undefined;
  #ended = false;
  #full = false;
  #bufferedBytes = 0;
  /** Requests that the handler has not taken yet. */
  #waiting: readonly Uint8Array[] = [];
  #next = 0;
  #paused = false;
  #pieces: Buffer[] = [];
  #piecesLeft = 0;

  /** `timeoutMs`: Infinity for none. */
  constructor(
    rpc: RpcServer,
    path: string,
    request: HttpRequest,
    clock: Clock,
    timeoutMs: number,
    sink: LocalCallSink,
  ) {
    this.#rpc = rpc;
    this.path = path;
    this.#request = request;
    this.#sink = sink;
    this.deadlineMs = clock.nowMs() + timeoutMs;
    this.#timer =
      timeoutMs === Number.POSITIVE_INFINITY
        ? null
        : clock.after(timeoutMs, () => this.#abort(Code.DEADLINE_EXCEEDED, "context deadline exceeded"));
  }

  /** Runs the handler: a unary one gets the first message, a streaming one all of them and then the end. */
  start(messages: readonly Uint8Array[]): void {
    const route = this.#rpc.beginLocalCall(this);
    if (route === undefined) throw new Error(`the gateway calls ${this.path}, which is not registered`);
    this.#route = route;
    if (route.unaryHandler !== undefined) {
      route.messagesReceived++;
      this.message = messages[0] ?? NO_MESSAGE;
      try {
        route.unaryHandler(this);
      } catch (error) {
        this.crashed(error);
      }
      return;
    }
    this.#waiting = messages;
    try {
      route.streamHandler!(this);
      this.#deliver();
    } catch (error) {
      this.crashed(error);
    }
  }

  /** Ends the call without its handler. */
  refuse(code: number, text: string): void {
    this.#route = this.#rpc.beginLocalCall(this);
    this.#finish(code, text);
  }

  /** The client has gone. */
  cancel(): void {
    if (!this.#ended) this.#abort(Code.CANCELED, "context canceled");
  }

  /** The sink can take messages again. */
  drained(): void {
    if (!this.#full) return;
    this.#full = false;
    this.#bufferedBytes = 0;
    if (this.#ended) return;
    try {
      this.onDrain?.();
    } catch (error) {
      this.crashed(error);
    }
  }

  // ---- what handlers call

  get remoteAddress(): string {
    return this.#request.socket.remoteAddress ?? "";
  }

  get socket(): RpcSocket {
    return this.#request.socket;
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** Metadata, as etcd's gateway makes it of HTTP headers: `grpc-metadata-` in front, but for authorization. */
  header(name: string): string | undefined {
    const { headers } = this.#request;
    const value = (name === "authorization" ? headers["authorization"] : undefined) ?? headers[`grpc-metadata-${name}`];
    return Array.isArray(value) ? value[0] : value;
  }

  respond(message: Uint8Array): void {
    if (this.#ended) return this.#late();
    this.#route!.messagesSent++;
    this.#sink.message(message);
    this.#finish(Code.OK, "");
  }

  respondSlice(bytes: Uint8Array, start: number, end: number): void {
    this.respond(bytes.subarray(start, end));
  }

  respondOwned(bytes: Buffer, start: number, end: number): void {
    this.respond(bytes.subarray(start, end));
  }

  send(message: Uint8Array): boolean {
    if (this.#ended) {
      this.#late();
      return false;
    }
    this.#route!.messagesSent++;
    if (!this.#sink.message(message)) this.#full = true;
    if (this.#full) this.#bufferedBytes += message.length;
    return !this.#full;
  }

  readonly needsLength = true;

  respondInPieces(bytes: number): boolean {
    this.#pieces = [];
    this.#piecesLeft = bytes;
    return true;
  }

  beginMessage(bytes: number): void {
    this.#pieces = [];
    this.#piecesLeft = bytes;
  }

  writePiece(piece: Buffer): boolean {
    this.#pieces.push(piece);
    this.#piecesLeft -= piece.length;
    if (this.#piecesLeft > 0) return true;
    const message = Buffer.concat(this.#pieces);
    this.#pieces = [];
    if (this.#route!.streamHandler !== undefined) return this.send(message);
    this.respond(message);
    return true;
  }

  endPieces(): void {}

  /** HTTP has no use for headers without a first message. */
  sendHeaders(): void {}

  end(): void {
    if (this.#ended) return this.#late();
    this.#finish(Code.OK, "");
  }

  fail(code: number, message: string): void {
    if (this.#ended) return this.#late();
    this.#finish(code, message);
  }

  terminate(code: number, message: string): void {
    if (!this.#ended) this.#abort(code, message);
  }

  crashed(error: unknown): void {
    this.#rpc.crashed(this.path, error);
    if (!this.#ended) this.#abort(Code.INTERNAL, "the server failed to serve this call; its log has the reason");
  }

  pauseReading(): void {
    this.#paused = true;
  }

  resumeReading(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#deliver();
  }

  // ---- inside

  #deliver(): void {
    while (!this.#paused && !this.#ended && this.#next < this.#waiting.length) {
      this.#route!.messagesReceived++;
      this.onMessage?.(this.#waiting[this.#next++]!);
    }
    if (this.#paused || this.#ended || this.#next > this.#waiting.length) return;
    this.#next++;
    this.onHalfClose?.();
  }

  #abort(code: number, text: string): void {
    this.cancelled = true;
    this.#finish(code, text);
    try {
      this.onCancel?.();
    } catch (error) {
      this.#rpc.crashed(this.path, error);
    }
  }

  #finish(code: number, text: string): void {
    this.#ended = true;
    this.#timer?.cancel();
    if (this.#route !== undefined) this.#rpc.endLocalCall(this, this.#route, code);
    this.#sink.ended(code, text);
  }

  /** After a cancellation the handler may still answer, to nobody; after its own answer it may not. */
  #late(): void {
    if (!this.cancelled) this.#rpc.crashed(this.path, new Error("the handler answered a call twice"));
  }
}

const NO_MESSAGE: Uint8Array = Buffer.alloc(0);
