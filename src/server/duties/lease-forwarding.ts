import type { Clock } from "../../base/clock.ts";
import { Code } from "../../base/grpc-codes.ts";
import { othersTurn } from "../../base/others-turn.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { fromByteString } from "../../mvcc/model/types.ts";
import { toEtcdError } from "../apply/apply.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { PeerAddress, PeerClient, PeerLease } from "../contract/network.ts";
import type { Read } from "../log/read-queue.ts";

export interface LeaseForwardingOptions {
  readonly clock: Clock;
  readonly lessor: Pick<Lessor, "renew" | "lookup" | "timeToLive">;
  readonly cluster: Pick<Cluster, "member">;
  readonly peerClient: Pick<PeerClient, "renewLease" | "leaseTimeToLive">;
  readonly server: LeaseServer;
  readonly isStopped: () => boolean;
  /** False after this process has stood still. */
  readonly isSteady: () => boolean;
  /** Calls back when everything is applied that is committed now, or with an error. */
  readonly whenApplied: (done: (error: EtcdError | null) => void) => void;
  /** For everything until the answer. */
  readonly timeoutMs: number;
  /** The gate FastLeaseKeepAlive: a lease that is known here is renewed without waiting for what is not applied yet. */
  readonly fastKeepAlive: boolean;
}

export interface LeaseServer {
  readonly isLeader: boolean;
  /** 0n when there is none. */
  readonly leader: bigint;
  /** What is not applied yet nobody knows of. */
  readonly canReadNow: boolean;
  read(read: Read): void;
}

export type Renewed = (error: EtcdError | null, ttl: number) => void;

/** Source: etcd `server/etcdserver/v3_server.go`, LeaseRenew. */
const RETRY_MS = 50;
const FORWARDED_MAX = 10_000;
/** Keys that one turn copies for an answer. */
const KEYS_A_SLICE = 5_000;

/**
 * Leases live at the leader: renewals and questions about them do not pass the log. The leader serves its own; any other
 * member asks the leader, again and again until it answers or the time is over.
 */
export class LeaseForwarding {
  readonly #options: LeaseForwardingOptions;
  #forwarded = 0;

  constructor(options: LeaseForwardingOptions) {
    this.#options = options;
  }

  /**
   * Renews a lease; gets its TTL in seconds. `permitted` is asked before each attempt; what it returns is the error.
   * errors.leaseNotFound says that there is no such lease.
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

  /** Renews a lease for another member, which takes this one for the leader. Gets an EtcdError, or the lessor's. */
  renewForPeer(id: bigint, done: (error: Error | EtcdError | null, ttl: number) => void): void {
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

  /** Undefined when there is no such lease. Rejects with an EtcdError. */
  async timeToLive(id: bigint, withKeys: boolean): Promise<PeerLease | undefined> {
    const { server, peerClient } = this.#options;
    if (server.isLeader) return this.timeToLiveHere(id, withKeys);
    try {
      return await this.#askLeader((leader) => peerClient.leaseTimeToLive(leader, id, withKeys), noCheck);
    } catch (error) {
      if (error === errors.leaseNotFound) return undefined;
      throw error;
    }
  }

  /**
   * A member whose process stood still may have been replaced without knowing it, and its successor knows nothing of what it
   * renews. Then the client is told, so that it asks another member. etcd looks at the age of the last tick only, which is
   * new again when the process goes on.
   */
  #ensureLeadership(then: (error: EtcdError | null) => void): void {
    const { server, isSteady } = this.#options;
    if (isSteady()) then(null);
    else server.read({ serve: (error) => then(error !== null || !server.isLeader ? notPrimary : null) });
  }

