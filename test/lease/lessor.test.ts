import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { nullLogger } from "../../src/base/log.ts";
import { LEASE_TTL_MAX, Lessor, type LessorOptions, minimumLeaseTtl } from "../../src/lease/lessor.ts";
import type { LeaseCheckpoint } from "../../src/proto/etcdserverpb.ts";
import { MemoryBackend, type MemoryBackendFile } from "../harness/memory-backend.ts";
import { seeded } from "../harness/random.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";
import { settled } from "../mvcc/watch-harness.ts";

interface Setup {
  clock: VirtualClock;
  backend: MemoryBackend;
  lessor: Lessor;
}

function setup(options: Partial<LessorOptions> = {}, file?: MemoryBackendFile): Setup {
  const clock = new VirtualClock();
  const backend = new MemoryBackend(file === undefined ? { clock } : { clock, file });
  const lessor = new Lessor({ clock, backend, logger: nullLogger, minTtl: 1, ...options });
  return { clock, backend, lessor };
}

/** A lessor that starts with the leases of a file. */
async function restarted(file: MemoryBackendFile, options: Partial<LessorOptions> = {}): Promise<Setup> {
  const made = setup(options, file);
  await settled(made.clock, made.lessor.recover(made.backend));
  return made;
}

function primary(options: Partial<LessorOptions> = {}): Setup {
  const made = setup(options);
  made.lessor.promote(0);
  return made;
}

/** The result of `renew`: the TTL, an error's message, or undefined while it waits. */
function renew(lessor: Lessor, id: bigint): { answer: number | string | undefined } {
  const got: { answer: number | string | undefined } = { answer: undefined };
  lessor.renew(id, (error, ttl) => {
    assert.equal(got.answer, undefined, "answered twice");
    got.answer = error === null ? ttl : error.message;
  });
  return got;
}

function remaining(lessor: Lessor, id: bigint): number {
  return lessor.timeToLive(id)!.ttl;
}

async function commit({ clock, backend }: Setup): Promise<void> {
  const committed = backend.commit();
  clock.advance(1);
  await committed;
}

function stored(backend: MemoryBackend): string[] {
  const records: string[] = [];
  backend.forEach("lease", (key, value) =>
    records.push(`${Buffer.from(key).toString("hex")} ${Buffer.from(value).toString("hex")}`),
  );
  return records;
}

describe("granting", () => {
  it("refuses id 0, an id that is taken, and a TTL above the largest", () => {
    const { lessor } = setup();
    lessor.grant(7n, 10);
    assert.throws(() => lessor.grant(0n, 10), { code: "ERR_LEASE_NOT_FOUND", message: "lease not found" });
    assert.throws(() => lessor.grant(7n, 10), { code: "ERR_LEASE_EXISTS", message: "lease already exists" });
    assert.throws(() => lessor.grant(8n, LEASE_TTL_MAX + 1), {
      code: "ERR_LEASE_TTL_TOO_LARGE",
      message: "too large lease TTL",
    });
    assert.equal(lessor.grant(9n, LEASE_TTL_MAX).ttl, 9_000_000_000);
  });

  it("raises a TTL to the smallest that outlives an election", () => {
    assert.equal(minimumLeaseTtl(10, 100), 2);
    assert.equal(minimumLeaseTtl(50, 100), 8);
    assert.equal(minimumLeaseTtl(3, 500), 2);
    const { lessor } = setup({ minTtl: 2 });
    assert.equal(lessor.grant(1n, 1).ttl, 2);
    assert.equal(lessor.grant(2n, 0).ttl, 2);
    assert.equal(lessor.grant(3n, -5).ttl, 2);
    assert.equal(lessor.grant(4n, 3).ttl, 3);
  });

  it("stores a lease in etcd's encoding", () => {
    const { lessor, backend } = setup();
    lessor.grant(0x1234n, 300);
    lessor.grant(-2n, 5);
    lessor.checkpoint(0x1234n, 100);
    assert.deepEqual(stored(backend), [
      "0000000000001234 08b42410ac021864",
      "fffffffffffffffe 08feffffffffffffffff011005",
    ]);
  });
});

