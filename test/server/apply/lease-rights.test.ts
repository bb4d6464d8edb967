import assert from "node:assert/strict";
import { test } from "node:test";
import { AuthInfo } from "../../../src/auth/auth-info.ts";
import { KeyRanges } from "../../../src/auth/key-ranges.ts";
import type { AuthStore } from "../../../src/auth/store.ts";
import { Lease } from "../../../src/lease/lease.ts";
import { LeaseRights } from "../../../src/server/apply/lease-rights.ts";
import { rounds } from "../../harness/fast.ts";
import { seeded } from "../../harness/random.ts";

/** Users who may write some ranges; counts the checks. */
class Auth {
  revision = 1;
  asked = 0;
  readonly ranges = new Map<string, KeyRanges>();

  allow(user: string, ...ranges: [string, string][]): void {
    this.revision++;
    this.ranges.set(user, new KeyRanges(ranges.map(([start, end]) => ({ start, end }))));
  }

  mayWrite = ({ username }: AuthInfo, key: string, end: string): "permissionDenied" | null => {
    this.asked++;
    const ranges = this.ranges.get(username)!;
    return (end === "" ? ranges.hasKey(key) : ranges.hasRange(key, end)) ? null : "permissionDenied";
  };

  mayRead = (): null => null;
}

function setup() {
  const auth = new Auth();
  return { auth, rights: new LeaseRights(auth as unknown as AuthStore), lease: new Lease(1n, 60, 0) };
}

test("a lease with very many keys is checked once for a user, then only its new keys", () => {
  const { auth, rights, lease } = setup();
  auth.allow("u", ["a/", "a0"], ["c/", "c0"]);
  const user = new AuthInfo("u", 9);
  for (let i = 0; i < 20_000; i++) lease.addKey(`${i % 2 === 0 ? "a" : "c"}/${i}`);
  assert.equal(rights.check(user, lease, "write"), null);
  assert.ok(auth.asked >= 20_000);
  auth.asked = 0;
  for (let i = 0; i < 100; i++) {
    lease.addKey(`a/new ${i}`);
    lease.removeKey(`a/${2 * i}`);
    assert.equal(rights.check(user, lease, "write"), null);
  }
  assert.ok(auth.asked <= 300, `${auth.asked} questions`);
  lease.addKey("b");
  assert.equal(rights.check(user, lease, "write"), "permissionDenied");
  auth.asked = 0;
  assert.equal(rights.check(user, lease, "write"), "permissionDenied");
  assert.ok(auth.asked <= 2);
  lease.removeKey("b");
  assert.equal(rights.check(user, lease, "write"), null);
});

test("one range for all keys of a lease is one check", () => {
  const { auth, rights, lease } = setup();
  auth.allow("u", ["k", "l"]);
  for (let i = 0; i < 20_000; i++) lease.addKey(`k${i}`);
  assert.equal(rights.check(new AuthInfo("u", 9), lease, "write"), null);
  assert.equal(auth.asked, 1);
});

test("the answer is always that of a check of all keys, whatever changes", () => {
  for (let seed = 1; seed <= rounds(20); seed++) {
    const random = seeded(seed);
    const { auth, rights, lease } = setup();
    const letter = (): string => "abcdefgh"[random.below(8)]!;
    const users = ["u", "v"].map((name) => new AuthInfo(name, 9));
    const allow = (): void => {
      for (const { username } of users) {
        auth.allow(username, [letter(), `${letter()}~`], [letter(), `${letter()}~`], ["x", "y"]);
      }
    };
    allow();
    for (let i = 0; i < 100; i++) lease.addKey(`x${i}`);
    for (let step = 0; step < 500; step++) {
      const key = random.chance(0.5) ? `x${random.below(150)}` : `${letter()}${random.below(3)}`;
      if (random.chance(0.3)) lease.addKey(key);
      else lease.removeKey(key);
      if (random.chance(0.01)) for (let i = 0; i < 2000; i++) lease.addKey(`x${random.below(3000)}`);
      if (random.chance(0.02)) allow();
      for (const user of users) {
        const expected = [...lease.keys()].some((each) => auth.mayWrite(user, each, "") !== null);
        assert.equal(rights.check(user, lease, "write") !== null, expected, `seed ${seed}, step ${step}`);
      }
    }
  }
});
