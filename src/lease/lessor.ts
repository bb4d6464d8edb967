import type { Clock, Timer } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { SliceBudget } from "../base/slice-budget.ts";
import type { Backend } from "../mvcc/backend/backend.ts";
import type { ByteString, LeaseAttachments } from "../mvcc/model/types.ts";
import type { Lease as LeaseRecord } from "../proto/leasepb.ts";
import { type Checkpointer, Checkpoints } from "./checkpoints.ts";
import { LessorError } from "./errors.ts";
import { Lease, type RenewCallback } from "./lease.ts";
import { deleteLease, type LeaseBackend, putLease, readLeases } from "./lease-bucket.ts";
import { LeaseQueue } from "./lease-queue.ts";
import { PileUp } from "./pile-up.ts";
import { WaitingRenewals } from "./waiting-renewals.ts";

/**
 * Owns the leases of a member: which exist, which keys are attached to each, and, while this member is the leader (the
 * lessor is *primary*), when each expires.
 *
 * Only the apply loop calls grant, revoke, checkpoint, attach and detach, so all members agree about them. Only the
 * primary keeps time: it reports expired leases (`expired()`), the server proposes the revocations, and a lease ends
 * when its revocation is applied. A lease never expires early; a new primary restarts every lease, extended by one
 * election timeout, because it does not know when the old one last renewed it.
 *
 * Does not propose or send anything itself. Semantics: etcd v3.7, server/lease/lessor.go.
 */
export class Lessor implements LeaseAttachments {
  readonly #clock: Clock;
  readonly #minTtl: number;
  readonly #retryIntervalMs: number;
  readonly #persistCheckpoints: () => boolean;
  readonly #revokeRate: number;
  readonly #onExpired: () => void;

  #backend: LeaseBackend;
  #leases = new Map<bigint, Lease>();
  #owners = new Map<ByteString, Lease>();

  #primary = false;
  /** The promotion in progress. */
  #promotion: Promotion | null = null;
  #byExpiry = new LeaseQueue();
  readonly #checkpoints: Checkpoints;
  readonly #waiting: WaitingRenewals;
  /** Revoked leases that are still in `#byExpiry`. */
  #goneCount = 0;

  #reported: Lease[] = [];
  #windowStartMs = Number.NEGATIVE_INFINITY;
  #windowCount = 0;

  #timer: Timer | undefined = undefined;
  #timerAtMs = 0;
  #lastRunMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  grantedTotal = 0;
  revokedTotal = 0;
  renewedTotal = 0;

  /** It has no leases until `recover` has loaded those of a backend. */
  constructor(options: LessorOptions) {
    this.#clock = options.clock;
    this.#backend = options.backend;
    this.#minTtl = options.minTtl;
    this.#checkpoints = new Checkpoints(options.checkpointIntervalMs ?? 5 * 60_000, options.logger, () => this.#arm());
    this.#retryIntervalMs = options.expiredRetryIntervalMs ?? 3_000;
    this.#persistCheckpoints = options.persistCheckpoints ?? (() => true);
    this.#revokeRate = options.revokeRate ?? 10_000;
    this.#waiting = new WaitingRenewals(options.waitingRenewalsMax ?? 100_000);
    this.#onExpired = options.onExpired ?? (() => {});
  }

  get primary(): boolean {
    return this.#primary;
  }

  get count(): number {
    return this.#leases.size;
  }

  /** Enables checkpoints of long leases (with null, disables them). */
  setCheckpointer(checkpointer: Checkpointer | null): void {
    this.#checkpoints.checkpointer = checkpointer;
  }

