/**
 * Leases, kept alive by this client.
 *
 * All leases share one stream of renewals. It goes to another member when one fails, and a lease whose time has run out
 * without an answer is lost, whatever the server thinks: its signal fires, before the server can have deleted its keys.
 */
import type { Timer } from "../base/clock.ts";
import { KvorumError } from "../base/errors.ts";
import { Code } from "../base/grpc-codes.ts";
import { type LeaseKeepAliveRequest, type LeaseKeepAliveResponse, LeaseService } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import { type LeaseId, leaseId } from "./operations.ts";
import { type CallOptions, ClientClosedError } from "./options.ts";
import { RpcError } from "./rpc-error.ts";
import type { StreamCall } from "./stream-call.ts";

/** How a lease is made. */
export interface GrantOptions extends CallOptions {
  /** The id; the server chooses one when absent. */
  readonly id?: bigint;
  /** Renews the lease until it is closed; true when absent. */
  readonly keepAlive?: boolean;
}

/** What a server says of a lease. */
export interface TimeToLive {
  readonly id: bigint;
  /** Seconds left; -1 when there is no such lease. */
  readonly ttl: number;
  /** Seconds it was granted for. */
  readonly grantedTtl: number;
  /** Its keys as stored, when they were asked for. */
  readonly keys: readonly Uint8Array[];
}

/** A lease ended, or may have, without having been closed here. */
export class LeaseLostError extends KvorumError {
  override name = "LeaseLostError";
  readonly code = "ERR_LEASE_LOST";
  /** The lease's id. */
  readonly leaseId: bigint;

  constructor(id: bigint, why: string, options?: ErrorOptions) {
    super(`lease ${id.toString(16)} is lost: ${why}`, options);
    this.leaseId = id;
  }
}

/** A renewal is sent after this share of the time to live. */
const RENEW_SHARE = 3;
/** A lease counts as lost this share of its time to live before it can be gone, at most so many milliseconds. */
const MARGIN_SHARE = 10;
const MARGIN_MAX_MS = 1000;
const RECONNECT_MS = 100;

/** A lease of this client. Close it with `await using` or `revoke`. */
export class Lease {
  readonly id: bigint;
  /** Seconds, as the server granted them. */
  ttl: number;
  /**
   * Aborted when the lease is closed or lost; `reason` is a LeaseLostError when it is lost, at a moment when the server
   * cannot have ended it yet.
   */
  readonly signal: AbortSignal;
  readonly #leases: Leases;
  readonly #abort = new AbortController();
  /** Until then the lease exists for certain. */
  #safeUntilMs: number;
  #expiry: Timer | undefined;
  #renewal: Timer | undefined;
  /** When the renewal was sent that waits for its answer. */
  #sentMs: number | undefined;

  /** @internal */
  constructor(leases: Leases, id: bigint, ttl: number, sentMs: number, keepAlive: boolean) {
    this.#leases = leases;
    this.id = id;
    this.ttl = ttl;
    this.signal = this.#abort.signal;
    this.#safeUntilMs = sentMs + safeMs(ttl);
    this.#expireLater();
    if (keepAlive) this.#renewLater();
  }

  /** Whether the lease exists for certain. */
  get isAlive(): boolean {
    return !this.signal.aborted && this.#leases.caller.clock.nowMs() < this.#safeUntilMs;
  }

  /** Milliseconds for which it certainly exists from now on, without another renewal. */
  get safeMs(): number {
    return this.signal.aborted ? 0 : Math.max(0, this.#safeUntilMs - this.#leases.caller.clock.nowMs());
  }

  /** Ends the lease and deletes its keys. */
  async revoke(options?: CallOptions): Promise<void> {
    if (this.signal.aborted) return;
    this.#close(new ClientClosedError("the lease"));
    await this.#leases.revoke(this.id, options);
  }

  /** Stops renewing it, so that it ends by itself unless somebody else renews it. */
  abandon(): void {
    this.#close(new ClientClosedError("the lease"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.revoke();
  }

  /** @internal A renewal is about to be sent. */
  sent(nowMs: number): void {
    this.#sentMs ??= nowMs;
    // A member that is silent for so long may be cut off: another one has time left to answer.
    this.#renewal?.cancel();
    this.#renewal = this.#leases.caller.clock.after((this.ttl * 1000) / RENEW_SHARE, () => this.#leases.stalled());
  }

  /** @internal The stream broke, and with it what was sent. */
  unsent(): void {
    this.#sentMs = undefined;
  }

  /** @internal The server renewed it for so many seconds, or has no such lease. */
  renewed(ttl: number): void {
    if (this.signal.aborted) return;
    if (ttl <= 0) return this.lose("the server has no such lease");
    this.ttl = ttl;
    // The server counts from when it was asked at the earliest.
    if (this.#sentMs !== undefined) this.#safeUntilMs = this.#sentMs + safeMs(ttl);
    this.#sentMs = undefined;
    this.#expireLater();
    this.#renewLater();
  }

  /** @internal */
  lose(why: string): void {
    this.#close(new LeaseLostError(this.id, why));
  }

  #close(reason: unknown): void {
    if (this.signal.aborted) return;
    this.#expiry?.cancel();
    this.#renewal?.cancel();
    this.#leases.ended(this);
    this.#abort.abort(reason);
  }

  #expireLater(): void {
    this.#expiry?.cancel();
    const { clock } = this.#leases.caller;
    const leftMs = Math.max(0, this.#safeUntilMs - clock.nowMs());
    this.#expiry = clock.after(leftMs, () => this.lose(`not renewed within its ${this.ttl} s`));
  }

  #renewLater(): void {
    this.#renewal?.cancel();
    this.#renewal = this.#leases.caller.clock.after((this.ttl * 1000) / RENEW_SHARE, () => this.#leases.renew(this));
  }
}