describe("expiry", () => {
  it("reports a lease when its time is up, never before", () => {
    const { clock, lessor } = primary();
    lessor.grant(1n, 10);
    clock.advance(9_999.9);
    assert.deepEqual(lessor.expired(), []);
    clock.advance(0.2);
    assert.deepEqual(lessor.expired(), [1n]);
  });

  it("calls the server when there is something to revoke", () => {
    let calls = 0;
    const taken: bigint[] = [];
    const { clock, lessor } = primary({
      expiredRetryIntervalMs: 60_000,
      onExpired: () => {
        calls++;
        taken.push(...lessor.expired());
      },
    });
    lessor.grant(1n, 10);
    lessor.grant(2n, 20);
    clock.advance(10_100);
    assert.equal(calls, 1);
    clock.advance(10_000);
    assert.equal(calls, 2);
    assert.deepEqual(taken, [1n, 2n]);
  });

  it("never reports any of many leases early, whatever their order and renewals, and all within a tenth of a second", () => {
    const random = seeded(42);
    const due = new Map<bigint, number>();
    const { clock, lessor } = primary({
      onExpired: () => {
        for (const id of lessor.expired()) {
          const late = clock.nowMs() - due.get(id)!;
          assert.ok(late >= 0 && late <= 100, `lease ${id} was reported ${late} ms after it expired`);
          due.delete(id);
          lessor.revoke(id, () => assert.fail("it has no keys"));
        }
      },
    });
    let nextId = 1n;
    for (let step = 0; step < 3_000; step++) {
      if (random.chance(0.3)) {
        const ttl = 1 + random.below(40);
        due.set(nextId, clock.nowMs() + ttl * 1000);
        lessor.grant(nextId++, ttl);
      }
      if (random.chance(0.3) && due.size > 0) {
        const id = random.pick([...due.keys()]);
        const ttl = lessor.lookup(id)!.ttl;
        if (renew(lessor, id).answer === ttl) due.set(id, clock.nowMs() + ttl * 1000);
      }
      clock.advance(random.below(60));
    }
    assert.ok(nextId > 500n);
    clock.advance(60_000);
    assert.equal(due.size, 0);
    assert.equal(lessor.count, 0);
  });

  it("does not run while the lessor is not primary", () => {
    const { clock, lessor } = setup();
    lessor.grant(1n, 1);
    clock.advance(60_000);
    assert.deepEqual(lessor.expired(), []);
    assert.equal(clock.timerCount, 0);
  });

  it("is reported again when the revocation does not come", () => {
    const { clock, lessor } = primary({ expiredRetryIntervalMs: 3_000 });
    lessor.grant(1n, 1);
    clock.advance(1_000);
    assert.deepEqual(lessor.expired(), [1n]);
    clock.advance(2_900);
    assert.deepEqual(lessor.expired(), []);
    clock.advance(200);
    assert.deepEqual(lessor.expired(), [1n]);
    lessor.revoke(1n, () => {});
    clock.advance(10_000);
    assert.deepEqual(lessor.expired(), []);
  });

  it("is announced again while the server does not take it", () => {
    for (const count of [1n, 20_000n]) {
      let announced = 0;
      const onExpired = (): number => announced++;
      const { clock, lessor } = primary({ expiredRetryIntervalMs: 3_000, revokeRate: 1_000_000, onExpired });
      for (let id = 1n; id <= count; id++) lessor.grant(id, 1);
      clock.advance(1_500);
      assert.ok(announced > 0);
      const before = announced;
      clock.advance(3_500);
      assert.ok(announced > before, `${count} leases are forgotten`);
      assert.ok(announced < 100, "not all the time");
      assert.ok(lessor.expired().length > 0);
    }
  });

  it("reports at most the revoke rate", () => {
    const { clock, lessor } = primary({ revokeRate: 100 });
    for (let i = 1n; i <= 500n; i++) lessor.grant(i, 10);
    clock.advance(10_000);
    assert.equal(lessor.expired(10_000).length, 50);
    clock.advance(499);
    assert.equal(lessor.expired(10_000).length, 0);
    clock.advance(2_000);
    assert.equal(lessor.expired(10_000).length, 200);
  });

  it("stops collecting when the server takes nothing, and loses none", () => {
    const { clock, lessor } = primary({ revokeRate: 1_000_000 });
    for (let i = 1n; i <= 20_000n; i++) lessor.grant(i, 1);
    clock.advance(60_000);
    const seen = new Set<bigint>();
    for (let round = 0; round < 100 && seen.size < 20_000; round++) {
      for (const id of lessor.expired(500)) {
        seen.add(id);
        lessor.revoke(id, () => {});
      }
      clock.advance(60);
    }
    assert.equal(seen.size, 20_000);
    assert.equal(lessor.count, 0);
  });

  it("survives a TTL beyond the platform's longest timer", () => {
    const { clock, lessor } = primary();
    const days = 60;
    lessor.grant(1n, days * 86_400);
    clock.advance(days * 86_400_000 - 1);
    assert.deepEqual(lessor.expired(), []);
    clock.advance(100);
    assert.deepEqual(lessor.expired(), [1n]);
  });

  it("does not keep revoked leases until their old expiry", () => {
    const { clock, lessor } = primary();
    for (let i = 1n; i <= 10_000n; i++) {
      lessor.grant(i, LEASE_TTL_MAX);
      lessor.revoke(i, () => {});
    }
    assert.equal(lessor.count, 0);
    lessor.grant(1n, 1);
    clock.advance(1_000);
    assert.deepEqual(lessor.expired(), [1n]);
  });
});

