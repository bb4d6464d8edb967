import assert from "node:assert/strict";
import { test } from "node:test";
import { errors } from "../../../src/server/contract/errors.ts";
import { type Read, ReadQueue } from "../../../src/server/log/read-queue.ts";
import { RequestIdGenerator } from "../../../src/server/log/request-id.ts";

const RETRY_MS = 500;

const newQueue = (): ReadQueue =>
  new ReadQueue(new RequestIdGenerator(1n, 0), (callback) => void laterTurns.push(callback));
/** Work deferred to a later turn. */
const laterTurns: (() => void)[] = [];

function readOf(name: string, log: string[]): Read {
  return { serve: (error) => log.push(error === null ? name : `${name}: ${error}`) };
}

test("waiting reads share one round, and are served when its index is applied", () => {
  const log: string[] = [];
  const queue = newQueue();
  assert.equal(queue.startRound(0, RETRY_MS), undefined, "nobody waits");
  queue.add(readOf("a", log), 0);
  queue.add(readOf("b", log), 0);
  const context = queue.startRound(0, RETRY_MS)!;
  queue.applied(100);
  assert.deepEqual(log, [], "not before the leader is confirmed");
  queue.confirmed(context, 101);
  queue.applied(100);
  assert.deepEqual(log, [], "not before the index is applied");
  queue.applied(101);
  assert.deepEqual(log, ["a", "b"]);
});

test("a read that arrives during a round waits for the next one", () => {
  const log: string[] = [];
  const queue = newQueue();
  queue.add(readOf("first", log), 0);
  const first = queue.startRound(0, RETRY_MS)!;
  queue.add(readOf("second", log), 1);
  assert.equal(queue.startRound(1, RETRY_MS), undefined);
  queue.confirmed(first, 5);
  queue.applied(5);
  assert.deepEqual(log, ["first"]);
  const second = queue.startRound(2, RETRY_MS)!;
  assert.notDeepEqual(second, first);
  queue.confirmed(second, 5);
  queue.applied(5);
  assert.deepEqual(log, ["first", "second"]);
});

test("while a confirmed round waits to be applied, the next may be requested", () => {
  const log: string[] = [];
  const queue = newQueue();
  queue.add(readOf("first", log), 0);
  queue.confirmed(queue.startRound(0, RETRY_MS)!, 9);
  queue.add(readOf("second", log), 1);
  queue.confirmed(queue.startRound(1, RETRY_MS)!, 8);
  queue.applied(8);
  assert.deepEqual(log, ["second"]);
  queue.applied(9);
  assert.deepEqual(log, ["second", "first"]);
});

test("a round without an answer is requested again under another id, and either answer is enough", () => {
  for (const chosen of [0, 1]) {
    const log: string[] = [];
    const queue = newQueue();
    queue.add(readOf("a", log), 0);
    const first = queue.startRound(0, RETRY_MS)!;
    assert.equal(queue.startRound(RETRY_MS - 1, RETRY_MS), undefined);
    const second = queue.startRound(RETRY_MS, RETRY_MS)!;
    assert.notDeepEqual(second, first);
    const [answered, other] = chosen === 0 ? [first, second] : [second, first];
    assert.equal(queue.confirmed(answered, 7), true);
    assert.equal(queue.confirmed(other, 9), false, "the round has its index");
    queue.applied(7);
    assert.deepEqual(log, ["a"]);
  }
});

test("a new leader ends the rounds that the old one has not answered, and no others", () => {
  const log: string[] = [];
  const queue = newQueue();
  queue.add(readOf("confirmed", log), 0);
  queue.confirmed(queue.startRound(0, RETRY_MS)!, 5);
  queue.add(readOf("asked", log), 1);
  const lost = queue.startRound(1, RETRY_MS)!;
  queue.add(readOf("waiting", log), 2);
  assert.equal(queue.leaderChanged(errors.leaderChanged), 1);
  assert.deepEqual(log, ["asked: etcdserver: leader changed"]);
  assert.equal(queue.confirmed(lost, 9), false);
  queue.confirmed(queue.startRound(3, RETRY_MS)!, 6);
  queue.applied(6);
  assert.deepEqual(log.slice(1), ["confirmed", "waiting"]);
});

