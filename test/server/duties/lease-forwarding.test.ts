import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Lessor } from "../../../src/lease/lessor.ts";
import { type EtcdError, errors } from "../../../src/server/contract/errors.ts";
import { LeaseForwarding } from "../../../src/server/duties/lease-forwarding.ts";
import type { Read } from "../../../src/server/log/read-queue.ts";
import { MemoryBackend } from "../../harness/memory-backend.ts";
import { MemoryLogger } from "../../harness/memory-logger.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";

/** A member that believes it is leader; its reads tell whether it is. */
class Leader {
  readonly clock = new VirtualClock();
  readonly lessor: Lessor;
  readonly leases: LeaseForwarding;
  /** The result of a read index. */
  readError: EtcdError | null = null;
  steady = true;

  constructor() {
    const { clock } = this;
    const logger = new MemoryLogger();
    this.lessor = new Lessor({ clock, logger, backend: new MemoryBackend({ clock }), minTtl: 1 });
    this.lessor.promote(0);
    this.lessor.grant(1n, 10);
    this.leases = new LeaseForwarding({
      clock,
      lessor: this.lessor,
      cluster: { member: () => undefined },
      peerClient: { renewLease: unreachable, leaseTimeToLive: unreachable },
      server: { isLeader: true, leader: 1n, canReadNow: false, read: (read: Read) => read.serve(this.readError) },
      isStopped: () => false,
      isSteady: () => this.steady,
      whenApplied: (done) => done(null),
      timeoutMs: 1000,
      fastKeepAlive: true,
    });
  }

  renewForPeer(id: bigint): Promise<number | { readonly message: string }> {
    return new Promise((resolve) => this.leases.renewForPeer(id, (error, ttl) => resolve(error ?? ttl)));
  }
}

const unreachable = (): Promise<never> => Promise.reject(new Error("connection refused"));

describe("a member that may have been replaced as leader without knowing it", () => {
  test("does not report a lease as expired, which its successor may have renewed", async () => {
    const leader = new Leader();
    leader.clock.advance(11_000);
    leader.readError = errors.leaderChanged;
    assert.equal(await leader.leases.timeToLive(1n, false), errors.leaderChanged);
    leader.readError = null;
    assert.deepEqual(await leader.leases.timeToLive(1n, false), { ttl: -1, grantedTtl: 10, keys: [] });
  });

  test("does not report a lease as missing, which its successor may have granted", async () => {
    const leader = new Leader();
    leader.readError = errors.leaderChanged;
    assert.equal(await leader.leases.timeToLive(2n, false), errors.leaderChanged);
    assert.deepEqual(((await leader.renewForPeer(2n)) as EtcdError).message, "not a primary lessor");
    leader.readError = null;
    assert.equal(await leader.leases.timeToLive(2n, false), errors.leaseNotFound);
    assert.equal(await leader.renewForPeer(2n), errors.leaseNotFound);
  });

  test("renews for other members only when it is confirmed as leader", async () => {
    const leader = new Leader();
    leader.clock.advance(5000);
    leader.steady = false;
    leader.readError = errors.leaderChanged;
    assert.equal(((await leader.renewForPeer(1n)) as EtcdError).message, "not a primary lessor");
    assert.equal(leader.lessor.timeToLive(1n)?.ttl, 5, "its time goes on");
    leader.readError = null;
    assert.equal(await leader.renewForPeer(1n), 10);
    assert.equal(leader.lessor.timeToLive(1n)?.ttl, 10);
  });

  test("answers from what it knows while a lease lives", async () => {
    const leader = new Leader();
    leader.readError = errors.leaderChanged;
    leader.clock.advance(3000);
    assert.deepEqual(await leader.leases.timeToLive(1n, false), { ttl: 7, grantedTtl: 10, keys: [] });
  });
});
