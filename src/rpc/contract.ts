/**
 * The interface between the RPC server and services: calls, requests that are not gRPC, handlers and their
 * registration. server.ts serves it over sockets; the JSON gateway and the simulator make their own calls.
 */
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";

export type RpcSocket = Socket | TLSSocket;

/** The request data common to all calls. */
export interface CallInfo {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly remoteAddress: string;
  readonly socket: RpcSocket;
  /** On the clock's `nowMs`; Infinity when the client set none. */
  readonly deadlineMs: number;
  /** The client is gone or the deadline has passed: answers are dropped. */
  readonly cancelled: boolean;
  /** It did not arrive over gRPC (the JSON gateway), so its socket's certificate does not identify the caller. */
  readonly isLocal: boolean;
  /** The first value of a header, by lower-case name, or undefined. Values of `-bin` headers are in base64. */
  header(name: string): string | undefined;
}

/** The request of a call, if it has one that is kept. */
export const messageOf = (call: CallInfo): Uint8Array | undefined =>
  "message" in call && call.message instanceof Uint8Array ? call.message : undefined;

export interface UnaryCall extends CallInfo {
  /** The request: a view of the bytes read. It never changes and may be kept. */
  readonly message: Uint8Array;
  /** Called once when the call is cancelled before its answer. */
  onCancel: (() => void) | null;
  /** Answers. The bytes are copied before this returns. */
  respond(message: Uint8Array): void;
  /** Answers with `bytes[start .. end)`. */
  respondSlice(bytes: Uint8Array, start: number, end: number): void;
  /**
   * Answers with `bytes[start .. end)` without a copy if possible: the callee takes ownership of the buffer, including
   * at least five bytes before `start` that it may overwrite.
   */
  respondOwned(bytes: Buffer, start: number, end: number): void;
  /**
   * Begins an answer of exactly `bytes` bytes that is too large to hold: send it with `writePiece` as the client reads.
   * False when an answer this large cannot be sent; the call has then failed. `onCancel` may still be called meanwhile.
   */
  respondInPieces(bytes: number): boolean;
  /**
   * The next piece of the answer, about 64 KiB and never empty; ownership passes. False: wait for `onDrain` before the
   * next piece. The last byte ends the call.
   */
  writePiece(piece: Buffer): boolean;
  /** A reusable 64 KiB buffer for a piece, recycled when sent, so that a long answer leaves no garbage. */
  newPiece(): Buffer;
  /** Called when `writePiece` may continue after it returned false. */
  onDrain: (() => void) | null;
  /** Answers with an error: a gRPC code and its text. Cuts off an answer in progress. */
  fail(code: number, message: string): void;
  /**
   * The code that serves this call threw outside of the handler and its callbacks (whose exceptions get here
   * automatically). Logs the error and fails the call. Rethrows a fatal error (`base/fatal.ts`).
   */
  crashed(error: unknown): void;
}

export interface StreamCall extends CallInfo {
  /** Called for each message from the client. Set it, like `onHalfClose`, before the handler returns. */
  onMessage: ((message: Uint8Array) => void) | null;
  /** The client will send no more. */
  onHalfClose: (() => void) | null;
  /** Called once when the call is cancelled before the server ended it. */
  onCancel: (() => void) | null;
  /** Called when `send` may continue after it returned false. */
  onDrain: (() => void) | null;
  /** Bytes of messages not yet given to the socket. */
  readonly bufferedBytes: number;
  /** Sends a message; copies its bytes before returning. False: wait for `onDrain` before the next message. */
  send(message: Uint8Array): boolean;
  /**
   * Begins a message of exactly `bytes` bytes (not 0) that is too large to copy or hold: send it with `writePiece`.
   * Nothing else may be sent until its last byte; ending the call earlier cuts it off.
   */
  beginMessage(bytes: number): void;
  /**
   * The next piece; it must not change afterwards, and may be sent on other calls too. False: wait for `onDrain` before
   * the next piece or message.
   */
  writePiece(piece: Buffer): boolean;
  /** Sends the reply headers now instead of with the first message. */
  sendHeaders(): void;
  /** Ends the call with status OK. */
  end(): void;
  /** Ends the call with an error. */
  fail(code: number, message: string): void;
  /** As in UnaryCall; the handler is notified by `onCancel`. */
  crashed(error: unknown): void;
  /** Ends the call with an error from outside its handler, which is notified by `onCancel`. */
  terminate(code: number, message: string): void;
  /** No more messages until `resumeReading`; the client may send up to 1 MiB ahead, until its window is closed. */
  pauseReading(): void;
  resumeReading(): void;
}

/** An HTTP/2 request that is not gRPC. */
export interface PlainRequest {
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly scheme: string;
  /** Without pseudo-headers; values of repeated names are joined with a comma. */
  readonly headers: Record<string, string>;
  readonly remoteAddress: string;
  readonly socket: RpcSocket;
  readonly cancelled: boolean;
  onCancel: (() => void) | null;
  onDrain: (() => void) | null;
  /** The whole body has arrived. */
  readonly bodyComplete: boolean;
  /**
   * Delivers the body: pieces as they arrive, whose bytes stay unchanged, then the end. Before this call, and while
   * paused, the client can send no more than its window allows.
   */
  readBody(onPiece: (piece: Buffer) => void, onEnd: () => void): void;
  pauseBody(): void;
  resumeBody(): void;
  /** Sends the whole answer. Adds `content-length`. */
  respond(status: number, headers: Readonly<Record<string, string>>, body: string | Uint8Array): void;
  /** Or sends it in pieces: a head, any number of writes (false: wait for `onDrain`), the end. */
  respondHead(status: number, headers: Readonly<Record<string, string>>): void;
  write(bytes: Uint8Array): boolean;
  end(): void;
  /** Cuts off the answer: the client sees that it is incomplete. */
  abort(): void;
}

/**
 * May answer before it returns, or later. An error thrown by it or its callbacks fails the call, unless it is fatal.
 */
export type UnaryHandler = (call: UnaryCall) => void;
export type StreamHandler = (call: StreamCall) => void;

/** Registers the methods of services. */
export interface RpcRegistry {
  unary(path: string, handler: UnaryHandler): void;
  stream(path: string, handler: StreamHandler): void;
}

/** A registered method and its monotonic counters. */
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