test("contexts carry the member's id, so that those of two members are never the same", () => {
  const [one, other] = [1n, 2n].map((id) => new ReadQueue(new RequestIdGenerator(id, 0), () => {}));
  for (const queue of [one!, other!]) queue.add(readOf("a", []), 0);
  const context = one!.startRound(0, RETRY_MS)!;
  assert.notDeepEqual(context, other!.startRound(0, RETRY_MS));
  assert.equal(other!.confirmed(context, 1), false);
});

test("an answer without a request is ignored", () => {
  const log: string[] = [];
  const queue = newQueue();
  queue.add(readOf("a", log), 0);
  queue.startRound(0, RETRY_MS);
  queue.confirmed(Buffer.from("strange"), 1);
  queue.confirmed(Buffer.alloc(8, 255), 1);
  queue.applied(10);
  assert.deepEqual(log, []);
});

test("reads that waited too long are refused, in a round or before", () => {
  const log: string[] = [];
  const queue = newQueue();
  queue.add(readOf("asked", log), 0);
  const context = queue.startRound(0, RETRY_MS)!;
  queue.add(readOf("waiting", log), 5);
  queue.expire(3, errors.timeout);
  assert.deepEqual(log, ["asked: etcdserver: request timed out"]);
  queue.confirmed(context, 1);
  queue.applied(1);
  assert.equal(log.length, 1, "an answer that comes too late serves nobody");
  queue.expire(6, errors.timeout);
  assert.deepEqual(log[1], "waiting: etcdserver: request timed out");
});

test("it is full at its limit", () => {
  const queue = newQueue();
  const read = readOf("a", []);
  for (let i = 0; i < 100_000; i++) {
    assert.equal(queue.full, false);
    queue.add(read, 0);
  }
  assert.equal(queue.full, true);
});

test("a round of very many reads is served in several turns, in order, and none is lost when it ends with an error", () => {
  for (const error of [null, errors.leaderChanged]) {
    const log: string[] = [];
    const queue = newQueue();
    const names = Array.from({ length: 2500 }, (_, i) => `${i}`);
    for (const name of names) queue.add(readOf(name, log), 0);
    const context = queue.startRound(0, RETRY_MS)!;
    if (error === null) {
      queue.confirmed(context, 7);
      queue.applied(7);
    } else queue.leaderChanged(error);
    const perTurn = [log.length];
    while (log.length < names.length) {
      const before = log.length;
      for (const callback of laterTurns.splice(0)) callback();
      perTurn.push(log.length - before);
    }
    assert.deepEqual(perTurn, [1000, 1000, 500]);
    assert.deepEqual(log, error === null ? names : names.map((name) => `${name}: ${error}`));
  }
});

test("a read that throws when it is served is notified, and those after it are served", () => {
  const log: string[] = [];
  const queue = newQueue();
  const broken: Read = {
    serve: () => {
      throw new TypeError("no good");
    },
    failed: (error) => log.push(`${error}`),
  };
  queue.add(broken, 0);
  queue.add(readOf("behind", log), 0);
  queue.confirmed(queue.startRound(0, RETRY_MS)!, 1);
  queue.applied(1);
  assert.deepEqual(log, ["TypeError: no good", "behind"]);
});

test("reads of a confirmed round count as waiting until they are served, so that a slow application bounds them", () => {
  const log: string[] = [];
  const queue = newQueue();
  const read = readOf("read", log);
  for (let i = 0; i < 60_000; i++) queue.add(read, 0);
  queue.confirmed(queue.startRound(0, RETRY_MS)!, 9);
  for (let i = 0; i < 39_999; i++) queue.add(read, 1);
  assert.equal(queue.full, false);
  queue.add(read, 1);
  assert.equal(queue.full, true);
  queue.applied(9);
  while (log.length < 60_000) laterTurns.shift()!();
  assert.equal(queue.full, false, "those that were served make room");
});
