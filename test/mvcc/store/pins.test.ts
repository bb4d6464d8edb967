import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../../src/base/clock.ts";
import { PIN_IDLE_MS, PIN_WAIT_MAX_MS, Pins } from "../../../src/mvcc/store/pins.ts";

/** A clock set by the test, with the only timer that pins use. */
function setUp(): { pins: Pins; pass(ms: number): Promise<void> } {
  let nowMs = 0;
  let tick: (() => void) | null = null;
  const clock: Clock = {
    nowMs: () => nowMs,
    wallMs: () => nowMs,
    after: () => assert.fail("not used"),
    every: (_periodMs, callback) => {
      tick = callback;
      return { cancel: () => void (tick = null) };
    },
    defer: () => assert.fail("not used"),
  };
  const pass = async (ms: number): Promise<void> => {
    nowMs += ms;
    tick?.();
    await Promise.resolve();
  };
  return { pins: new Pins(clock), pass };
}

test("a compaction waits for the reads below it, and for no others", async () => {
  const { pins, pass } = setUp();
  await pins.clearedBelow(10);
  const above = pins.add(10);
  await pins.clearedBelow(10);
  const below = pins.add(9);
  let isCleared = false;
  const cleared = pins.clearedBelow(10).then(() => {
    isCleared = true;
  });
  await pass(1000);
  assert.equal(isCleared, false);
  below.release();
  await cleared;
  assert.deepEqual([above.revoked, below.revoked], [false, false]);
});

test("a read without progress loses its pin, one that progresses or waits for its start keeps it", async () => {
  const { pins, pass } = setUp();
  const [idle, busy, waiting] = [pins.add(1), pins.add(1), pins.add(1)];
  const revoked: string[] = [];
  idle.onRevoked = () => revoked.push("idle");
  idle.touch();
  const cleared = pins.clearedBelow(2);
  for (let i = 0; i < 4; i++) {
    busy.touch();
    await pass(PIN_IDLE_MS / 2);
  }
  assert.deepEqual([idle.revoked, busy.revoked, waiting.revoked], [true, false, false]);
  assert.deepEqual(revoked, ["idle"]);
  busy.release();
  waiting.release();
  await cleared;
});

test("no read delays a compaction for longer than the limit, or a store that closes", async () => {
  const { pins, pass } = setUp();
  const slow = pins.add(1);
  const cleared = pins.clearedBelow(2);
  slow.touch();
  await pass(PIN_WAIT_MAX_MS);
  await cleared;
  assert.equal(slow.revoked, true);
  const open = pins.add(1);
  const closing = pins.clearedBelow(2);
  pins.close();
  await closing;
  assert.deepEqual([open.revoked, pins.count], [true, 0]);
});
