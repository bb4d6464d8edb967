/**
 * The connection of one command to a cluster: any of its endpoints that answers, authenticated if configured.
 *
 * Promises: a request that changes something is sent at most once. A read moves to another endpoint when its endpoint
 * is lost; any request moves when its endpoint is a learner, which refuses before doing anything. Nothing exceeds its
 * time limit. Loads the gRPC library with the first connection.
 */
import type { Clock } from "../base/clock.ts";
import { isText } from "../base/lossless-text.ts";
import type { MethodType } from "../base/protobuf.ts";
import { API_VERSION } from "../base/versions.ts";
import type { RawClient, RawStream, RpcError, TlsOptions } from "../client/raw.ts";
import { AuthService } from "../proto/etcdserverpb.ts";
import { Members } from "./dial.ts";
import { describeError, EXIT, ExitError, isFailure, isRpcError, UNAVAILABLE } from "./exit.ts";

export interface ClusterOptions {
  readonly endpoints: readonly string[];
  /** Undefined: TLS only for endpoints that ask for it, and without certificates. */
  readonly tls: TlsOptions | undefined;
  readonly auth: { readonly user: string; readonly password: string } | { readonly token: string } | undefined;
  readonly keepAliveMs: number;
  readonly keepAliveTimeoutMs: number;
  /** Milliseconds for connecting and authenticating; no separate limit when absent. */
  readonly dialTimeoutMs?: number;
  readonly requestBytesMax: number;
  /** 2 GiB when absent. */
  readonly responseBytesMax?: number;
  readonly clock: Clock;
  /** Warns a waiting user; absent for a program that waits for any obstacle and reports it itself. */
  readonly warn?: (message: string, error: string) => void;
  /** Prefix of the TLS flags; `--` when absent. */
  readonly flagPrefix?: string;
}

export interface CallLimits {
  /** Milliseconds until the call fails; no limit when absent. */
  readonly timeoutMs?: number;
  /** Fails instead of waiting for a member without a leader. */
  readonly requireLeader?: boolean;
}

export interface StreamLimits extends CallLimits {
  /** Milliseconds for finding an endpoint, for a stream that may then last. */
  readonly connectMs?: number;
}

/** Go's gRPC never pings more often, and etcd disconnects clients that do. */
const KEEP_ALIVE_MS_MIN = 10_000;
/** The longest possible timer. */
const NO_LIMIT_MS = 2 ** 31 - 1;
const RETRY_WAIT_MS = 25;
const RETRIES_MAX = 100;

/** Read-only calls. */
const READS = new Set(
  "Range MemberList Status HashKV LeaseTimeToLive LeaseLeases UserGet UserList RoleGet RoleList AuthStatus".split(" "),
);
/** After these a new token may do; or the call alone, for the users that certificates name. */
const STALE = new Set(["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"]);
const NO_USER = "etcdserver: user name is empty";
const AUTH_NOT_ENABLED = "etcdserver: authentication is not enabled";

const NOT_FOR_LEARNERS = "etcdserver: rpc not supported for learner";

