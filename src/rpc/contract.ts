/**
 * What a service of the RPC server is given and gives: calls, requests that are not gRPC, handlers and where they are
 * registered. server.ts serves it over sockets, the JSON gateway and the simulator make calls of their own.
 */
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";

export type RpcSocket = Socket | TLSSocket;

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
  /** It came another way than gRPC (the JSON gateway), so the certificate of its socket does not say who makes it. */
  readonly isLocal: boolean;
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
