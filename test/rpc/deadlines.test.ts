import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { DeadlineWheel, type Expiring } from "../../src/rpc/deadlines.ts";
import { ManualClock } from "./harness.ts";

class Entry implements Expiring {
  readonly deadlineMs: number;
  wheelSlot = -1;
  wheelNext: Expiring | null = null;
  wheelPrevious: Expiring | null = null;
  expiredAtMs = -1;
  readonly #clock: ManualClock;
  readonly #then: () => void;

  constructor(clock: ManualClock, inMs: number, then: () => void = () => {}) {
    this.#clock = clock;
    this.#then = then;
    this.deadlineMs = clock.nowMs() + inMs;
  }

  onDeadline(): void {
    assert.equal(this.expiredAtMs, -1);
    this.expiredAtMs = this.#clock.nowMs();
    this.#then();
  }
}

describe("the deadline wheel", () => {
  test("every entry expires once, after its deadline and at most a tick or two late", () => {
    const clock = new ManualClock();
    const wheel = new DeadlineWheel(clock);
    const entries = [0, 1, 9, 10, 11, 500, 5119, 5120, 5121, 20_000, 100_000].map((ms) => new Entry(clock, ms));
    for (const entry of entries) wheel.add(entry);
    clock.advance(101_000);
    for (const entry of entries) {
      const late = entry.expiredAtMs - entry.deadlineMs;
      assert.ok(late >= 0 && late <= 20, `deadline ${entry.deadlineMs} at ${entry.expiredAtMs}`);
    }
    assert.equal(wheel.size, 0);
  });

  test("removed entries do not expire, wherever they are in their slot", () => {
    const clock = new ManualClock();
    const wheel = new DeadlineWheel(clock);
    const entries = Array.from({ length: 9 }, () => new Entry(clock, 50));
    for (const entry of entries) wheel.add(entry);
    for (const at of [0, 4, 8, 4]) wheel.remove(entries[at]!);
    assert.equal(wheel.size, 6);
    clock.advance(100);
    assert.deepEqual(
      entries.map((entry) => entry.expiredAtMs >= 0),
      [false, true, true, true, false, true, true, true, false],
    );
  });

  test("an entry that removes another one due with it wins", () => {
    const clock = new ManualClock();
    const wheel = new DeadlineWheel(clock);
    const other = new Entry(clock, 50);
    wheel.add(other);
    // The newest of a slot comes first.
    wheel.add(new Entry(clock, 50, () => wheel.remove(other)));
    clock.advance(100);
    assert.equal(other.expiredAtMs, -1);
    assert.equal(wheel.size, 0);
  });

  test("a clock that jumps far ahead misses nothing", () => {
    const clock = new ManualClock();
    const wheel = new DeadlineWheel(clock);
    const keeper = new Entry(clock, 1e9);
    wheel.add(keeper);
    clock.advance(12_345);
    const entry = new Entry(clock, 7);
    wheel.add(entry);
    clock.advance(60_000);
    assert.ok(entry.expiredAtMs >= entry.deadlineMs);
    wheel.remove(keeper);
  });

  test("an empty wheel stops its timer and restarts it", () => {
    const clock = new ManualClock();
    const wheel = new DeadlineWheel(clock);
    wheel.add(new Entry(clock, 5));
    assert.equal(clock.timers, 1);
    clock.advance(5000);
    assert.equal(clock.timers, 0);
    const entry = new Entry(clock, 5);
    wheel.add(entry);
    clock.advance(100);
    assert.ok(entry.expiredAtMs > 0);
    wheel.stop();
    assert.equal(clock.timers, 0);
  });
});
