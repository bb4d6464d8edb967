import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { nullLogger } from "../../../src/base/log.ts";
import { startPeriodicCompaction, startRevisionCompaction } from "../../../src/server/duties/auto-compaction.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** A store whose revision the test sets, and which reports the compactions requested. */
function fixture() {
  const clock = new VirtualClock();
  const compacted: number[] = [];
  const state = { revision: 1, works: true };
  const common = {
    clock,
    logger: nullLogger,
    revision: () => state.revision,
    compact: async (revision: number) => {
      compacted.push(revision);
      return state.works;
    },
  };
  /** Advances time in small steps, because a compaction is answered in a later turn. */
  const pass = async (ms: number, stepMs = MINUTE): Promise<void> => {
    for (let passed = 0; passed < ms; passed += stepMs) {
      clock.advance(Math.min(stepMs, ms - passed));
      await turn();
    }
  };
  return { clock, compacted, state, common, pass };
}

test("periodic compaction keeps the history of the period, and then compacts every hour", async () => {
  const { compacted, state, common, pass } = fixture();
  const compactor = startPeriodicCompaction({ ...common, periodMs: 2 * HOUR });
  // One revision a minute.
  const minutes = async (count: number): Promise<void> => {
    for (let minute = 0; minute < count; minute++) {
      await pass(MINUTE);
      state.revision++;
    }
  };
  await minutes(119);
  assert.equal(compacted.length, 0, "nothing before one period has passed");
  await minutes(31);
  assert.equal(compacted.length, 1);
  assert.ok(compacted[0]! >= 1 && compacted[0]! <= 7, `the revision of two hours ago, not ${compacted[0]}`);
  await minutes(180);
  assert.equal(compacted.length, 4);
  for (let i = 1; i < 4; i++) assert.ok(Math.abs(compacted[i]! - compacted[i - 1]! - 60) <= 8, `${compacted}`);
  compactor.stop();
});

test("periods below an hour compact once per period", async () => {
  const { compacted, state, common, pass } = fixture();
  const compactor = startPeriodicCompaction({ ...common, periodMs: 10 * MINUTE });
  for (let minute = 0; minute < 60; minute++) {
    await pass(MINUTE);
    state.revision++;
  }
  assert.ok(compacted.length >= 4 && compacted.length <= 6, `${compacted.length}`);
  assert.deepEqual(
    compacted,
    [...compacted].sort((a, b) => a - b),
  );
  compactor.stop();
});

test("nothing is compacted while nothing changes, nor after a stop", async () => {
  const { compacted, state, common, pass } = fixture();
  const compactor = startPeriodicCompaction({ ...common, periodMs: HOUR });
  state.revision = 100;
  await pass(10 * HOUR, 6 * MINUTE);
  const count = compacted.length;
  assert.ok(count <= 2);
  state.revision = 200;
  compactor.stop();
  await pass(10 * HOUR, 6 * MINUTE);
  assert.equal(compacted.length, count);
});

test("a failed compaction is retried soon", async () => {
  const { compacted, state, common, pass } = fixture();
  const compactor = startPeriodicCompaction({ ...common, periodMs: HOUR });
  state.works = false;
  state.revision = 50;
  await pass(HOUR + 30 * MINUTE, 3 * MINUTE);
  const failed = compacted.length;
  assert.ok(failed >= 2, "tried several times within the hour");
  state.works = true;
  await pass(6 * MINUTE, 3 * MINUTE);
  assert.equal(compacted.length, failed + 1);
  compactor.stop();
});

test("a compaction in progress when the compactor stops does not restart it", async () => {
  const { clock, state, common } = fixture();
  let finish: (done: boolean) => void = () => {};
  const compact = (): Promise<boolean> => new Promise((resolve) => (finish = resolve));
  const compactor = startPeriodicCompaction({ ...common, compact, periodMs: HOUR });
  state.revision = 9;
  clock.advance(2 * HOUR);
  compactor.stop();
  finish(true);
  await turn();
  assert.equal(clock.timerCount, 0);
});

test("revision compaction keeps the last revisions, checked every five minutes", async () => {
  const { compacted, state, common, pass } = fixture();
  const compactor = startRevisionCompaction({ ...common, retention: 100 });
  state.revision = 99;
  await pass(5 * MINUTE);
  assert.deepEqual(compacted, []);
  state.revision = 250;
  await pass(5 * MINUTE);
  assert.deepEqual(compacted, [150]);
  await pass(10 * MINUTE);
  assert.deepEqual(compacted, [150], "not again the same one");
  state.works = false;
  state.revision = 300;
  await pass(10 * MINUTE);
  assert.deepEqual(compacted, [150, 200, 200], "again what failed");
  compactor.stop();
  state.revision = 400;
  await pass(10 * MINUTE);
  assert.equal(compacted.length, 3);
});