  #renewHere(id: bigint, permitted: () => EtcdError | null, done: Renewed): void {
    const { lessor, fastKeepAlive } = this.#options;
    // A lease that is not known may be on its way through the log.
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
   * A member that was replaced as the leader without knowing it, after a pause or behind a partition, knows nothing of what
   * was granted since: that there is no such lease may be said only by one that leads for sure. Otherwise a client would
   * give up a lease that lives. etcd does not ask.
   */
  #confirm(
    id: bigint,
    error: Error | null,
    ttl: number,
    done: (error: Error | EtcdError | null, ttl: number) => void,
  ): void {
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
      (ttl) => done(null, ttl),
      (error: unknown) => done(error instanceof EtcdError ? error : new EtcdError(Code.UNKNOWN, `${error}`), -1),
    );
  }

  /**
   * What this member, as the leader, knows of a lease. That it is missing, or over, is said only when it leads for sure:
   * a successor that it does not know of may have granted or renewed it. Rejects with an EtcdError.
   */
  async timeToLiveHere(id: bigint, withKeys: boolean): Promise<PeerLease | undefined> {
    const { lessor, server } = this.#options;
    await this.#applied(withKeys);
    let found = lessor.timeToLive(id);
    if (found === undefined || found.ttl <= 0) {
      await new Promise<void>((resolve, reject) =>
        server.read({ serve: (error) => (error === null ? resolve() : reject(errors.leaderChanged)) }),
      );
      found = lessor.timeToLive(id);
      if (found === undefined) return undefined;
    }
    if (found.demoted) throw errors.leaderChanged;
    const { ttl, grantedTtl } = found;
    return { ttl, grantedTtl, keys: withKeys ? await this.#keysOf(id) : [] };
  }

  /** The keys of a lease as they are now, copied in slices. */
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

  /** While an entry takes many turns to be applied, the keys of a lease may be those of neither before nor after. */
  #applied(withKeys: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error: EtcdError | null): void => (error === null ? resolve() : reject(error));
      if (withKeys) this.#options.whenApplied(done);
      else this.#whenReadable(done);
    });
  }

  #whenReadable(done: (error: EtcdError | null) => void): void {
    if (this.#options.server.canReadNow) done(null);
    else this.#options.whenApplied(done);
  }

  /** The leader's answer; its EtcdErrors are answers too. Rejects with an EtcdError when the time is over. */
  async #askLeader<T>(ask: (leader: PeerAddress) => Promise<T>, permitted: () => EtcdError | null): Promise<T> {
    if (this.#forwarded >= FORWARDED_MAX) throw errors.tooManyRequests;
    const { clock, isStopped, timeoutMs } = this.#options;
    const deadlineMs = clock.nowMs() + timeoutMs;
    this.#forwarded++;
    try {
      for (;;) {
        const leader = this.#leader();
        if (leader !== undefined) {
          const denied = permitted();
          if (denied !== null) throw denied;
          try {
            return await this.#before(deadlineMs, ask(leader));
          } catch (error) {
            if (error instanceof EtcdError) throw error;
          }
        }
        if (isStopped()) throw errors.stopped;
        if (clock.nowMs() >= deadlineMs) throw leader === undefined ? errors.noLeader : errors.timeout;
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

  /** The outcome, or errors.timeout at the deadline. */
  #before<T>(deadlineMs: number, outcome: Promise<T>): Promise<T> {
    const { clock } = this.#options;
    return new Promise((resolve, reject) => {
      const timer = clock.after(Math.max(deadlineMs - clock.nowMs(), 0), () => reject(errors.timeout));
      outcome.then(resolve, reject).finally(() => timer.cancel());
    });
  }
}

const noCheck = (): null => null;

/** What a client is told that renews at a leader which is none any more. The text is etcd's. */
const notPrimary = new EtcdError(Code.UNKNOWN, "not a primary lessor");

const codeOf = (error: Error): string | undefined => (error as { code?: string }).code;

function renewalError(error: Error | EtcdError): EtcdError {
  if (error instanceof EtcdError) return error;
  if (codeOf(error) === "ERR_LESSOR_BUSY") return errors.tooManyRequests;
  if (codeOf(error) === undefined) return new EtcdError(Code.UNAVAILABLE, error.message);
  return toEtcdError(error);
}
