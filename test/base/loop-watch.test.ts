import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../src/base/clock.ts";
import { systemClock } from "../../src/base/clock.ts";
import { beginWork, nameWork, spentOn } from "../../src/base/doing.ts";
import { type LoopProbe, systemLoop } from "../../src/base/loop-probe.ts";
import { LoopWatch } from "../../src/base/loop-watch.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";

/** A loop driven by hand: for each turn the test sets how long it waited, worked, and queued for a processor. */
class HandLoop implements LoopProbe {
  ms = 0;
  idle = 0;
  queued = 0;
  callback: (() => void) | undefined;
  collected: ((startMs: number, tookMs: number) => void) | undefined;
  readonly clock: Clock = {
    nowMs: () => this.ms,
    wallMs: () => 1_000_000 + this.ms,
    after: () => ({ cancel() {} }),
    every: () => ({ cancel() {} }),
    defer() {},
  };
  everyTurn = (callback: () => void): (() => void) => {
    this.callback = callback;
    return () => {
      this.callback = undefined;
    };
  };
  everyCollection = (callback: (startMs: number, tookMs: number) => void): (() => void) => {
    this.collected = callback;
    return () => {};
  };
  idleMs = (): number => this.idle;
  queuedMs = (): number => this.queued;

  turn(idleMs: number, workMs: number, work: () => void = () => {}): void {
    this.ms += idleMs;
    this.idle += idleMs;
    work();
    this.ms += workMs;
    this.callback?.();
  }
}

function setUp(): { loop: HandLoop; watch: LoopWatch; logger: MemoryLogger } {
  const loop = new HandLoop();
  const logger = new MemoryLogger();
  return { loop, logger, watch: new LoopWatch({ clock: loop.clock, probe: loop, logger }) };
}

test("time in which the loop waits for events is not part of a turn", () => {
  const { loop, watch } = setUp();
  loop.turn(5_000, 3);
  assert.equal(watch.longestMs, 3);
  assert.equal(watch.turns.count, 1);
  assert.equal(watch.turns.sum, 0.003);
  assert.deepEqual(watch.longTurns, []);
});

test("a long turn is remembered with its longest piece of work", () => {
  const { loop, watch } = setUp();
  loop.turn(0, 10, () => {
    beginWork("first", loop.ms);
    loop.ms += 30;
    beginWork("frames", loop.ms);
    nameWork("/etcdserverpb.KV/Range");
    loop.ms += 40;
    beginWork("last", loop.ms);
  });
  loop.turn(0, 25, () => spentOn("apply of PUT", 21));
  loop.turn(1000, 25);
  assert.deepEqual(
    watch.longTurns.map(({ tookMs, what, whatMs }) => [tookMs, what, whatMs]),
    [
      [80, "/etcdserverpb.KV/Range", 40],
      [25, "apply of PUT", 21],
      [25, "", 0],
    ],
  );
});

test("a long turn records how long its thread had no processor", () => {
  const { loop, watch } = setUp();
  loop.turn(0, 60, () => (loop.queued += 35));
  loop.turn(0, 60, () => (loop.queued += 200));
  assert.deepEqual(
    watch.longTurns.map(({ queuedMs }) => queuedMs),
    [35, 60],
  );
});

test("a long turn records how much of it garbage collection took", () => {
  const { loop, watch } = setUp();
  loop.turn(0, 60);
  loop.turn(50, 40);
  loop.turn(50, 30);
  loop.collected?.(115, 20);
  loop.collected?.(160, 5);
  assert.deepEqual(
    watch.longTurns.map(({ collectingMs }) => collectingMs),
    [0, 20, 0],
  );
});

test("turns that are too long cause a warning once there are clients, at most every ten seconds", () => {
  const { loop, watch, logger } = setUp();
  loop.turn(0, 500);
  assert.equal(logger.lines.length, 0);
  watch.startWarning();
  loop.turn(0, 99);
  assert.equal(logger.lines.length, 0);
  loop.turn(0, 120, () => spentOn("apply of TXN", 90));
  for (let i = 0; i < 20; i++) loop.turn(0, 200);
  loop.turn(8_000, 150);
  loop.turn(100, 0);
  assert.deepEqual(
    logger.lines.map(({ level, fields }) => [level, fields["took"], fields["work"], fields["times-suppressed"]]),
    [
      ["warn", "120ms", "apply of TXN", undefined],
      ["warn", "150ms", "unknown", 20],
    ],
  );
});

test("the longest turn is one of the last two minutes", () => {
  const { loop, watch } = setUp();
  loop.turn(0, 70);
  loop.turn(59_000, 2);
  assert.equal(watch.longestMs, 70);
  loop.turn(30_000, 2);
  assert.equal(watch.longestMs, 70);
  loop.turn(35_000, 2);
  assert.equal(watch.longestMs, 2);
  loop.turn(0, 90);
  loop.turn(600_000, 1);
  assert.equal(watch.longestMs, 1);
});

test("the loop of this process is watched without waking it, and a turn that blocks it is seen", async () => {
  const watch = new LoopWatch({ clock: systemClock, probe: systemLoop, logger: new MemoryLogger() });
  try {
    await new Promise<void>((resolve) => systemClock.after(300, resolve));
    // A busy loop turns many thousand times.
    assert.ok(watch.turns.count < 100, `${watch.turns.count} turns in 300 ms of nothing`);
    await new Promise<void>((resolve) => systemClock.defer(resolve));
    const endMs = systemClock.nowMs() + 60;
    while (systemClock.nowMs() < endMs);
    await new Promise<void>((resolve) => systemClock.after(1, resolve));
    await new Promise<void>((resolve) => systemClock.defer(resolve));
    assert.ok(watch.longestMs >= 60, `${watch.longestMs}`);
    assert.ok(watch.longTurns.some(({ tookMs }) => tookMs >= 60));
  } finally {
    watch.close();
  }
  const { count } = watch.turns;
  await new Promise<void>((resolve) => systemClock.after(5, resolve));
  assert.equal(watch.turns.count, count);
});
