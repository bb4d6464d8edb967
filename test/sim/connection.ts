/**
 * The simulated connection of a client to a member: calls take time both ways, keep their order on a stream, and break
 * when the member's process ends. The member's side is its real API.
 */
import type { Codec } from "../../src/base/protobuf.ts";
import type { CallInfo, RpcSocket, StreamCall, UnaryCall } from "../../src/rpc/contract.ts";
import type { RpcServer } from "../../src/rpc/server.ts";
import type { Scheduler, SimProcess } from "./scheduler.ts";

/** A member's process as clients see it, while it serves. */
export interface Service {
  readonly rpc: RpcServer;
  readonly process: SimProcess;
}

export interface Method<Q, R> {
  readonly path: string;
  readonly request: Codec<Q>;
  readonly response: Codec<R>;
}

export type Reply<R> =
  | { readonly ok: true; readonly response: R }
  /** `code` is gRPC's; -1 when the connection broke or the client timed out. */
  | { readonly ok: false; readonly code: number; readonly message: string };

export const BROKEN = -1;

/** The identity of calls without their own, and who is notified of refusals. */
export interface Credentials {
  token(): string | undefined;
  refused(token: string | undefined, message: string): void;
}

/** Bytes in flight to a client that reads immediately. */
const STREAM_WINDOW_BYTES = 2048;

/** Identifies the owner of long requests: here all clients are one. */
const NO_SOCKET = {} as RpcSocket;

export class ClientSide {
  readonly scheduler: Scheduler;
  readonly delayMs: () => number;
  /** Undefined without authentication. */
  credentials: Credentials | undefined;

  constructor(scheduler: Scheduler, delayMs: () => number) {
    this.scheduler = scheduler;
    this.delayMs = delayMs;
  }

  /** Calls a method; `done` is called once. */
  call<Q, R>(
    service: Service | undefined,
    method: Method<Q, R>,
    request: Q,
    timeoutMs: number,
    done: (reply: Reply<R>) => void,
    token = this.credentials?.token(),
  ): void {
    const { scheduler } = this;
    let answered = false;
    const finish = (reply: Reply<R>): void => {
      if (answered) return;
      answered = true;
      timer.cancel();
      if (!reply.ok) this.credentials?.refused(token, reply.message);
      done(reply);
    };
    const timer = scheduler.after(timeoutMs, () => {
      call.cancelled = true;
      service?.process.run(() => call.onCancel?.());
      finish({ ok: false, code: BROKEN, message: "the client gave up" });
    });
    const answer = (act: () => void): void => void scheduler.after(this.delayMs(), act);
    const reply = (bytes: Uint8Array | undefined, code: number, message: string): void =>
      answer(() => {
        if (bytes === undefined) finish({ ok: false, code, message });
        else finish({ ok: true, response: method.response.decode(bytes) });
      });
    const pause = (drained: () => void): void =>
      answer(() =>
        service?.process.run(() => {
          if (!call.cancelled) drained();
        }),
      );
    const call = new LocalCall(method.path, token, method.request.encode(request), reply, pause);
    scheduler.after(this.delayMs(), () => {
      if (service === undefined || !service.process.alive) {
        answer(() => finish({ ok: false, code: 14, message: "connection refused" }));
        return;
      }
      this.#whenBroken(service, () => finish({ ok: false, code: BROKEN, message: "the connection broke" }));
      service.process.run(() => {
        const route = service.rpc.beginLocalCall(call);
        if (route?.unaryHandler === undefined) throw new Error(`no method ${method.path}`);
        if (!call.cancelled) route.unaryHandler(call);
      });
    });
  }

  open<Q, R>(
    service: Service,
    method: Method<Q, R>,
    handlers: StreamHandlers<R>,
    pace: Pace = { readMs: 0, windowBytes: STREAM_WINDOW_BYTES },
  ): ClientStream<Q> {
    return new ClientStream(this, service, method, handlers, pace);
  }

  readonly #broken = new Map<SimProcess, Set<() => void>>();

  /** Calls back when the process has ended, as the kernel closes its sockets. */
  #whenBroken(service: Service, callback: () => void): void {
    let callbacks = this.#broken.get(service.process);
    if (callbacks === undefined) this.#broken.set(service.process, (callbacks = new Set()));
    callbacks.add(callback);
  }

  onBroken(service: Service, callback: () => void): void {
    this.#whenBroken(service, callback);
  }

  /** A process has ended: its clients notice. */
  ended(process: SimProcess): void {
    const callbacks = this.#broken.get(process);
    if (callbacks === undefined) return;
    this.#broken.delete(process);
    for (const callback of callbacks) this.scheduler.after(this.delayMs(), callback);
  }
}