function safeMs(ttl: number): number {
  const ms = ttl * 1000;
  return ms - Math.min(MARGIN_MAX_MS, ms / MARGIN_SHARE);
}

/**
 * Leases, `client.leases`.
 *
 * @example
 * const { ttl } = await client.leases.timeToLive(0x1234n);
 */
export class Leases {
  readonly caller: Caller;
  readonly #alive = new Map<bigint, Lease>();
  #stream: StreamCall<LeaseKeepAliveRequest, LeaseKeepAliveResponse> | undefined;
  #reconnect: Timer | undefined;

  /** @internal */
  constructor(caller: Caller) {
    this.caller = caller;
  }

  /**
   * Makes a lease of so many seconds and renews it until it is closed.
   *
   * @example
   * await using lease = await client.leases.grant(10);
   * await client.put("workers/1", "here", { lease });
   */
  grant(ttl: number, options: GrantOptions = {}): Promise<Lease> {
    const sentMs = this.caller.clock.nowMs();
    const request = { ttl, id: options.id ?? 0n };
    return this.caller.unary(LeaseService.LeaseGrant, request, "write", options, (answer) => {
      // A server cannot have begun to count before it was asked.
      const lease = new Lease(this, answer.id, answer.ttl, sentMs, options.keepAlive ?? true);
      this.#alive.set(lease.id, lease);
      return lease;
    });
  }

  /** Renews a lease once and gives the seconds that it has; undefined when there is no such lease. */
  keepAliveOnce(lease: LeaseId, options?: CallOptions): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      const stream = this.caller.stream(
        LeaseService.LeaseKeepAlive,
        {
          onMessage: ({ ttl }) => {
            stream.cancel();
            resolve(ttl > 0 ? ttl : undefined);
          },
          onEnd: (error) => reject(error ?? new RpcError(Code.UNAVAILABLE, "the server ended the stream of renewals")),
        },
        { timeoutMs: this.caller.timeoutMs, ...options },
      );
      stream.send({ id: leaseId(lease) }, true);
    });
  }

  /** Ends a lease and deletes its keys. */
  revoke(lease: LeaseId, options?: CallOptions): Promise<void> {
    return this.caller.unary(LeaseService.LeaseRevoke, { id: leaseId(lease) }, "write", options, () => undefined);
  }

  /** How long a lease still lives, and which keys it has. */
  timeToLive(lease: LeaseId, options?: CallOptions & { readonly keys?: boolean }): Promise<TimeToLive> {
    const request = { id: leaseId(lease), keys: options?.keys ?? false };
    return this.caller.unary(LeaseService.LeaseTimeToLive, request, "read", options, (answer) => ({
      id: answer.id,
      ttl: answer.ttl,
      grantedTtl: answer.grantedTtl,
      keys: answer.keys.map((key) => new Uint8Array(key)),
    }));
  }

  /** The ids of all leases. */
  list(options?: CallOptions): Promise<readonly bigint[]> {
    return this.caller.unary(LeaseService.LeaseLeases, {}, "read", options, ({ leases }) => leases.map(({ id }) => id));
  }

  /** For `Lease`: asks the server to renew it. */
  renew(lease: Lease): void {
    lease.sent(this.caller.clock.nowMs());
    this.#open().send({ id: lease.id });
  }

  /** For `Lease`: a renewal has no answer. All go to another member. */
  stalled(): void {
    this.#stream?.leaveMember();
    this.#lost();
  }

  /** For `Lease`. */
  ended(lease: Lease): void {
    this.#alive.delete(lease.id);
    if (this.#alive.size > 0) return;
    this.#reconnect?.cancel();
    this.#reconnect = undefined;
    this.#stream?.cancel();
    this.#stream = undefined;
  }

  /** For the client: all of its leases are gone. */
  loseAll(why: string): void {
    for (const lease of [...this.#alive.values()]) lease.lose(why);
  }

  /** For the client: its leases are not renewed any more. */
  close(): void {
    for (const lease of [...this.#alive.values()]) lease.abandon();
  }

  #open(): StreamCall<LeaseKeepAliveRequest, LeaseKeepAliveResponse> {
    this.#stream ??= this.caller.stream(
      LeaseService.LeaseKeepAlive,
      {
        onMessage: ({ id, ttl }) => this.#alive.get(id)?.renewed(ttl),
        onEnd: () => this.#lost(),
      },
      { requireLeader: true },
    );
    return this.#stream;
  }

  /** The stream ended: all leases are renewed on another one, at once, because nobody knows which were. */
  #lost(): void {
    this.#stream = undefined;
    if (this.caller.closed || this.#alive.size === 0) return;
    for (const lease of this.#alive.values()) lease.unsent();
    this.#reconnect?.cancel();
    this.#reconnect = this.caller.clock.after(RECONNECT_MS, () => {
      this.#reconnect = undefined;
      for (const lease of this.#alive.values()) this.renew(lease);
    });
  }
}
