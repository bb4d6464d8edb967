import type { Clock } from "../../base/clock.ts";
import { codeOf } from "../../base/errors.ts";
import { Code } from "../../base/grpc-codes.ts";
import { othersTurn } from "../../base/others-turn.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { fromByteString } from "../../mvcc/model/types.ts";
import { toEtcdError } from "../apply/apply.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { PeerAddress, PeerClient, PeerLease } from "../contract/network.ts";
import { type Read, readIndex } from "../log/read-queue.ts";

export interface LeaseForwardingOptions {
  readonly clock: Clock;
  readonly lessor: Pick<Lessor, "renew" | "lookup" | "timeToLive">;
  readonly cluster: Pick<Cluster, "member">;
  readonly peerClient: Pick<PeerClient, "renewLease" | "leaseTimeToLive">;
  readonly server: LeaseServer;
  readonly isStopped: () => boolean;
  /** False after a pause of this process. */
  readonly isSteady: () => boolean;
  /** Calls back when all currently committed entries are applied, or with an error. */
  readonly whenApplied: (done: (error: EtcdError | null) => void) => void;
  /** For everything until the answer. */
  readonly timeoutMs: number;
  /** The feature gate FastLeaseKeepAlive: a lease known here is renewed without waiting for unapplied entries. */
  readonly fastKeepAlive: boolean;
}

export interface LeaseServer {
  readonly isLeader: boolean;
  /** 0n for none. */
  readonly leader: bigint;
  /** True if entries that are not applied yet are unknown to every client. */
  readonly canReadNow: boolean;
  read(read: Read): void;
}

export type Renewed = (error: EtcdError | null, ttl: number) => void;

/** Source: etcd `server/etcdserver/v3_server.go`, LeaseRenew. */
const RETRY_MS = 50;
const FORWARDED_MAX = 10_000;
/** Keys copied for an answer in one turn. */
const KEYS_A_SLICE = 5_000;

/**
 * Leases live at the leader: renewals and queries do not go through the log. The leader serves its own; any other
 * member asks the leader, repeatedly until it answers or the time is up.
 */
export class LeaseForwarding {
  readonly #options: LeaseForwardingOptions;
  #forwarded = 0;

  constructor(options: LeaseForwardingOptions) {
    this.#options = options;
  }

