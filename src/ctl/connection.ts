/**
 * The connection of one command to a cluster: whichever of its endpoints answers, authenticated if asked.
 *
 * Promises: a request that changes something is sent at most once; a read moves on to another endpoint when one is lost;
 * nothing takes longer than its time limit. Loads the gRPC library when the first connection is made.
 */
import type { Clock } from "../base/clock.ts";
import type { MethodType } from "../base/protobuf.ts";
import type { ConnectOptions, RawClient, RawStream, TlsOptions } from "../client/raw.ts";
import { AuthService } from "../proto/etcdserverpb.ts";
import { describeError, EXIT, ExitError, isRpcError, UNAVAILABLE } from "./exit.ts";

export interface ClusterOptions {
  readonly endpoints: readonly string[];
  /** TLS for endpoints that name no scheme or a secure one. */
  readonly tls: TlsOptions | undefined;
  readonly auth: { readonly user: string; readonly password: string } | { readonly token: string } | undefined;
  readonly keepAliveMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly requestBytesMax: number;
  readonly clock: Clock;
}

export interface CallLimits {
  /** Milliseconds until the call fails; no limit when absent. */
  readonly timeoutMs?: number;
  /** Fails instead of waiting on a member that has no leader. */
  readonly requireLeader?: boolean;
}

/** Go's gRPC pings no more often, and etcd drops who does. */
const KEEP_ALIVE_MS_MIN = 10_000;
/** The longest that a timer can wait. */
const NO_LIMIT_MS = 2 ** 31 - 1;
const RETRY_WAIT_MS = 25;
const RETRIES_MAX = 100;

/** Calls that change nothing. */
const READS = new Set(
  "Range MemberList Status HashKV LeaseTimeToLive LeaseLeases UserGet UserList RoleGet RoleList AuthStatus".split(" "),
);
const INVALID_TOKEN = "etcdserver: invalid auth token";
const AUTH_NOT_ENABLED = "etcdserver: authentication is not enabled";

export class Cluster {
  readonly endpoints: readonly string[];
  readonly #options: ClusterOptions;
  #clients: Promise<RawClient[]> | undefined;
  #current: RawClient | undefined;
  #token: string | undefined;
  /** Set once the cluster said that it wants no authentication. */
  #authDisabled = false;
  #closed = false;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.endpoints = options.endpoints;
    if (options.auth && "token" in options.auth) this.#token = options.auth.token;
  }

  /** Rejects with RpcError. */
  async call<I, O>(method: MethodType<I, O>, request: Partial<I>, limits: CallLimits = {}): Promise<O> {
    this.#checkSize(method, request);
    const clock = this.#options.clock;
    const deadlineMs = clock.nowMs() + (limits.timeoutMs ?? NO_LIMIT_MS);
    let tokenTries = 0;
    for (let attempt = 0; ; attempt++) {
      const client = await this.#ready(deadlineMs);
      try {
        await this.#authenticate(client, deadlineMs);
        const timeoutMs = this.#remaining(deadlineMs);
        return await client.unary(method, request, { timeoutMs, metadata: this.#metadata(limits) });
      } catch (error) {
        if (!isRpcError(error)) throw error;
        const usesPassword = this.#options.auth && "user" in this.#options.auth;
        if (error.details === INVALID_TOKEN && usesPassword && tokenTries++ === 0) this.#token = undefined;
        else if (error.code === UNAVAILABLE && READS.has(method.name) && attempt < RETRIES_MAX) {
          this.#current = undefined;
          await new Promise<void>((resolve) => clock.after(RETRY_WAIT_MS, resolve));
        } else throw error;
      }
    }
  }

  /** Rejects with RpcError when no endpoint answers in time. */
  async stream<I, O>(method: MethodType<I, O>, limits: CallLimits = {}): Promise<RawStream<I, O>> {
    const deadlineMs = this.#options.clock.nowMs() + (limits.timeoutMs ?? NO_LIMIT_MS);
    const client = await this.#ready(deadlineMs);
    await this.#authenticate(client, deadlineMs);
    const limit = limits.timeoutMs === undefined ? {} : { timeoutMs: this.#remaining(deadlineMs) };
    return client.stream(method, { ...limit, metadata: this.#metadata(limits) });
  }

  /** A cluster of one of the endpoints, with the same settings. */
  only(endpoint: string): Cluster {
    return new Cluster({ ...this.#options, endpoints: [endpoint] });
  }

  /** Further connections to the same endpoints. */
  another(): Cluster {
    return new Cluster(this.#options);
  }

  get tls(): TlsOptions | undefined {
    return this.#options.tls;
  }

  /** Forgets the endpoint in use, so that the next call looks for one that answers. */
  moveOn(): void {
    this.#current = undefined;
  }

  /** Ends the connections; whatever is still under way fails. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const client of (await this.#clients) ?? []) client.close();
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
      ...(this.#token === undefined ? {} : { token: this.#token }),
      ...(requireLeader ? { hasleader: "true" } : {}),
    };
  }

  #remaining(deadlineMs: number): number {
    return Math.max(0, deadlineMs - this.#options.clock.nowMs());
  }

  /** The first endpoint that answers. */
  async #ready(deadlineMs: number): Promise<RawClient> {
    if (this.#closed) throw new ExitError(EXIT.badConnection, "the connection was closed");
    if (this.#current !== undefined) return this.#current;
    this.#clients ??= this.#connect();
    const clients = await this.#clients;
    const timeoutMs = this.#remaining(deadlineMs);
    try {
      this.#current = await Promise.any(clients.map((client) => client.ready(timeoutMs).then(() => client)));
      return this.#current;
    } catch {
      throw new ExitError(EXIT.error, "context deadline exceeded");
    }
  }

  async #connect(): Promise<RawClient[]> {
    const { connect } = await import("../client/raw.ts");
    const { endpoints, keepAliveMs, keepAliveTimeoutMs, clock } = this.#options;
    return endpoints.map((endpoint) => {
      const options: ConnectOptions = {
        keepAliveMs: Math.max(KEEP_ALIVE_MS_MIN, keepAliveMs),
        keepAliveTimeoutMs,
        clock,
        ...this.#tlsFor(endpoint),
      };
      try {
        return connect(endpoint, options);
      } catch (error) {
        throw new ExitError(EXIT.badArgs, error instanceof Error ? error.message : String(error));
      }
    });
  }

  /** `http://` and `unix://` say that there is no TLS, whatever the flags say. */
  #tlsFor(endpoint: string): { readonly tls?: TlsOptions } {
    const { tls } = this.#options;
    if (/^(?:http|unix):/.test(endpoint) || tls === undefined) return {};
    return { tls };
  }

  async #authenticate(client: RawClient, deadlineMs: number): Promise<void> {
    const { auth } = this.#options;
    if (this.#token !== undefined || this.#authDisabled || auth === undefined || "token" in auth) return;
    try {
      const request = { name: auth.user, password: auth.password };
      const timeoutMs = this.#remaining(deadlineMs);
      const { token } = await client.unary(AuthService.Authenticate, request, { timeoutMs });
      this.#token = token;
    } catch (error) {
      if (!isRpcError(error)) throw error;
      if (error.details !== AUTH_NOT_ENABLED) throw new ExitError(EXIT.badConnection, describeError(error));
      this.#authDisabled = true;
    }
  }
}
