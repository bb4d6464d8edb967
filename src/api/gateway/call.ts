import type { Clock, Timer } from "../../base/clock.ts";
import { Code } from "../../base/grpc-codes.ts";
import type { Route, RpcSocket, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import type { RpcServer } from "../../rpc/server.ts";
import type { HttpRequest } from "../http/contract.ts";

/** Receives the output of a call. */
export interface LocalCallSink {
  /** A response. `isOwned`: its bytes will not change. False: the call must not send more until `drained` is called. */
  message(bytes: Uint8Array, isOwned: boolean): boolean;
  /** The next piece of a response. False as above. */
  piece(bytes: Uint8Array): boolean;
  /** The previous piece was its last. False as above. */
  piecesEnded(): boolean;
  /** The handler pauses its input until `resume`. */
  pause(): void;
  resume(): void;
  /** The call is over; nothing follows. */
  ended(code: number, text: string): void;
}

/**
 * A call from HTTP instead of gRPC: served by the same handlers and counted by the same counters. Handlers get it as an
 * ordinary UnaryCall or StreamCall.
 */
export class LocalCall implements UnaryCall, StreamCall {
  readonly path: string;
  readonly isLocal = true;
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
  #waiting: Uint8Array[] = [];
  #isHalfClosed = false;
  #paused = false;
  /** Missing bytes of a response in progress; Infinity when its handler decides the end. */
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

  /**
   * Runs the handler. A streaming handler gets its messages by `deliver` and `halfClose`, a unary one its only message
   * here.
   */
  start(message: Uint8Array = NO_MESSAGE): void {
    if (this.#ended) return;
    const route = this.#rpc.beginLocalCall(this);
    if (route === undefined) throw new Error(`the gateway calls ${this.path}, which is not registered`);
    this.#route = route;
    const isUnary = route.unaryHandler !== undefined;
    if (isUnary) {
      route.messagesReceived++;
      this.message = message;
    }
    try {
      if (isUnary) route.unaryHandler!(this);
      else route.streamHandler!(this);
    } catch (error) {
      this.crashed(error);
    }
  }

  /** The next message of a stream. It waits while the handler is paused. */
  deliver(message: Uint8Array): void {
    this.#waiting.push(message);
    this.#deliver();
  }

  /** No more messages. */
  halfClose(): void {
    this.#isHalfClosed = true;
    this.#deliver();
  }

  /** Ends the call without its handler. */
  refuse(code: number, text: string): void {
    this.#route = this.#rpc.beginLocalCall(this);
    this.#finish(code, text);
  }

  /** The request does not become a call. */
  dismiss(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  /** The client is gone. */
  cancel(): void {
    if (!this.#ended) this.#abort(Code.CANCELED, "context canceled");
  }

  /** The sink accepts messages again. */
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

  // ---- called by handlers

  get remoteAddress(): string {
    return this.#request.socket.remoteAddress ?? "";
  }

  get socket(): RpcSocket {
    return this.#request.socket;
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /**
   * Metadata, as etcd's gateway derives it from HTTP headers: prefixed by `grpc-metadata-`, except for authorization.
   */
  header(name: string): string | undefined {
    const { headers } = this.#request;
    const value = (name === "authorization" ? headers["authorization"] : undefined) ?? headers[`grpc-metadata-${name}`];
    return Array.isArray(value) ? value[0] : value;
  }

  respond(message: Uint8Array): void {
    this.#respond(message, false);
  }

  respondSlice(bytes: Uint8Array, start: number, end: number): void {
    this.#respond(bytes.subarray(start, end), false);
  }

  respondOwned(bytes: Buffer, start: number, end: number): void {
    this.#respond(bytes.subarray(start, end), true);
  }

  send(message: Uint8Array): boolean {
    if (this.#ended) {
      this.#late();
      return false;
    }
    this.#route!.messagesSent++;
    if (!this.#sink.message(message, false)) this.#full = true;
    if (this.#full) this.#bufferedBytes += message.length;
    return !this.#full;
  }

  respondInPieces(bytes: number): boolean {
    if (this.#ended) {
      this.#late();
      return false;
    }
    this.#route!.messagesSent++;
    this.#piecesLeft = bytes;
    return true;
  }

  beginMessage(bytes: number): void {
    if (this.#ended) return this.#late();
    this.#route!.messagesSent++;
    this.#piecesLeft = bytes;
  }

  writePiece(piece: Buffer): boolean {
    if (this.#ended) {
      this.#late();
      return false;
    }
    if (!this.#sink.piece(piece)) this.#full = true;
    this.#piecesLeft -= piece.length;
    if (this.#piecesLeft <= 0) this.#endPieces();
    return !this.#full;
  }

  newPiece(): Buffer {
    return Buffer.allocUnsafeSlow(PIECE_BYTES);
  }

  #endPieces(): void {
    if (!this.#sink.piecesEnded()) this.#full = true;
    if (this.#route!.unaryHandler !== undefined && !this.#ended) this.#finish(Code.OK, "");
  }

  /** HTTP does not need headers before the first message. */
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
    this.#sink.pause();
  }

  resumeReading(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#deliver();
    if (!this.#paused) this.#sink.resume();
  }

  // ---- internal

  #respond(message: Uint8Array, isOwned: boolean): void {
    if (this.#ended) return this.#late();
    this.#route!.messagesSent++;
    this.#sink.message(message, isOwned);
    this.#finish(Code.OK, "");
  }

  #deliver(): void {
    try {
      while (!this.#paused && !this.#ended && this.#waiting.length > 0) {
        this.#route!.messagesReceived++;
        this.onMessage?.(this.#waiting.shift()!);
      }
      if (this.#paused || this.#ended || this.#waiting.length > 0 || !this.#isHalfClosed) return;
      const { onHalfClose } = this;
      this.onHalfClose = null;
      onHalfClose?.();
    } catch (error) {
      this.crashed(error);
    }
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

  /** After a cancellation the handler may still answer, without effect; after its own answer it must not. */
  #late(): void {
    if (!this.cancelled) this.#rpc.crashed(this.path, new Error("the handler answered a call twice"));
  }
}

const NO_MESSAGE: Uint8Array = Buffer.alloc(0);

const PIECE_BYTES = 64 * 1024;