  /**
   * Renews a lease; returns its TTL in seconds. `permitted` is called before each attempt; its result is the error.
   * errors.leaseNotFound means that there is no such lease.
   */
  renew(id: bigint, permitted: () => EtcdError | null, done: Renewed): void {
    if (!this.#options.server.isLeader) this.#forwardRenewal(id, permitted, done);
    else {
      this.#ensureLeadership((error) => {
        if (error !== null) done(error, -1);
        else this.#renewHere(id, permitted, done);
      });
    }
  }

  /** Renews a lease for another member that considers this one leader. Reports an EtcdError, or the lessor's error. */
  renewForPeer(id: bigint, done: (error: Error | null, ttl: number) => void): void {
    const { lessor } = this.#options;
    this.#whenReadable((waitError) => {
      if (waitError !== null) done(waitError, -1);
      else {
        this.#ensureLeadership((error) => {
          if (error !== null) done(error, -1);
          else lessor.renew(id, (refusal, ttl) => this.#confirm(id, refusal, ttl, done));
        });
      }
    });
  }

  /** The remaining time of a lease; errors.leaseNotFound when there is no such lease. */
  timeToLive(id: bigint, withKeys: boolean): Promise<PeerLease | EtcdError> {
    const { server, peerClient } = this.#options;
    if (server.isLeader) return this.timeToLiveHere(id, withKeys);
    return this.#askLeader((leader) => peerClient.leaseTimeToLive(leader, id, withKeys), noCheck);
  }

  /**
   * A member whose process paused may have been replaced as leader without knowing it, and its successor does not know
   * of its renewals. Then the client gets an error, so that it asks another member. etcd only checks the age of the
   * last tick, which is new again as soon as the process continues.
   */
  #ensureLeadership(then: (error: EtcdError | null) => void): void {
    const { server, isSteady } = this.#options;
    if (isSteady()) then(null);
    else server.read({ serve: (error) => then(error !== null || !server.isLeader ? notPrimary : null) });
  }

  #renewHere(id: bigint, permitted: () => EtcdError | null, done: Renewed): void {
    const { lessor, fastKeepAlive } = this.#options;
    // The grant of an unknown lease may still be in the log.
    if (fastKeepAlive && lessor.lookup(id) !== undefined) this.#renewNow(id, permitted, done);
    else {
      this.#whenReadable((error) => {
        if (error !== null) done(error, -1);
        else this.#renewNow(id, permitted, done);
      });
    }
  }

  #renewNow(id: bigint, permitted: () => EtcdError | null, done: Renewed): void {
    const denied = permitted();
    if (denied !== null) {
      done(denied, -1);
      return;
    }
    this.#options.lessor.renew(id, (error, ttl) => {
      if (error !== null && codeOf(error) === "ERR_LESSOR_NOT_PRIMARY") this.#forwardRenewal(id, permitted, done);
      else this.#confirm(id, error, ttl, (refusal) => done(refusal && renewalError(refusal), ttl));
    });
  }

  /**
   * A member that was replaced as leader without knowing it, after a pause or in a partition, does not know of later
   * grants: only a confirmed leader may answer that a lease does not exist. Otherwise a client would give up a live
   * lease. etcd does not confirm.
   */
  #confirm(id: bigint, error: Error | null, ttl: number, done: (error: Error | null, ttl: number) => void): void {
    if (error === null || codeOf(error) !== "ERR_LEASE_NOT_FOUND") done(error, ttl);
    else {
      const { lessor, server } = this.#options;
      server.read({
        serve: (readError) => {
          const isMissing = readError === null && lessor.lookup(id) === undefined;
          done(isMissing ? errors.leaseNotFound : notPrimary, -1);
        },
      });
    }
  }

  #forwardRenewal(id: bigint, permitted: () => EtcdError | null, done: Renewed): void {
    const { peerClient } = this.#options;
    this.#askLeader((leader) => peerClient.renewLease(leader, id), permitted).then(
      (ttl) => (ttl instanceof EtcdError ? done(ttl, -1) : done(null, ttl)),
      (error: unknown) => done(new EtcdError(Code.UNKNOWN, `${error}`), -1),
    );
  }

  /**
   * The lease as this leader knows it. It answers that a lease is missing or expired only as confirmed leader: an
   * unknown successor may have granted or renewed it.
   */
  async timeToLiveHere(id: bigint, withKeys: boolean): Promise<PeerLease | EtcdError> {
    const { lessor, server } = this.#options;
    const late = await this.#applied(withKeys);
    if (late !== null) return late;
    let found = lessor.timeToLive(id);
    if (found === undefined || found.ttl <= 0) {
      const error = await readIndex(server);
      if (error !== null) return errors.leaderChanged;
      found = lessor.timeToLive(id);
      if (found === undefined) return errors.leaseNotFound;
    }
    if (found.demoted) return errors.leaderChanged;
    const { ttl, grantedTtl } = found;
    return { ttl, grantedTtl, keys: withKeys ? await this.#keysOf(id) : [] };
  }

  /** The current keys of a lease, copied in slices. */
  async #keysOf(id: bigint): Promise<Uint8Array[]> {
    const { lessor, clock } = this.#options;
    const names = [...(lessor.lookup(id)?.keys() ?? [])];
    const keys: Uint8Array[] = [];
    for (const name of names) {
      keys.push(fromByteString(name));
      if (keys.length % KEYS_A_SLICE === 0) await othersTurn(clock);
    }
    return keys;
  }

  /** While an entry is being applied over many turns, the keys of a lease may be neither the old nor the new ones. */
  #applied(withKeys: boolean): Promise<EtcdError | null> {
    return new Promise((resolve) => {
      if (withKeys) this.#options.whenApplied(resolve);
      else this.#whenReadable(resolve);
    });
  }

  #whenReadable(done: (error: EtcdError | null) => void): void {
    if (this.#options.server.canReadNow) done(null);
    else this.#options.whenApplied(done);
  }

  /** The leader's answer, including its EtcdErrors; an EtcdError when the time is up. */
  async #askLeader<T>(
    ask: (leader: PeerAddress) => Promise<T>,
    permitted: () => EtcdError | null,
  ): Promise<T | EtcdError> {
    if (this.#forwarded >= FORWARDED_MAX) return errors.tooManyRequests;
    const { clock, isStopped, timeoutMs } = this.#options;
    const deadlineMs = clock.nowMs() + timeoutMs;
    this.#forwarded++;
    try {
      for (;;) {
        const leader = this.#leader();
        if (leader !== undefined) {
          const denied = permitted();
          if (denied !== null) return denied;
          try {
            return await this.#before(deadlineMs, ask(leader));
          } catch (error) {
            if (error instanceof EtcdError) return error;
          }
        }
        if (isStopped()) return errors.stopped;
        if (clock.nowMs() >= deadlineMs) return leader === undefined ? errors.noLeader : errors.timeout;
        await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve));
      }
    } finally {
      this.#forwarded--;
    }
  }

  #leader(): PeerAddress | undefined {
    const { cluster, server } = this.#options;
    const member = cluster.member(server.leader);
    return member === undefined ? undefined : { id: member.id, urls: member.peerUrls };
  }

  /** The outcome; rejects with errors.timeout at the deadline. */
  #before<T>(deadlineMs: number, outcome: Promise<T>): Promise<T> {
    const { clock } = this.#options;
    return new Promise((resolve, reject) => {
      const timer = clock.after(Math.max(deadlineMs - clock.nowMs(), 0), () => reject(errors.timeout));
      outcome.then(resolve, reject).finally(() => timer.cancel());
    });
  }
}

const noCheck = (): null => null;

/** The error for a client that renews at a former leader. The text is etcd's. */
const notPrimary = new EtcdError(Code.UNKNOWN, "not a primary lessor");

function renewalError(error: Error): EtcdError {
  if (error instanceof EtcdError) return error;
  if (codeOf(error) === "ERR_LESSOR_BUSY") return errors.tooManyRequests;
  if (codeOf(error) === undefined) return new EtcdError(Code.UNAVAILABLE, error.message);
  return toEtcdError(error);
}
