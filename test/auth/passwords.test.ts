import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { BcryptThreads } from "../../src/auth/bcrypt-threads.ts";
import { type HashAsker, HashQueue } from "../../src/auth/hash-queue.ts";
import { BcryptHasher } from "../../src/auth/passwords.ts";
import { systemRandom } from "../../src/base/random.ts";

const bytes = (text: string) => Buffer.from(text, "latin1");

describe("passwords", () => {
  const hasher = new BcryptHasher(4, systemRandom);

  test("match the hashes that other implementations of bcrypt made", async () => {
    for (const [password, hash] of MADE_BY_GO)
      assert.equal(await hasher.matches(password, bytes(hash)), true, password);
    assert.equal(await hasher.matches("wrong", bytes(MADE_BY_GO[0]![1])), false);
  });

  test("match when they agree in the bytes that bcrypt uses, however long they are", async () => {
    const { hash } = (await hasher.hash("é".repeat(36))) as { hash: string };
    assert.equal(await hasher.matches("é".repeat(500_000), bytes(hash)), true);
    assert.equal(await hasher.matches(`${"é".repeat(35)}x`, bytes(hash)), false);
  });

  test("match nothing that is not a hash", async () => {
    for (const hash of ["", "$2a$04$", `$2a$99$${"a".repeat(53)}`, "x".repeat(60), "$5$ab$cd"]) {
      assert.equal(await hasher.matches("secret", bytes(hash)), false, hash);
    }
  });

  test("leave the event loop free while they are hashed", async () => {
    const slow = new BcryptHasher(8, systemRandom);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await Promise.all([1, 2, 3, 4].map((n) => slow.hash(`secret${n}`)));
    clearInterval(timer);
    assert.ok(turns > 0);
  });

  test("get different salts each time", async () => {
    const [a, b] = await Promise.all([hasher.hash("secret"), hasher.hash("secret")]);
    assert.notDeepEqual(a, b);
    assert.notEqual(hasher.hashNow("secret"), hasher.hashNow("secret"));
  });
});

test("a job that fails in its thread fails alone", async () => {
  const threads = new BcryptThreads(1, { all: 10, ofAddress: 10, ofConnection: 10 });
  const failed = threads.hash("secret", "no salt");
  const made = threads.hash("secret", "$2a$04$abcdefghijklmnopqrstuu");
  await assert.rejects(failed, /salt/);
  assert.match((await made)!, /^\$2a\$04\$/);
  assert.equal(threads.pending, 0);
});

test("turns rotate by address and by connection, and clients that have gone are skipped", () => {
  const queue = new HashQueue<string>({ all: 100, ofAddress: 100, ofConnection: 100 });
  const connections = new Map<string, HashAsker>();
  const asker = (name: string, cancelled = false): HashAsker => {
    const known = connections.get(name) ?? { remoteAddress: name[0]!, socket: {}, cancelled };
    connections.set(name, known);
    return known;
  };
  for (const name of ["a1", "a1", "a1", "a2", "b1"]) queue.push(name, asker(name));
  queue.push("gone", asker("c1", true));
  const order: string[] = [];
  const dropped: string[] = [];
  for (let next = queue.take((item) => dropped.push(item)); next !== undefined; next = queue.take(() => {}))
    order.push(next);
  assert.deepEqual(order, ["a1", "b1", "a2", "a1", "a1"]);
  assert.equal(queue.length, 0);
});

test("no address and no connection can take all places in the queue", () => {
  const queue = new HashQueue<number>({ all: 10, ofAddress: 6, ofConnection: 4 });
  const push = (remoteAddress: string, socket: object): number => {
    let taken = 0;
    while (queue.push(taken, { remoteAddress, socket, cancelled: false })) taken++;
    return taken;
  };
  assert.equal(push("a", {}), 4);
  assert.equal(push("a", {}), 2);
  assert.equal(push("b", {}), 4);
  assert.equal(push("c", {}), 0);
});

/** By `golang.org/x/crypto/bcrypt`, which etcd uses. */
const MADE_BY_GO: readonly (readonly [string, string])[] = [
  ["secret", "$2a$04$OB5z74rfPchBmH0Z0CityeFa0d7WLLIharBjWV0DmNlAYv6m.21Lm"],
  ["", "$2a$04$.7X6.PR9oPzZyk2jMf8HAOA8UAPHh.oOnzdDn81DDbuYZDRAfDB7e"],
  ["pässwörd ✓", "$2a$04$WornKNRnawKkdrMa8hvjk.dHR3K/0LX.gOVRF27keN.zSUSGigPmq"],
  ["a\x00b", "$2a$04$wFPF6gIjOjI5Dh.EZSZkBelzsKwwc/FjWpEulolSeg5eSIjbGxrDa"],
  ["x".repeat(72), "$2a$04$qQLP76strz6K2CDQp3dz4ehF01CXwI6Ylyu3q3yUKs0hBnCZABF3."],
];
