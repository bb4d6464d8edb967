import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../src/base/clock.ts";
import { Owner, type StepResult, TURNS_DEFAULTS, Turns, type TurnsOptions, type Work } from "../../src/base/turns.ts";

/** A clock that advances only by what the work claims to take, and a loop driven by hand. */
class HandClock implements Clock {
  ms = 0;
  readonly deferred: (() => void)[] = [];
  nowMs = (): number => this.ms;
  wallMs = (): number => this.ms;
  after = (): never => {
    throw new Error("no timers here");
  };
  every = this.after;
  defer = (callback: () => void): void => void this.deferred.push(callback);

  turn(): boolean {
    const callbacks = this.deferred.splice(0);
    for (const callback of callbacks) callback();
    return callbacks.length > 0;
  }
}

function setUp(options: Partial<TurnsOptions> = {}): { clock: HandClock; turns: Turns; log: string[] } {
  const clock = new HandClock();
  return { clock, turns: new Turns({ ...TURNS_DEFAULTS, clock, ...options }), log: [] };
}

function work(clock: HandClock, log: string[], name: string, steps: number, stepMs: number): Work {
  let done = 0;
  return {
    name,
    step(): StepResult {
      clock.ms += stepMs;
      log.push(name);
      return ++done === steps ? "done" : "more";
    },
    fail: (error) => void log.push(`${name} failed: ${(error as Error).message}`),
  };
}

test("slices of one turn take no more than its budget, and the rest comes in later turns", () => {
  const { clock, turns, log } = setUp({ budgetMs: 4 });
  turns.add(new Owner("a"), work(clock, log, "a", 10, 1));
  clock.turn();
  assert.equal(log.length, 4);
  clock.turn();
  assert.equal(log.length, 8);
  clock.turn();
  assert.equal(log.length, 10);
  assert.equal(turns.active, 0);
  assert.equal(clock.turn(), false);
});

test("an owner with many pieces of work gets no more time than one with a single piece", () => {
  const { clock, turns, log } = setUp({ budgetMs: 20 });
  const greedy = new Owner("greedy");
  for (let i = 0; i < 9; i++) turns.add(greedy, work(clock, log, "greedy", 100, 1));
  turns.add(new Owner("modest"), work(clock, log, "modest", 10, 1));
  clock.turn();
  assert.equal(log.filter((name) => name === "modest").length, 10);
});

test("an owner whose slices are long gets fewer of them", () => {
  const { clock, turns, log } = setUp({ budgetMs: 40 });
  turns.add(new Owner("heavy"), work(clock, log, "heavy", 100, 4));
  turns.add(new Owner("light"), work(clock, log, "light", 100, 1));
  clock.turn();
  const heavy = log.filter((name) => name === "heavy").length;
  const light = log.filter((name) => name === "light").length;
  assert.ok(light >= 3 * heavy && heavy >= 4, `${heavy} heavy slices, ${light} light ones`);
});

test("an owner that was idle does not get its unused time later", () => {
  const { clock, turns, log } = setUp({ budgetMs: 20 });
  turns.add(new Owner("old"), work(clock, log, "old", 1000, 1));
  for (let i = 0; i < 5; i++) clock.turn();
  log.length = 0;
  turns.add(new Owner("new"), work(clock, log, "new", 1000, 1));
  clock.turn();
  const late = log.filter((name) => name === "new").length;
  assert.ok(late >= 9 && late <= 11, `${late} of 20 slices`);
});

test("waiting work takes no turns until it is resumed", () => {
  const { clock, turns, log } = setUp();
  let result: StepResult = "wait";
  const ticket = turns.add(new Owner("a"), {
    name: "a",
    step: () => {
      log.push("step");
      return result;
    },
    fail: assert.fail,
  })!;
  clock.turn();
  assert.equal(clock.turn(), false);
  result = "done";
  ticket.resume();
  clock.turn();
  assert.deepEqual(log, ["step", "step"]);
  assert.equal(turns.active, 0);
});

test("work may be resumed while its step is still running", () => {
  const { clock, turns, log } = setUp();
  const ticket = turns.add(new Owner("a"), {
    name: "a",
    step: () => {
      log.push("step");
      if (log.length > 1) return "done";
      ticket.resume();
      return "wait";
    },
    fail: assert.fail,
  })!;
  while (clock.turn());
  assert.deepEqual(log, ["step", "step"]);
});

test("an error of one piece of work is reported to it, and the others continue", () => {
  const { clock, turns, log } = setUp();
  turns.add(new Owner("a"), {
    name: "bad",
    step: () => {
      throw new Error("no");
    },
    fail: (error) => void log.push(`bad failed: ${(error as Error).message}`),
  });
  turns.add(new Owner("b"), work(clock, log, "good", 2, 0));
  while (clock.turn());
  assert.deepEqual(log.sort(), ["bad failed: no", "good", "good"]);
  assert.equal(turns.active, 0);
});

test("work above the limits waits to start, in order, and above the last limit is refused", () => {
  const { clock, turns, log } = setUp({ activeMax: 3, activePerOwnerMax: 2, waitingMax: 2 });
  const a = new Owner("a");
  const parked: Work = { name: "parked", step: () => "wait", fail: assert.fail };
  const first = turns.add(a, parked)!;
  turns.add(a, parked);
  turns.add(a, work(clock, log, "third of a", 1, 1));
  assert.equal(turns.active, 2);
  turns.add(new Owner("b"), parked);
  assert.equal(turns.active, 3);
  turns.add(new Owner("c"), work(clock, log, "c", 1, 1));
  assert.equal(turns.waiting, 2);
  assert.equal(turns.add(new Owner("d"), parked), undefined);
  while (clock.turn());
  assert.deepEqual(log, []);
  first.cancel();
  while (clock.turn());
  assert.deepEqual(log, ["third of a", "c"]);
  assert.equal(turns.active, 2);
});

test("cancelled work, started or not, is not stepped again", () => {
  const { clock, turns, log } = setUp({ activeMax: 1 });
  const a = turns.add(new Owner("a"), work(clock, log, "a", 100, 10))!;
  const b = turns.add(new Owner("b"), work(clock, log, "b", 1, 1))!;
  clock.turn();
  b.cancel();
  a.cancel();
  a.cancel();
  while (clock.turn());
  assert.deepEqual(log, ["a"]);
  assert.equal(turns.active + turns.waiting, 0);
});

test("a slice that takes too long is reported", () => {
  const seen: string[] = [];
  const { clock, turns, log } = setUp({
    longSliceMs: 25,
    onLongSlice: ({ name }, ms) => void seen.push(`${name} ${ms}`),
  });
  turns.add(new Owner("a"), work(clock, log, "short", 1, 25));
  turns.add(new Owner("b"), work(clock, log, "long", 1, 26));
  while (clock.turn());
  assert.deepEqual(seen, ["long 26"]);
});

test("work that can no longer be refused is accepted although too much waits", () => {
  const { clock, turns, log } = setUp({ activeMax: 1, waitingMax: 0 });
  const parked = turns.add(new Owner("a"), { name: "parked", step: () => "wait", fail: assert.fail });
  assert.equal(parked, undefined);
  turns.mustBegin(new Owner("b"), work(clock, log, "b", 3, 1));
  while (clock.turn());
  assert.deepEqual(log, ["b", "b", "b"]);
});