describe("renewing", () => {
  it("restarts the full time and returns the granted TTL", () => {
    const { clock, lessor } = primary();
    lessor.grant(1n, 10);
    for (let i = 0; i < 5; i++) {
      clock.advance(9_000);
      assert.equal(renew(lessor, 1n).answer, 10);
    }
    clock.advance(9_999);
    assert.deepEqual(lessor.expired(), []);
    clock.advance(100);
    assert.deepEqual(lessor.expired(), [1n]);
    assert.equal(lessor.renewedTotal, 5);
  });

  it("is refused by a lessor that is not primary, and for a lease that does not exist", () => {
    const { lessor } = setup();
    lessor.grant(1n, 10);
    assert.equal(renew(lessor, 1n).answer, "not a primary lessor");
    lessor.promote(0);
    assert.equal(renew(lessor, 2n).answer, "lease not found");
  });

  it("of an expired lease waits for the revocation and then says that the lease is gone", () => {
    const { clock, lessor } = primary();
    lessor.grant(1n, 1);
    clock.advance(1_000);
    const waiting = [renew(lessor, 1n), renew(lessor, 1n)];
    assert.deepEqual(waiting, [{ answer: undefined }, { answer: undefined }]);
    lessor.revoke(1n, () => {});
    assert.deepEqual(waiting, [{ answer: "lease not found" }, { answer: "lease not found" }]);
  });

  it("of an expired lease is sent to the new leader when this one is demoted", () => {
    const { clock, lessor } = primary();
    lessor.grant(1n, 1);
    clock.advance(1_000);
    const waiting = renew(lessor, 1n);
    lessor.demote();
    assert.equal(waiting.answer, "not a primary lessor");
    const stopped = primary();
    stopped.lessor.grant(1n, 1);
    stopped.clock.advance(1_000);
    const last = renew(stopped.lessor, 1n);
    stopped.lessor.stop();
    assert.equal(last.answer, "not a primary lessor");
    assert.equal(stopped.clock.timerCount, 0);
  });

  it("is refused when too many wait", () => {
    const { clock, lessor } = primary({ waitingRenewalsMax: 2 });
    lessor.grant(1n, 1);
    clock.advance(1_000);
    renew(lessor, 1n);
    renew(lessor, 1n);
    assert.match(String(renew(lessor, 1n).answer), /too many renewals wait/);
    lessor.revoke(1n, () => {});
    lessor.grant(1n, 1);
    clock.advance(1_000);
    assert.equal(renew(lessor, 1n).answer, undefined);
  });
});

