/**
 * A stream on one connection: messages both ways until either side ends it. Not repeated: what is built on it (watch,
 * keep-alive, snapshot) knows how to go on.
 */

import { messageOf } from "../base/errors.ts";
import { Code } from "../base/grpc-codes.ts";
import type { MethodType } from "../base/protobuf.ts";
import type { Caller, Retry } from "./caller.ts";
import type { ForwardedOptions } from "./options.ts";
import { RpcError } from "./rpc-error.ts";
import { Call, type Reached } from "./transport/call.ts";
import type { Link, Waiter } from "./transport/links.ts";
import type { CallHead } from "./transport/request-encoder.ts";

export interface StreamHandler<O> {
  onMessage(message: O): void;
  /** The stream is over; undefined when the server ended it with OK. Not called after `cancel` without an error. */
  onEnd(error: unknown): void;
}

export interface StreamOptions extends ForwardedOptions {
  readonly requireLeader?: boolean;
}

export class StreamCall<I, O> extends Call implements Waiter, Retry {
  head: CallHead;
  readonly endpoint: string | undefined;
  readonly #caller: Caller;
  readonly #method: MethodType<I, O>;
  readonly #handler: StreamHandler<O>;
  readonly #options: StreamOptions | undefined;
  /** Messages sent before there was a connection. */
  #unsent: Buffer[] = [];
  #endsAfterUnsent = false;
  #link: Link | undefined;
  #isDone = false;

  constructor(caller: Caller, method: MethodType<I, O>, handler: StreamHandler<O>, options: StreamOptions | undefined) {
    super(caller.deadlineOf(options, Number.POSITIVE_INFINITY), caller.responseBytesMax);
    this.#caller = caller;
    this.#method = method;
    this.#handler = handler;
    this.#options = options;
    this.endpoint = options?.endpoint;
    this.head = this.#headNow();
  }

  begin(): void {
    const signal = this.#options?.signal;
    if (signal?.aborted) return this.cancel(signal.reason);
    signal?.addEventListener("abort", this.#onAbort);
    this.#caller.track(this);
    if (this.deadlineMs !== Number.POSITIVE_INFINITY) this.#caller.deadlines.add(this);
    const { tokens } = this.#caller;
    if (tokens?.isNeededBy(this.#method.path)) tokens.renew(this);
    else this.onRetry();
  }

  /** The token is there, or was not needed. */
  onRetry(): void {
    if (this.#isDone) return;
    this.head = this.#headNow();
    const { links } = this.#caller;
    const link = this.endpoint === undefined ? links.pick() : links.to(this.endpoint);
    if (link?.connection === undefined) links.wait(this);
    else this.onConnection(link);
  }

  onConnection(link: Link): void {
    if (this.#isDone) return;
    const { connection } = link;
    if (connection === undefined) return this.onRetry();
    this.#link = link;
    connection.start(this);
    const unsent = this.#unsent;
    this.#unsent = [];
    unsent.forEach((bytes, i) => {
      connection.send(this, bytes, this.#endsAfterUnsent && i === unsent.length - 1);
    });
  }

  onUnreachable(): void {
    this.cancel(this.#caller.notConnected(this.endpoint));
  }

  send(request: I, last = false): void {
    if (this.#isDone) return;
    const bytes = this.#method.request.encode(request);
    if (this.connection !== null) return this.connection.send(this, bytes, last);
    this.#unsent.push(bytes);
    this.#endsAfterUnsent = last;
  }

  /** No more messages are delivered, nor accepted beyond the window, until `resume`. */
  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.connection?.resume(this);
  }

  onMessage(bytes: Uint8Array): void {
    let message: O;
    try {
      message = this.#method.response.decode(bytes);
    } catch (error) {
      return this.cancel(new RpcError(Code.INTERNAL, messageOf(error)));
    }
    this.#handler.onMessage(message);
  }

  onEnd(code: number, details: string, reached: Reached): void {
    if (this.#isDone) return;
    const { tokens } = this.#caller;
    if (code === Code.UNAVAILABLE || code === Code.DEADLINE_EXCEEDED) this.#link?.avoid();
    // The next stream needs a new token.
    if (reached === "yes" && tokens?.isRefusal(this.head.path, code, details)) tokens.forget();
    this.#finish();
    this.#handler.onEnd(code === Code.OK ? undefined : new RpcError(code, details));
  }

  onDeadline(): void {
    const text = this.connection === null ? undefined : "the deadline of the stream has passed";
    this.cancel(
      text === undefined ? this.#caller.notConnected(this.endpoint) : new RpcError(Code.DEADLINE_EXCEEDED, text),
    );
  }

  /** Ends the stream. With an error the handler is told. */
  cancel(error?: unknown): void {
    if (this.#isDone) return;
    this.#finish();
    this.connection?.drop(this);
    if (error !== undefined) this.#handler.onEnd(error);
  }

  /** Ends the stream; others prefer another member for a while. */
  leaveMember(): void {
    this.#link?.avoid();
    this.cancel();
  }

  readonly #onAbort = (): void => this.cancel(this.#options?.signal?.reason);

  #headNow(): CallHead {
    const timeoutMs = this.#options?.timeoutMs ?? Number.POSITIVE_INFINITY;
    return this.#caller.headOf(this.#method.path, timeoutMs, this.#options?.requireLeader, this.#options?.token);
  }

  #finish(): void {
    this.#isDone = true;
    this.#options?.signal?.removeEventListener("abort", this.#onAbort);
    this.#caller.deadlines.remove(this);
    this.#caller.links.forget(this);
    this.#caller.untrack(this);
  }
}
