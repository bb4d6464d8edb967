/**
 * Makes the calls of a client: chooses a member, adds the token, bounds each call by its deadline, and repeats what is
 * safe to repeat on another member.
 *
 * What is repeated, until the deadline: any call that certainly did not reach a server's logic (never sent, refused
 * unseen, or refused for its token); and reads, whatever became of them, as long as the server is what failed. A write
 * that may have been carried out is never sent again: it fails with `maybeApplied`.
 */
import type { Clock } from "../base/clock.ts";
import { Code } from "../base/grpc-codes.ts";
import type { MethodType } from "../base/protobuf.ts";
import type { Random } from "../base/random.ts";
import { DeadlineWheel } from "../rpc/deadlines.ts";
import { type CallOptions, ClientClosedError, type ForwardedOptions } from "./options.ts";
import { Pending } from "./pending.ts";
import { RpcError } from "./rpc-error.ts";
import type { Safety } from "./safety.ts";
import { StreamCall, type StreamHandler, type StreamOptions } from "./stream-call.ts";
import type { Tokens } from "./tokens.ts";
import { type Link, type LinkOptions, Links } from "./transport/links.ts";
import type { CallHead } from "./transport/request-encoder.ts";
import { UnaryCall } from "./unary-call.ts";

export interface CallerOptions extends LinkOptions {
  readonly timeoutMs: number;
  readonly responseBytesMax: number;
  readonly requestBytesMax: number;
  readonly pendingBytesMax: number;
}

/** A call that may be sent again. */
export interface Retry {
  onRetry(): void;
  /** Ends it instead. */
  cancel(error: unknown): void;
}

const RETRY_FIRST_MS = 20;
const RETRY_MAX_MS = 1000;
const NO_FIELDS: CallHead["fields"] = [];
/** A server that has no leader ends such a stream instead of keeping it silent. */
const REQUIRE_LEADER = ["hasleader", "true"] as const;

export class Caller {
  readonly clock: Clock;
  readonly random: Random;
  readonly links: Links;
  readonly deadlines: DeadlineWheel;
  readonly pending: Pending;
  readonly responseBytesMax: number;
  readonly timeoutMs: number;
  /** Set when the client has a user. */
  tokens: Tokens | undefined;
  closed = false;
  readonly #open = new Set<{ cancel(error: Error): void }>();
  #fields: CallHead["fields"] = NO_FIELDS;
  #token = "";
  /** The heads of calls with the usual timeout, by path. */
  #heads = new Map<string, CallHead>();

  constructor(endpoints: readonly string[], options: CallerOptions) {
    this.clock = options.clock;
    this.random = options.random;
    this.links = new Links(endpoints, options);
    this.deadlines = new DeadlineWheel(options.clock);
    this.pending = new Pending(options.pendingBytesMax, options.requestBytesMax);
    this.responseBytesMax = options.responseBytesMax;
    this.timeoutMs = options.timeoutMs;
  }

  /** One request, one response, as `convert` makes it. Rejects with RpcError, or the signal's reason. */
  unary<I, O, R>(
    method: MethodType<I, O>,
    request: I,
    safety: Safety,
    options: ForwardedOptions | undefined,
    convert: (response: O) => R,
  ): Promise<R> {
    return new Promise((resolve, reject) => {
      this.#checkEndpoint(options);
      const bytes = method.request.encode(request);
      const call = new UnaryCall(this, method, bytes, safety, options, convert, resolve, reject);
      if (this.closed) call.cancel(new ClientClosedError());
      else call.begin();
    });
  }

  /**
   * A stream to one member, which ends with its connection.
   *
   * @param requireLeader the member ends the stream when it loses its leader
   */
  stream<I, O>(method: MethodType<I, O>, handler: StreamHandler<O>, options?: StreamOptions): StreamCall<I, O> {
    this.#checkEndpoint(options);
    const call = new StreamCall(this, method, handler, options);
    if (this.closed) call.cancel(new ClientClosedError());
    else call.begin();
    return call;
  }