describe("keys", () => {
  it("are deleted in bytewise order, in one call, before the lease is gone", () => {
    const { lessor, backend } = setup();
    lessor.grant(1n, 10);
    for (const key of ["b", "\xff", "a", "aa", "\x00"]) assert.ok(lessor.attach(1n, key));
    const calls: string[][] = [];
    lessor.revoke(1n, (keys) => {
      calls.push([...keys]);
      assert.deepEqual(stored(backend), [], "the record goes into the same batch, before the transaction ends");
      for (const key of keys) lessor.detach(1n, key);
    });
    assert.deepEqual(calls, [["\x00", "a", "aa", "b", "\xff"]]);
    assert.equal(lessor.lookup(1n), undefined);
    assert.equal(lessor.leaseOf("a"), 0n);
  });

  it("of a lease without any make no transaction when it is revoked", () => {
    const { lessor } = setup();
    lessor.grant(1n, 10);
    lessor.attach(1n, "k");
    lessor.detach(1n, "k");
    lessor.revoke(1n, () => assert.fail("nothing to delete"));
    assert.throws(() => lessor.revoke(1n, () => {}), { code: "ERR_LEASE_NOT_FOUND" });
  });

  it("are attached to one lease each: the last one", () => {
    const { lessor } = setup();
    lessor.grant(1n, 10);
    lessor.grant(2n, 10);
    assert.equal(lessor.attach(3n, "k"), false);
    assert.equal(lessor.attach(1n, "k"), true);
    assert.equal(lessor.attach(1n, "k"), true);
    assert.equal(lessor.leaseOf("k"), 1n);
    lessor.attach(2n, "k");
    assert.equal(lessor.leaseOf("k"), 2n);
    assert.deepEqual(lessor.keysOf(1n), []);
    assert.deepEqual(lessor.keysOf(2n), ["k"]);
    lessor.detach(1n, "k");
    assert.equal(lessor.leaseOf("k"), 2n);
    lessor.detach(2n, "k");
    assert.equal(lessor.leaseOf("k"), 0n);
    lessor.detach(3n, "k");
  });

  it("agree with a plain model under random attaching, detaching and revoking", () => {
    const random = seeded(7);
    const { lessor } = setup();
    const owner = new Map<string, bigint>();
    const alive = new Set<bigint>();
    for (let step = 0; step < 20_000; step++) {
      const id = BigInt(1 + random.below(10));
      const key = `k${random.below(30)}`;
      const what = random.below(10);
      if (what === 0 && !alive.has(id)) {
        lessor.grant(id, 10);
        alive.add(id);
      } else if (what === 1 && alive.has(id)) {
        const expected = [...owner].filter(([, lease]) => lease === id).map(([k]) => k);
        let deleted: string[] = [];
        lessor.revoke(id, (keys) => {
          deleted = [...keys];
        });
        assert.deepEqual(deleted, expected.sort());
        for (const k of expected) owner.delete(k);
        alive.delete(id);
      } else if (what < 7) {
        assert.equal(lessor.attach(id, key), alive.has(id));
        if (alive.has(id)) owner.set(key, id);
      } else if (owner.has(key)) {
        lessor.detach(owner.get(key)!, key);
        owner.delete(key);
      }
      assert.equal(lessor.leaseOf(key), owner.get(key) ?? 0n);
    }
  });
});