export class Cluster {
  readonly endpoints: readonly string[];
  readonly #options: ClusterOptions;
  readonly #members: Members;
  /** The connection of each stream. */
  readonly #origins = new WeakMap<object, RawClient>();
  #token: string | undefined;
  /** Set once the cluster has answered that authentication is disabled. */
  #authDisabled = false;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.endpoints = options.endpoints;
    if (options.auth && "token" in options.auth) this.#token = options.auth.token;
    const { endpoints, tls, clock, keepAliveMs, keepAliveTimeoutMs, responseBytesMax } = options;
    this.#members = new Members({
      endpoints,
      tls,
      clock,
      connect: {
        keepAliveMs: Math.max(KEEP_ALIVE_MS_MIN, keepAliveMs),
        keepAliveTimeoutMs,
        clock,
        ...(responseBytesMax === undefined ? {} : { responseBytesMax }),
      },
      patient: options.warn === undefined,
      warn: options.warn ?? (() => {}),
      flagPrefix: options.flagPrefix ?? "--",
    });
  }

  /** Rejects with RpcError, or ConnectionError when no endpoint answers in time. */
  async call<I, O>(method: MethodType<I, O>, request: Partial<I>, limits: CallLimits = {}): Promise<O> {
    checkText(request);
    this.#checkSize(method, request);
    const clock = this.#options.clock;
    const deadlineMs = clock.nowMs() + (limits.timeoutMs ?? NO_LIMIT_MS);
    for (let attempt = 0; ; attempt++) {
      const client = await this.#ready(deadlineMs);
      try {
        const timeoutMs = this.#remaining(deadlineMs);
        return await client.unary(method, request, { timeoutMs, metadata: this.#metadata(limits) });
      } catch (error) {
        if (!isRpcError(error)) throw error;
        if (await this.#passOver(error, client)) continue;
        if (attempt >= RETRIES_MAX) throw error;
        if (this.#isStale(error)) this.#forgetToken();
        else if (error.code === UNAVAILABLE && READS.has(method.name)) this.moveOn();
        else throw error;
        if (attempt > 0 || error.code === UNAVAILABLE) {
          await new Promise<void>((resolve) => clock.after(RETRY_WAIT_MS, resolve));
        }
      }
    }
  }

  /** Rejects with ConnectionError when no endpoint answers in time. */
  async stream<I, O>(method: MethodType<I, O>, limits: StreamLimits = {}): Promise<RawStream<I, O>> {
    const deadlineMs = this.#options.clock.nowMs() + (limits.connectMs ?? limits.timeoutMs ?? NO_LIMIT_MS);
    const client = await this.#ready(deadlineMs);
    const limit = limits.timeoutMs === undefined ? {} : { timeoutMs: this.#remaining(deadlineMs) };
    const stream = client.stream(method, { ...limit, metadata: this.#metadata(limits) });
    this.#origins.set(stream, client);
    return stream;
  }

  /** The responses to one request, from the first endpoint that accepts it. Throws as `stream`, and RpcError. */
  async *responses<I, O>(
    method: MethodType<I, O>,
    request: Partial<I>,
    limits: CallLimits = {},
  ): AsyncGenerator<O, void, void> {
    for (;;) {
      const stream = await this.stream(method, limits);
      try {
        await stream.send(request);
        stream.end();
        yield* stream;
        return;
      } catch (error) {
        if (!isRpcError(error) || !(await this.passOver(error, stream))) throw error;
      }
    }
  }

  /** A cluster of only this endpoint, with the same settings. */
  only(endpoint: string): Cluster {
    return new Cluster({ ...this.#options, endpoints: [endpoint] });
  }

  /** New connections to the same endpoints. */
  another(): Cluster {
    return new Cluster(this.#options);
  }

  /** Milliseconds for connecting and authenticating. */
  get dialTimeoutMs(): number {
    return this.#options.dialTimeoutMs ?? NO_LIMIT_MS;
  }

  get tls(): TlsOptions | undefined {
    return this.#options.tls;
  }

  /** Leaves the current endpoint; the next call looks for another one that answers. */
  moveOn(): void {
    this.#members.moveOn();
  }

  /**
   * Whether the refused stream may be opened at another endpoint, because the first is a learner. Switches to the next
   * one.
   */
  async passOver<I, O>(error: RpcError, stream: RawStream<I, O> | undefined): Promise<boolean> {
    const client = stream === undefined ? undefined : this.#origins.get(stream);
    return client !== undefined && this.#passOver(error, client);
  }

  /** Closes the connections; calls in progress fail. */
  close(): Promise<void> {
    return this.#members.close();
  }

  #checkSize<I, O>(method: MethodType<I, O>, request: Partial<I>): void {
    const bytes = method.request.encode(method.request.create(request)).length;
    const max = this.#options.requestBytesMax;
    if (bytes > max) {
      const text = `trying to send message larger than max (${bytes} vs. ${max})`;
      throw new ExitError(EXIT.error, `rpc error: code = ResourceExhausted desc = ${text}`);
    }
  }

  #metadata({ requireLeader }: CallLimits): Record<string, string> {
    return {
      "client-api-version": API_VERSION,
      ...(this.#token === undefined ? {} : { token: this.#token }),
      ...(requireLeader ? { hasleader: "true" } : {}),
    };
  }

  async #passOver(error: RpcError, client: RawClient): Promise<boolean> {
    return error.details === NOT_FOR_LEARNERS && (await this.#members.passOver(client, error));
  }

  /** Refused for its user's state alone: users were changed meanwhile. Source: etcd's `client/v3/retry_interceptor.go`. */
  #isStale({ details }: RpcError): boolean {
    const { auth } = this.#options;
    if (auth !== undefined && "token" in auth) return false;
    return STALE.has(details) || (details === NO_USER && this.#usesPassword);
  }

  #forgetToken(): void {
    if (this.#usesPassword) this.#token = undefined;
  }

  #remaining(deadlineMs: number): number {
    return Math.max(0, deadlineMs - this.#options.clock.nowMs());
  }

  get #usesPassword(): boolean {
    return this.#options.auth !== undefined && "user" in this.#options.auth;
  }

  /** The first endpoint that answers, with a token if needed. */
  async #ready(deadlineMs: number): Promise<RawClient> {
    if (!this.#usesPassword || this.#token !== undefined || this.#authDisabled) {
      return this.#members.ready(this.#remaining(deadlineMs));
    }
    const dialMs = this.#options.clock.nowMs() + this.dialTimeoutMs;
    try {
      return await this.#login(Math.min(deadlineMs, dialMs));
    } catch (error) {
      if (isFailure(error)) throw new ExitError(EXIT.badConnection, describeError(error));
      throw error;
    }
  }

  async #login(deadlineMs: number): Promise<RawClient> {
    const auth = this.#options.auth as { readonly user: string; readonly password: string };
    checkText(auth);
    for (;;) {
      const client = await this.#members.ready(this.#remaining(deadlineMs));
      try {
        const request = { name: auth.user, password: auth.password };
        const limits = { timeoutMs: this.#remaining(deadlineMs), metadata: this.#metadata({}) };
        this.#token = (await client.unary(AuthService.Authenticate, request, limits)).token;
        return client;
      } catch (error) {
        if (!isRpcError(error)) throw error;
        if (error.details === AUTH_NOT_ENABLED) {
          this.#authDisabled = true;
          return client;
        }
        if (!(await this.#passOver(error, client))) throw error;
      }
    }
  }
}

/** Names and passwords are text on the wire, unlike keys. Throws ExitError. */
function checkText(request: object): void {
  for (const value of Object.values(request)) {
    if (typeof value !== "string" || isText(value)) continue;
    const text = "grpc: error while marshaling: string field contains invalid UTF-8";
    throw new ExitError(EXIT.error, `rpc error: code = Internal desc = ${text}`);
  }
}