  /** Throws EndpointError, before anything depends on it. */
  #checkEndpoint(options: CallOptions | undefined): void {
    if (options?.endpoint !== undefined) this.links.to(options.endpoint);
  }

  /** When a call with these options must have ended. */
  deadlineOf(options: CallOptions | undefined, usualMs: number): number {
    const timeoutMs = options?.timeoutMs ?? usualMs;
    return timeoutMs === Number.POSITIVE_INFINITY ? timeoutMs : this.clock.nowMs() + timeoutMs;
  }

  /** The headers of a call, with the token given or the client's own of now. */
  headOf(path: string, timeoutMs: number, requireLeader = false, forwarded?: string): CallHead {
    if (forwarded !== undefined) {
      const fields = requireLeader ? [["token", forwarded] as const, REQUIRE_LEADER] : [["token", forwarded] as const];
      return { path, timeout: timeoutText(timeoutMs), fields };
    }
    const token = this.tokens?.token ?? "";
    if (token !== this.#token) {
      this.#token = token;
      this.#fields = token === "" ? NO_FIELDS : [["token", token]];
      this.#heads = new Map();
    }
    if (requireLeader) return { path, timeout: timeoutText(timeoutMs), fields: [...this.#fields, REQUIRE_LEADER] };
    if (timeoutMs !== this.timeoutMs) return { path, timeout: timeoutText(timeoutMs), fields: this.#fields };
    let head = this.#heads.get(path);
    if (head === undefined) {
      head = { path, timeout: timeoutText(timeoutMs), fields: this.#fields };
      this.#heads.set(path, head);
    }
    return head;
  }

  /**
   * Whether a failed call may be sent again; then `again` is called after a pause, or when there is a new token.
   * `tries` counts from 1.
   */
  retry(
    path: string,
    code: number,
    details: string,
    reached: "no" | "maybe" | "yes",
    safety: Safety,
    tries: number,
    link: Link | undefined,
    again: Retry,
  ): boolean {
    if (this.closed) return false;
    if (reached === "yes" && this.tokens?.isRefusal(path, code, details)) {
      if (tries > TOKEN_TRIES_MAX) return false;
      this.tokens.renew(again);
      return true;
    }
    // For a user that the certificate names there is no token: users were changed, and the call was not carried out.
    const isStale = reached === "yes" && this.tokens === undefined && details === USERS_CHANGED;
    if (isStale && tries > TOKEN_TRIES_MAX) return false;
    const transient =
      code === Code.UNAVAILABLE || code === Code.CANCELED || (code === Code.UNKNOWN && reached !== "yes");
    if (transient || code === Code.DEADLINE_EXCEEDED) link?.avoid();
    if (!isStale && (reached === "no" ? !transient : safety !== "read" || !transient)) return false;
    const pauseMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(tries - 1, 10));
    // Another member may serve at once.
    const waitMs = tries === 1 ? 0 : pauseMs / 2 + this.random.below(Math.ceil(pauseMs / 2));
    if (waitMs === 0) this.clock.defer(() => again.onRetry());
    else this.clock.after(waitMs, () => again.onRetry());
    return true;
  }

  /** Ended with the client. */
  track(open: { cancel(error: Error): void }): void {
    this.#open.add(open);
  }

  untrack(open: { cancel(error: Error): void }): void {
    this.#open.delete(open);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.deadlines.stop();
    for (const each of [...this.#open]) each.cancel(new ClientClosedError());
    this.pending.end();
    this.links.close("the client is closed");
  }

  /** The error of a call that found no connection in time. */
  notConnected(endpoint: string | undefined): RpcError {
    return new RpcError(Code.UNAVAILABLE, `not connected: ${this.links.problems(endpoint)}`);
  }
}

const TOKEN_TRIES_MAX = 5;
const USERS_CHANGED = "etcdserver: revision of auth store is old";

/** At most eight digits and a unit. Source: gRPC over HTTP2. */
function timeoutText(timeoutMs: number): string {
  if (timeoutMs === Number.POSITIVE_INFINITY) return "";
  const ms = Math.max(1, Math.ceil(timeoutMs));
  if (ms < 1e8) return `${ms}m`;
  const seconds = Math.ceil(ms / 1000);
  return seconds < 1e8 ? `${seconds}S` : "99999999H";
}
