import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantError } from "../../src/base/fatal.ts";
import { NO_LIMIT } from "../../src/raft/entry-size.ts";
import { Inflights } from "../../src/raft/tracker/inflights.ts";
import { SeededRandom } from "./harness/random.ts";

test("the window is full by count, or by bytes, which one message may exceed", () => {
  const byCount = new Inflights(2, NO_LIMIT);
  byCount.add(1, 1000);
  assert.ok(!byCount.full);
  byCount.add(2, 1000);
  assert.ok(byCount.full);
  assert.throws(() => byCount.add(3, 1), InvariantError);

  const byBytes = new Inflights(10, 100);
  byBytes.add(1, 99);
  assert.ok(!byBytes.full);
  byBytes.add(2, 50);
  assert.ok(byBytes.full);
  byBytes.freeTo(1);
  assert.deepEqual([byBytes.count, byBytes.bytes, byBytes.full], [1, 50, false]);
});

test("the ring behaves like a plain queue", () => {
  const random = new SeededRandom(3);
  const ring = new Inflights(13, 200);
  let queue: { index: number; bytes: number }[] = [];
  let next = 1;
  for (let i = 0; i < 5000; i++) {
    const dice = random.below(10);
    if (dice < 6 && !ring.full) {
      const message = { index: (next += 1 + random.below(3)), bytes: random.below(40) };
      ring.add(message.index, message.bytes);
      queue.push(message);
    } else if (dice < 9) {
      const index = next - random.below(20);
      ring.freeTo(index);
      queue = queue.filter((message) => message.index > index);
    } else if (random.oneIn(20)) {
      ring.reset();
      queue = [];
    }
    const bytes = queue.reduce((sum, message) => sum + message.bytes, 0);
    assert.deepEqual([ring.count, ring.bytes], [queue.length, bytes]);
    assert.equal(ring.full, queue.length === 13 || bytes >= 200);
  }
});