/** How fast a client reads a stream. */
export interface Pace {
  /** Time for each message. */
  readonly readMs: number;
  /** Bytes in flight before the sender must wait. */
  readonly windowBytes: number;
}

export interface StreamHandlers<R> {
  message(response: R): void;
  /** The stream was ended by the server or by a broken connection. Called once. */
  end(code: number, message: string): void;
}

class LocalInfo implements CallInfo {
  readonly isLocal = false;
  readonly path: string;
  readonly remoteAddress = "client";
  readonly socket = NO_SOCKET;
  readonly deadlineMs = Number.POSITIVE_INFINITY;
  cancelled = false;
  onCancel: (() => void) | null = null;
  readonly #token: string | undefined;

  constructor(path: string, token: string | undefined) {
    this.path = path;
    // An empty token counts as none.
    this.#token = token || undefined;
  }

  /** In simulation no exception is tolerated. */
  crashed(error: unknown): void {
    throw error;
  }

  header(name: string): string | undefined {
    return name === "token" ? this.#token : undefined;
  }
}

class LocalCall extends LocalInfo implements UnaryCall {
  readonly message: Uint8Array;
  readonly #done: (bytes: Uint8Array | undefined, code: number, message: string) => void;
  readonly #pause: (drained: () => void) => void;
  #answered = false;

  constructor(
    path: string,
    token: string | undefined,
    message: Uint8Array,
    done: (bytes: Uint8Array | undefined, code: number, message: string) => void,
    pause: (drained: () => void) => void,
  ) {
    super(path, token);
    this.message = message;
    this.#done = done;
    this.#pause = pause;
  }

  respond(message: Uint8Array): void {
    this.#answer(Buffer.from(message), 0, "");
  }

  respondOwned(bytes: Uint8Array, start: number, end: number): void {
    this.respondSlice(bytes, start, end);
  }

  respondSlice(bytes: Uint8Array, start: number, end: number): void {
    this.#answer(Buffer.from(bytes.subarray(start, end)), 0, "");
  }

  onDrain: (() => void) | null = null;
  #pieces: Buffer[] = [];
  #piecesLeft = 0;

  respondInPieces(bytes: number): boolean {
    this.#piecesLeft = bytes;
    return true;
  }

  /** The client takes time to read each piece. */
  writePiece(piece: Buffer): boolean {
    this.#pieces.push(piece);
    this.#piecesLeft -= piece.length;
    if (this.#piecesLeft < 0) throw new Error(`answer of ${this.path} is longer than was said`);
    if (this.#piecesLeft === 0) this.#answer(Buffer.concat(this.#pieces), 0, "");
    else this.#pause(() => this.onDrain?.());
    return false;
  }

  newPiece(): Buffer {
    return Buffer.allocUnsafeSlow(PIECE_BYTES);
  }

  fail(code: number, message: string): void {
    this.#answer(undefined, code, message);
  }

  #answer(bytes: Uint8Array | undefined, code: number, message: string): void {
    if (this.#answered) {
      if (this.cancelled) return;
      throw new Error(`${this.path} was answered twice`);
    }
    this.#answered = true;
    this.#done(bytes, code, message);
  }
}

/** Both ends of a stream: the client's methods, and inside them the call of the member's handler. */
export class ClientStream<Q> {
  readonly #send: (request: Q) => void;
  readonly #cancel: () => void;