  /**
   * Applies a LeaseGrant. `ttl` in seconds is raised to the minimum. Throws LessorError: ERR_LEASE_NOT_FOUND for id 0n,
   * ERR_LEASE_TTL_TOO_LARGE, ERR_LEASE_EXISTS.
   */
  grant(id: bigint, ttl: number): Lease {
    if (id === 0n) throw new LessorError("ERR_LEASE_NOT_FOUND");
    if (ttl > LEASE_TTL_MAX) throw new LessorError("ERR_LEASE_TTL_TOO_LARGE");
    if (this.#leases.has(id)) throw new LessorError("ERR_LEASE_EXISTS");
    const lease = new Lease(id, Math.max(ttl, this.#minTtl), 0);
    this.#leases.set(id, lease);
    putLease(this.#backend, id, lease.ttl, 0);
    this.grantedTotal++;
    if (this.#primary) {
      lease.expiryMs = this.#clock.nowMs() + lease.ttl * 1000;
      this.#byExpiry.push(lease.expiryMs, lease);
      this.#checkpoints.schedule(lease, this.#clock.nowMs());
      this.#arm();
    }
    return lease;
  }

  /**
   * Applies a LeaseRevoke. `deleteKeys` gets the attached keys in the order in which every member must delete them, all
   * in one write transaction; without keys it is not called, and no revision is made. Throws LessorError
   * ERR_LEASE_NOT_FOUND.
   */
  revoke(id: bigint, deleteKeys: (keys: readonly ByteString[]) => void): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) throw new LessorError("ERR_LEASE_NOT_FOUND");
    // The record is deleted before the transaction ends, so that no backend batch has only one of the two.
    deleteLease(this.#backend, id);
    const keys = lease.sortedKeys();
    if (keys.length > 0) deleteKeys(keys);
    for (const key of lease.sortedKeys()) this.#owners.delete(key);
    this.#leases.delete(id);
    lease.revoked = true;
    this.revokedTotal++;
    if (this.#primary) this.#sweep();
    this.#waiting.end(lease, "ERR_LEASE_NOT_FOUND");
  }

  /**
   * Detaches all keys of a lease, for a caller that has deleted them without detaching each. It yields when the budget is
   * spent: the caller, whose transaction is open, ends the slice and refills it.
   */
  *forgetKeys(id: bigint, budget: SliceBudget): Generator<void, void, void> {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    for (const key of lease.keys()) {
      if (budget.isSpent) yield;
      budget.spend(SPENT_FOR_A_KEY, 0);
      this.#owners.delete(key);
    }
    lease.forgetKeys();
  }

  /** Applies one checkpoint: the seconds the lease has left, 0 to clear an earlier one. Unknown leases are ignored. */
  checkpoint(id: bigint, remainingTtl: number): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.remainingTtl = remainingTtl;
    if (this.#persistCheckpoints()) putLease(this.#backend, id, lease.ttl, remainingTtl);
    if (this.#primary) {
      this.#checkpoints.schedule(lease, this.#clock.nowMs());
      this.#arm();
    }
  }

  /**
   * Restarts the time of a lease. `done` is called once, before `renew` returns unless the lease has expired (then when
   * its revocation is applied or this lessor is demoted) or has a checkpoint to clear (then when that is applied).
   * Errors: LessorError ERR_LESSOR_NOT_PRIMARY, ERR_LEASE_NOT_FOUND, ERR_LESSOR_BUSY, or the checkpointer's.
   */
  renew(id: bigint, done: RenewCallback): void {
    const lease = this.#leases.get(id);
    const { checkpointer } = this.#checkpoints;
    if (checkpointer === null || lease === undefined || lease.remainingTtl <= 0 || !this.#isRunning(lease)) {
      this.#renewNow(id, done);
      return;
    }
    checkpointer([{ id, remainingTtl: 0 }], (error) => {
      if (error !== null) done(error, -1);
      else this.#renewNow(id, done);
    });
  }

  /** The lease, or undefined. Read only. */
  lookup(id: bigint): Lease | undefined {
    return this.#leases.get(id);
  }

  /** All current leases, in a new array. Read only. */
  all(): Lease[] {
    return [...this.#leases.values()];
  }

  /** Ids by ascending remaining time, as LeaseLeases lists them. */
  leases(): bigint[] {
    const all = [...this.#leases.values()];
    if (this.#primary) all.sort(byExpiry);
    return all.map((lease) => lease.id);
  }

  /** The answer to LeaseTimeToLive; undefined when there is no such lease. */
  timeToLive(id: bigint): TimeToLive | undefined {
    const lease = this.#leases.get(id);
    if (lease === undefined) return undefined;
    const demoted = !this.#primary;
    const ttl = demoted ? lease.ttl : Math.trunc((this.#expiryOf(lease) - this.#clock.nowMs()) / 1000);
    return { demoted, ttl: ttl === 0 ? 0 : ttl, grantedTtl: lease.ttl };
  }

  /** The keys attached to the lease, ascending; empty when there is no such lease. */
  keysOf(id: bigint): ByteString[] {
    return this.#leases.get(id)?.sortedKeys() ?? [];
  }

  get isEmpty(): boolean {
    return this.#owners.size === 0;
  }

  leaseOf(key: ByteString): bigint {
    return this.#owners.get(key)?.id ?? 0n;
  }

  attach(id: bigint, key: ByteString): boolean {
    const lease = this.#leases.get(id);
    if (lease === undefined) return false;
    const owner = this.#owners.get(key);
    if (owner === lease) return true;
    owner?.removeKey(key);
    lease.addKey(key);
    this.#owners.set(key, lease);
    return true;
  }

  detach(id: bigint, key: ByteString): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.removeKey(key);
    if (this.#owners.get(key) === lease) this.#owners.delete(key);
  }

  /**
   * Makes this lessor primary and starts the time. Every lease gets its full (or checkpointed) time plus `extendMs`
   * (the election timeout). If too many would expire together to be revoked in time, their expiries are spread.
   */
  promote(extendMs: number): void {
    if (this.#primary) this.demote();
    this.#primary = true;
    this.#promotion = { nowMs: this.#clock.nowMs(), extendMs, steps: this.#startAgain() };
    this.#goOnPromoting(this.#promotion);
  }

  /** A few leases are done at once; many take several turns, during which the remaining ones do not expire. */
  #goOnPromoting(promotion: Promotion): void {
    if (this.#promotion !== promotion) return;
    if (promotion.steps.next().done === true) {
      this.#promotion = null;
      this.#arm();
    } else this.#clock.defer(() => this.#goOnPromoting(promotion));
  }

  *#startAgain(): Generator<void, void, void> {
    const leases = this.all();
    // Their remaining times are whole seconds, so they are sorted without comparisons.
    const bySeconds = new Map<number, Lease[]>();
    let count = 0;
    for (const lease of leases) {
      const { secondsLeft } = lease;
      const others = bySeconds.get(secondsLeft);
      if (others === undefined) bySeconds.set(secondsLeft, [lease]);
      else others.push(lease);
      if (++count % PROMOTED_AT_ONCE === 0) yield;
    }
    const { nowMs, extendMs } = this.#promotion!;
    const pileUp = leases.length >= this.#revokeRate ? new PileUp(this.#revokeRate, nowMs, extendMs) : null;
    for (const secondsLeft of [...bySeconds.keys()].sort((a, b) => a - b)) {
      const expiryMs = nowMs + extendMs + secondsLeft * 1000;
      for (const lease of bySeconds.get(secondsLeft)!) {
        this.#start(lease, pileUp === null ? expiryMs : pileUp.spread(expiryMs, secondsLeft));
        if (++count % PROMOTED_AT_ONCE === 0) yield;
      }
    }
  }

  /** Starts the time of a lease, unless it was revoked or renewed since the promotion began. */
  #start(lease: Lease, expiryMs: number): void {
    if (lease.revoked) return;
    const isRenewed = lease.expiryMs !== Number.POSITIVE_INFINITY;
    lease.expiryMs = isRenewed ? Math.max(lease.expiryMs, expiryMs) : expiryMs;
    this.#byExpiry.push(lease.expiryMs, lease);
    if (lease.checkpointMs === Number.POSITIVE_INFINITY) this.#checkpoints.schedule(lease, this.#promotion!.nowMs);
  }

  /** Ends the time: this member is no longer leader, and waiting renewals must go to the new leader. */
  demote(): void {
    this.#primary = false;
    this.#promotion = null;
    this.#reported = [];
    this.#byExpiry.clear();
    this.#checkpoints.clear();
    this.#goneCount = 0;
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const lease of this.#leases.values()) {
      lease.expiryMs = Number.POSITIVE_INFINITY;
      lease.checkpointMs = Number.POSITIVE_INFINITY;
      lease.reported = false;
    }
    this.#waiting.endAll(this.#leases.values(), "ERR_LESSOR_NOT_PRIMARY");
  }

  /**
   * Takes up to `max` expired leases whose revocation should be proposed. A lease not revoked within the retry interval
   * is reported again.
   */
  expired(max = 500): bigint[] {
    const ids: bigint[] = [];
    let taken = 0;
    for (; taken < this.#reported.length && ids.length < max; taken++) {
      const lease = this.#reported[taken]!;
      lease.reported = false;
      if (!lease.revoked) ids.push(lease.id);
    }
    this.#reported.splice(0, taken);
    this.#arm();
    return ids;
  }

  /**
   * Drops everything and loads the leases of a backend (at the start, and when a snapshot was installed), in slices; the
   * store attaches the keys. No lease is granted or revoked meanwhile. Throws InvariantError when a lease cannot be
   * decoded.
   */
  async recover(backend: LeaseBackend & Pick<Backend, "snapshot">): Promise<void> {
    const leases = new Map<bigint, Lease>();
    await readLeases(backend, this.#clock, (record) => leases.set(record.id, this.#stored(record)));
    const { primary } = this;
    this.demote();
    this.#backend = backend;
    this.#leases = leases;
    this.#owners = new Map();
    if (primary) this.promote(0);
  }

  /** Stops all timers and fails the waiting renewals. */
  stop(): void {
    this.demote();
    this.#stopped = true;
  }

  /** When a lease expires; for a lease that a promotion has not reached yet, the earliest time. */
  #expiryOf({ expiryMs, secondsLeft }: Lease): number {
    if (expiryMs !== Number.POSITIVE_INFINITY || this.#promotion === null) return expiryMs;
    return this.#promotion.nowMs + this.#promotion.extendMs + secondsLeft * 1000;
  }

  #stored({ id, ttl, remainingTtl }: LeaseRecord): Lease {
    return new Lease(id, Math.max(ttl, this.#minTtl), remainingTtl);
  }

  #isRunning(lease: Lease): boolean {
    return this.#primary && lease.expiryMs > this.#clock.nowMs();
  }

  #renewNow(id: bigint, done: RenewCallback): void {
    if (!this.#primary) {
      done(new LessorError("ERR_LESSOR_NOT_PRIMARY"), -1);
      return;
    }
    const lease = this.#leases.get(id);
    if (lease === undefined) {
      done(new LessorError("ERR_LEASE_NOT_FOUND"), -1);
      return;
    }
    const now = this.#clock.nowMs();
    if (lease.expiryMs <= now) {
      this.#waiting.add(lease, done);
      return;
    }
    // Its queue position may stay: too early does no harm.
    lease.expiryMs = now + lease.secondsLeft * 1000;
    this.renewedTotal++;
    done(null, lease.ttl);
  }

  /** Removes revoked leases, which would otherwise stay in the queues until their old expiry. */
  #sweep(): void {
    if (++this.#goneCount < GONE_MIN || this.#goneCount * 2 < this.#byExpiry.size) return;
    this.#goneCount = 0;
    this.#byExpiry.discard(isRevoked);
    this.#checkpoints.discard(isRevoked);
  }

  /** Sets the timer for the next due event, unless it fires early enough. */
  #arm(): void {
    if (!this.#primary || this.#stopped) return;
    const isFull = this.#reported.length >= REPORTED_MAX;
    let next = isFull ? this.#lastRunMs + this.#retryIntervalMs : this.#byExpiry.topTimeMs;
    if (this.#windowCount >= this.#revokeRate / 2) next = Math.max(next, this.#windowStartMs + WINDOW_MS);
    next = Math.min(next, this.#checkpoints.dueMs);
    if (next === Number.POSITIVE_INFINITY) return;
    // Leases that expire shortly after each other are batched a little: their revocations then share log syncs.
    next = Math.max(next, this.#lastRunMs + GATHER_MS);
    if (this.#timer !== undefined && this.#timerAtMs <= next) return;
    this.#timer?.cancel();
    this.#timerAtMs = next;
    const delay = Math.min(Math.max(next - this.#clock.nowMs(), 0), DELAY_MAX_MS);
    this.#timer = this.#clock.after(delay, () => this.#run());
  }

  #run(): void {
    this.#timer = undefined;
    const now = this.#clock.nowMs();
    this.#lastRunMs = now;
    this.#collectExpired(now);
    this.#checkpoints.propose(now);
    this.#arm();
    // Also of those that the server has not taken when it was told before.
    if (this.#reported.length > 0) this.#onExpired();
  }

  #collectExpired(now: number): void {
    if (now - this.#windowStartMs >= WINDOW_MS) {
      this.#windowStartMs = now;
      this.#windowCount = 0;
    }
    const queue = this.#byExpiry;
    while (queue.topTimeMs <= now && this.#windowCount < this.#revokeRate / 2 && this.#reported.length < REPORTED_MAX) {
      const lease = queue.top;
      if (lease.revoked) {
        queue.pop();
        this.#goneCount--;
      } else if (lease.expiryMs > now) queue.postponeTop(lease.expiryMs);
      else {
        queue.postponeTop(now + this.#retryIntervalMs);
        if (lease.reported) continue;
        lease.reported = true;
        this.#reported.push(lease);
        this.#windowCount++;
      }
    }
  }
}

/** Largest TTL in seconds that can be granted. */
export const LEASE_TTL_MAX = 9_000_000_000;

/** How often expired leases are counted against the revoke rate, and so how long a full window delays the next. */
const WINDOW_MS = 500;
const GATHER_MS = 50;
/** Expired leases waiting for the server to take them; more stay in the queue. */
const REPORTED_MAX = 8_000;
/** Node's timers overflow after 24 days. */
const DELAY_MAX_MS = 60 * 60_000;
const GONE_MIN = 1_000;
/** Leases that one turn sorts or starts. */
const PROMOTED_AT_ONCE = 5_000;
/** In rows of a budget, of which a deleted key takes one. */
const SPENT_FOR_A_KEY = 0.1;

interface Promotion {
  readonly nowMs: number;
  readonly extendMs: number;
  readonly steps: Generator<void, void, void>;
}

export interface LessorOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly backend: LeaseBackend;
  /** Smallest TTL in seconds: see `minimumLeaseTtl`. */
  readonly minTtl: number;
  /** Default 5 minutes. */
  readonly checkpointIntervalMs?: number;
  /**
   * Interval after which an expired lease that still exists is reported again; etcd uses the request timeout. Default 3
   * s.
   */
  readonly expiredRetryIntervalMs?: number;
  /** Whether checkpoints are written to the backend: from cluster version 3.6 on, or as the feature gate says. Default true. */
  readonly persistCheckpoints?: () => boolean;
  /**
   * Expired leases reported per second at most. Default 10,000: etcd's 1000 takes 97 s for 100,000 leases that end
   * together. Other requests do not wait, because few revocations are in progress at a time
   * (server/duties/leadership.ts).
   */
  readonly revokeRate?: number;
  /** Renewals of expired leases that may wait at a time. Default 100,000. */
  readonly waitingRenewalsMax?: number;
  /** Called from a timer when `expired()` has leases, and again after the retry interval while they are not taken. */
  readonly onExpired?: () => void;
}

export interface TimeToLive {
  /** True when this lessor is not (or no longer) primary: only the leader knows the time left; ask again. */
  readonly demoted: boolean;
  /** Whole seconds left; negative when the revocation is late. */
  readonly ttl: number;
  readonly grantedTtl: number;
}

/**
 * Seconds: a lease must outlive one and a half election timeouts, or the first election would expire it. Source: etcd's
 * server/etcdserver/server.go.
 */
export function minimumLeaseTtl(electionTicks: number, tickMs: number): number {
  return Math.ceil((Math.trunc((3 * electionTicks) / 2) * tickMs) / 1000);
}

const byExpiry = (a: Lease, b: Lease): number => a.expiryMs - b.expiryMs;
const isRevoked = (lease: Lease): boolean => lease.revoked;