describe("restarting", () => {
  it("keeps the leases, with at least the smallest TTL, and starts them at the promotion", async () => {
    const first = setup();
    first.lessor.grant(1n, 10);
    first.lessor.grant(2n, 1);
    first.lessor.grant(3n, 10);
    first.lessor.revoke(3n, () => {});
    await commit(first);
    const { clock, lessor } = await restarted(first.backend.crash(), { minTtl: 2 });
    assert.deepEqual(lessor.leases(), [1n, 2n]);
    assert.equal(lessor.lookup(2n)!.ttl, 2);
    clock.advance(60_000);
    lessor.promote(1_000);
    clock.advance(2_999);
    assert.deepEqual(lessor.expired(), []);
    clock.advance(100);
    assert.deepEqual(lessor.expired(), [2n]);
    lessor.revoke(2n, () => {});
    clock.advance(7_800);
    assert.deepEqual(lessor.expired(), []);
    clock.advance(200);
    assert.deepEqual(lessor.expired(), [1n]);
  });

  it("from a snapshot's backend takes many leases in slices, and has the old ones until all are there", async () => {
    const { lessor, clock } = setup();
    lessor.grant(1n, 10);
    const other = setup();
    for (let id = 2n; id < 20_000n; id++) other.lessor.grant(id, 20);
    let isOver = false;
    const recovered = lessor.recover(other.backend).then(() => (isOver = true));
    let turns = 0;
    for (; !isOver; turns++) {
      assert.ok(lessor.count === 1 || lessor.count === 19_998, `${lessor.count} leases`);
      clock.advance(1);
      other.clock.advance(1);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await recovered;
    assert.equal(lessor.count, 19_998);
    assert.ok(turns >= 8, `${turns} turns`);
  });

  it("from a snapshot's backend drops the previous state", async () => {
    const { lessor, clock } = setup();
    lessor.grant(1n, 10);
    lessor.attach(1n, "k");
    const other = setup();
    other.lessor.grant(2n, 20);
    await settled(clock, settled(other.clock, lessor.recover(other.backend)));
    assert.deepEqual(lessor.leases(), [2n]);
    assert.equal(lessor.leaseOf("k"), 0n);
    lessor.grant(3n, 5);
    assert.equal(stored(other.backend).length, 2);
    clock.advance(60_000);
    assert.deepEqual(lessor.expired(), [], "still not primary");
  });
});

describe("promotion", () => {
  it("restarts every lease and adds one election timeout", () => {
    const { clock, lessor } = primary();
    lessor.grant(1n, 10);
    clock.advance(9_000);
    lessor.demote();
    clock.advance(60_000);
    assert.deepEqual(lessor.expired(), []);
    lessor.promote(1_500);
    assert.deepEqual(lessor.timeToLive(1n), { demoted: false, ttl: 11, grantedTtl: 10 });
    clock.advance(11_499);
    assert.deepEqual(lessor.expired(), []);
    clock.advance(100);
    assert.deepEqual(lessor.expired(), [1n]);
  });

  it("starts from the checkpointed time where there is one", () => {
    const { clock, lessor } = setup();
    lessor.grant(1n, 1_000);
    lessor.checkpoint(1n, 30);
    lessor.promote(0);
    clock.advance(29_999);
    assert.deepEqual(lessor.expired(), []);
    clock.advance(100);
    assert.deepEqual(lessor.expired(), [1n]);
  });

  it("spreads leases that would expire faster than they can be revoked", () => {
    const { clock, lessor } = setup({ revokeRate: 100 });
    for (let i = 1n; i <= 1_000n; i++) lessor.grant(i, 10);
    lessor.promote(0);
    const perSecond: number[] = [];
    for (let second = 0; second < 40; second++) {
      clock.advance(1_000);
      const ids = lessor.expired(10_000);
      for (const id of ids) lessor.revoke(id, () => {});
      perSecond.push(ids.length);
    }
    assert.equal(lessor.count, 0);
    assert.deepEqual(perSecond.slice(0, 9), new Array(9).fill(0), "none early");
    assert.ok(Math.max(...perSecond) <= 100, `never above the rate: ${perSecond}`);
  });

  it("restarts very many leases over several turns, none of them early", () => {
    const count = 23_000;
    const { clock, lessor } = setup({ revokeRate: 1_000_000 });
    for (let i = 1; i <= count; i++) lessor.grant(BigInt(i), 10 + (i % 20));
    lessor.promote(1_000);
    assert.equal(remaining(lessor, 1n), 12, "known at once");
    lessor.revoke(2n, () => {});
    assert.equal(renew(lessor, 3n).answer, 13);
    lessor.grant(BigInt(count + 1), 40);
    let turns = 0;
    while (clock.turn()) turns++;
    assert.ok(turns >= 8, `${turns} turns`);
    assert.equal(remaining(lessor, 3n), 14);
    const ended = new Map<bigint, number>();
    for (let second = 1; second <= 45; second++) {
      clock.advance(1_000);
      for (let ids = lessor.expired(); ids.length > 0; ids = lessor.expired()) {
        for (const id of ids) {
          ended.set(id, second);
          lessor.revoke(id, () => {});
        }
      }
    }
    assert.equal(lessor.count, 0);
    for (const [id, second] of ended) {
      const ttl = id > count ? 40 : 11 + (Number(id) % 20);
      assert.ok(second >= ttl && second <= ttl + 3, `lease ${id} of ${ttl} s ended after ${second} s`);
    }
    assert.equal(clock.timerCount, 0);
  });

  it("drops a promotion in progress when the lessor is demoted", () => {
    const { clock, lessor } = setup();
    for (let i = 1; i <= 12_000; i++) lessor.grant(BigInt(i), 1);
    lessor.promote(0);
    clock.turn();
    lessor.demote();
    clock.advance(5_000);
    assert.deepEqual(lessor.expired(), []);
    assert.equal(clock.timerCount, 0);
  });

  it("ends when the lessor is demoted: leases that expired before are not reported after", () => {
    const { clock, lessor } = primary();
    lessor.grant(1n, 1);
    clock.advance(1_100);
    lessor.demote();
    assert.deepEqual(lessor.expired(), []);
    assert.deepEqual(lessor.timeToLive(1n), { demoted: true, ttl: 1, grantedTtl: 1 });
    assert.equal(clock.timerCount, 0);
  });
});

describe("checkpoints", () => {
  const intervalMs = 300_000;

  /** A checkpointer that applies immediately. */
  function withCheckpoints(made: Setup): LeaseCheckpoint[][] {
    const proposed: LeaseCheckpoint[][] = [];
    made.lessor.setCheckpointer((checkpoints, done) => {
      proposed.push(checkpoints);
      for (const { id, remainingTtl } of checkpoints) made.lessor.checkpoint(id, remainingTtl);
      done(null);
    });
    return proposed;
  }

  it("are proposed every interval for leases longer than it, until the rest is shorter", () => {
    const made = setup();
    const proposed = withCheckpoints(made);
    made.lessor.promote(0);
    made.lessor.grant(1n, 1_000);
    made.lessor.grant(2n, 300);
    made.clock.advance(1_000_500);
    assert.deepEqual(proposed, [
      [{ id: 1n, remainingTtl: 700 }],
      [{ id: 1n, remainingTtl: 400 }],
      [{ id: 1n, remainingTtl: 100 }],
    ]);
    assert.deepEqual(made.lessor.expired(), [2n, 1n]);
  });

  it("are cleared by a renewal, which then runs for the whole TTL and is checkpointed again", () => {
    const made = setup();
    const proposed = withCheckpoints(made);
    made.lessor.promote(0);
    made.lessor.grant(1n, 1_000);
    made.clock.advance(intervalMs);
    assert.equal(made.lessor.lookup(1n)!.remainingTtl, 700);
    assert.equal(renew(made.lessor, 1n).answer, 1_000);
    assert.deepEqual(proposed[1], [{ id: 1n, remainingTtl: 0 }]);
    assert.equal(renew(made.lessor, 1n).answer, 1_000);
    assert.equal(proposed.length, 2, "a second renewal has nothing to forget");
    assert.deepEqual(made.lessor.timeToLive(1n), { demoted: false, ttl: 1_000, grantedTtl: 1_000 });
    made.clock.advance(intervalMs);
    assert.deepEqual(proposed[2], [{ id: 1n, remainingTtl: 700 }]);
  });

  it("keep a lease from starting over at each election", async () => {
    const made = setup();
    withCheckpoints(made);
    made.lessor.promote(0);
    made.lessor.grant(1n, 1_000);
    made.clock.advance(intervalMs);
    await commit(made);
    const { lessor } = await restarted(made.backend.crash());
    lessor.promote(0);
    assert.deepEqual(lessor.timeToLive(1n), { demoted: false, ttl: 700, grantedTtl: 1_000 });
  });

  it("are not written to the backend below cluster version 3.6 without the feature gate", () => {
    const { lessor, backend } = setup({ persistCheckpoints: () => false });
    lessor.grant(1n, 1_000);
    const before = stored(backend);
    lessor.checkpoint(1n, 500);
    assert.deepEqual(stored(backend), before);
    assert.equal(lessor.lookup(1n)!.remainingTtl, 500);
  });

  it("that fail make the renewal fail, and are retried at the next interval", () => {
    const made = setup();
    let failures = 0;
    made.lessor.setCheckpointer((_, done) => {
      failures++;
      done(new Error("no leader"));
    });
    made.lessor.promote(0);
    made.lessor.grant(1n, 1_000);
    made.clock.advance(2 * intervalMs);
    assert.equal(failures, 2);
    made.lessor.checkpoint(1n, 500);
    assert.equal(renew(made.lessor, 1n).answer, "no leader");
  });

  it("go into one proposal, of at most a thousand, with one proposal in flight", () => {
    const made = setup();
    const flights: { count: number; done: (error: Error | null) => void }[] = [];
    made.lessor.setCheckpointer((checkpoints, done) => void flights.push({ count: checkpoints.length, done }));
    made.lessor.promote(0);
    for (let i = 1n; i <= 1_500n; i++) made.lessor.grant(i, 1_000);
    made.clock.advance(intervalMs + 1_000);
    assert.deepEqual(
      flights.map(({ count }) => count),
      [1_000],
    );
    flights[0]!.done(null);
    made.clock.advance(100);
    assert.deepEqual(
      flights.map(({ count }) => count),
      [1_000, 500],
    );
  });

  it("for leases that do not exist are skipped", () => {
    const { lessor, backend } = setup();
    lessor.checkpoint(5n, 10);
    assert.deepEqual(stored(backend), []);
  });
});

describe("listing", () => {
  it("orders leases by the time left", () => {
    const { clock, lessor } = primary();
    lessor.grant(1n, 30);
    lessor.grant(2n, 10);
    lessor.grant(3n, 20);
    assert.deepEqual(lessor.leases(), [2n, 3n, 1n]);
    clock.advance(9_000);
    renew(lessor, 3n);
    assert.deepEqual(lessor.leases(), [2n, 3n, 1n]);
    clock.advance(500);
    renew(lessor, 1n);
    renew(lessor, 2n);
    assert.deepEqual(lessor.leases(), [2n, 3n, 1n]);
    clock.advance(8_000);
    renew(lessor, 2n);
    renew(lessor, 3n);
    assert.deepEqual(
      lessor.leases().map((id) => remaining(lessor, id)),
      [10, 20, 22],
    );
    assert.equal(lessor.timeToLive(9n), undefined);
  });
});