  constructor(
    side: ClientSide,
    service: Service,
    method: { readonly path: string; readonly request: Codec<Q>; readonly response: Codec<unknown> },
    // biome-ignore lint/suspicious/noExplicitAny: the response type is checked where the stream is opened
    handlers: StreamHandlers<any>,
    { readMs, windowBytes }: Pace,
  ) {
    const { scheduler } = side;
    let over = false;
    let paused = false;
    const waiting: Uint8Array[] = [];
    const up = new Lane(scheduler, side.delayMs);
    const down = new Lane(scheduler, () => side.delayMs() + readMs);
    let bufferedBytes = 0;
    let wantsDrain = false;
    const end = (code: number, message: string): void => {
      if (over) return;
      over = true;
      if (code !== 0) side.credentials?.refused(token, message);
      handlers.end(code, message);
    };
    const { process } = service;
    const token = side.credentials?.token();
    const call = new LocalStream(method.path, token, {
      send: (bytes) => {
        const copy = Buffer.from(bytes);
        bufferedBytes += copy.length;
        down.carry(() => {
          bufferedBytes -= copy.length;
          if (!over) handlers.message(method.response.decode(copy));
          if (wantsDrain && bufferedBytes <= windowBytes / 2) {
            wantsDrain = false;
            process.run(() => {
              if (!call.cancelled && !call.ended) call.onDrain?.();
            });
          }
        });
        wantsDrain ||= bufferedBytes > windowBytes;
        return !wantsDrain;
      },
      buffered: () => bufferedBytes,
      end: (code, message) => down.carry(() => end(code, message)),
      pause: () => {
        paused = true;
      },
      resume: () => {
        paused = false;
        while (!paused && waiting.length > 0) call.onMessage?.(waiting.shift()!);
      },
    });
    side.onBroken(service, () => end(BROKEN, "the connection broke"));
    up.carry(() =>
      process.run(() => {
        const route = service.rpc.beginLocalCall(call);
        if (route?.streamHandler === undefined) throw new Error(`no method ${method.path}`);
        route.streamHandler(call);
      }),
    );
    this.#send = (request) => {
      const bytes = method.request.encode(request);
      up.carry(() =>
        process.run(() => {
          if (call.cancelled || call.ended) return;
          if (paused) waiting.push(bytes);
          else call.onMessage?.(bytes);
        }),
      );
    };
    this.#cancel = () => {
      over = true;
      up.carry(() =>
        process.run(() => {
          if (call.ended || call.cancelled) return;
          call.cancelled = true;
          call.onCancel?.();
        }),
      );
    };
  }

  send(request: Q): void {
    this.#send(request);
  }

  /** The client cancels it and receives nothing more. */
  cancel(): void {
    this.#cancel();
  }
}

/** One direction of a stream: later messages do not arrive earlier. */
class Lane {
  readonly #scheduler: Scheduler;
  readonly #delayMs: () => number;
  #lastMs = 0;

  constructor(scheduler: Scheduler, delayMs: () => number) {
    this.#scheduler = scheduler;
    this.#delayMs = delayMs;
  }

  carry(act: () => void): void {
    this.#lastMs = Math.max(this.#lastMs, this.#scheduler.nowMs + this.#delayMs());
    this.#scheduler.at(this.#lastMs, act);
  }
}

interface StreamWire {
  send(bytes: Uint8Array): boolean;
  buffered(): number;
  end(code: number, message: string): void;
  pause(): void;
  resume(): void;
}

class LocalStream extends LocalInfo implements StreamCall {
  onMessage: ((message: Uint8Array) => void) | null = null;
  onHalfClose: (() => void) | null = null;
  onDrain: (() => void) | null = null;
  ended = false;
  readonly #wire: StreamWire;

  constructor(path: string, token: string | undefined, wire: StreamWire) {
    super(path, token);
    this.#wire = wire;
  }

  get bufferedBytes(): number {
    return this.#wire.buffered();
  }

  send(message: Uint8Array): boolean {
    if (this.ended || this.cancelled) return false;
    if (this.#piecesLeft > 0) throw new Error(`a message of ${this.path} was sent inside of another`);
    return this.#wire.send(message);
  }

  #pieces: Buffer[] = [];
  #piecesLeft = 0;

  beginMessage(bytes: number): void {
    this.#pieces = [];
    this.#piecesLeft = bytes;
  }

  writePiece(piece: Buffer): boolean {
    this.#pieces.push(piece);
    this.#piecesLeft -= piece.length;
    if (this.#piecesLeft < 0) throw new Error(`message of ${this.path} is longer than was said`);
    return this.#piecesLeft > 0 || this.send(Buffer.concat(this.#pieces));
  }

  sendHeaders(): void {}

  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.#wire.end(0, "");
  }

  fail(code: number, message: string): void {
    if (this.ended) return;
    this.ended = true;
    this.#wire.end(code, message);
  }

  terminate(code: number, message: string): void {
    this.fail(code, message);
    this.cancelled = true;
    this.onCancel?.();
  }

  pauseReading(): void {
    this.#wire.pause();
  }

  resumeReading(): void {
    this.#wire.resume();
  }
}

const PIECE_BYTES = 64 * 1024;
