import assert from "node:assert/strict";
import { test } from "node:test";
import { ReadTiming } from "../../../src/api/calls/read-timing.ts";
import type { Clock } from "../../../src/base/clock.ts";
import { ServerMetrics } from "../../../src/server/contract/metrics.ts";

function timing() {
  let nowMs = 1000;
  let readings = 0;
  const deferred: (() => void)[] = [];
  const clock = {
    nowMs: () => {
      readings++;
      return nowMs;
    },
    defer: (callback: () => void) => void deferred.push(callback),
  } as unknown as Clock;
  const metrics = new ServerMetrics();
  return {
    reads: new ReadTiming(clock, metrics, "Range", true),
    metrics,
    pass: (ms: number) => void (nowMs += ms),
    endTurn: () => {
      for (const callback of deferred.splice(0)) callback();
    },
    readings: () => readings,
  };
}

const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-9, `${actual} is ${expected}`);

test("the reads of a turn share its time and two readings of the clock", () => {
  const { reads, metrics, pass, endTurn, readings } = timing();
  for (let i = 0; i < 10; i++) {
    const startMs = reads.begin();
    reads.end(startMs, startMs, i > 0);
  }
  pass(5);
  endTurn();
  assert.equal(readings(), 2);
  const { succeeded, failed } = metrics.ranges;
  assert.deepEqual([succeeded.count, failed.count], [9, 1]);
  near(succeeded.sum, 9 * 0.0005);
  near(metrics.requests.get("Range")!.succeeded.sum, 9 * 0.0005);
});

test("a read that waited counts with its wait as a request, and without it as a range", () => {
  const { reads, metrics, pass, endTurn } = timing();
  const startMs = reads.begin();
  endTurn();
  pass(100);
  reads.end(startMs, reads.begin(), true);
  pass(2);
  endTurn();
  near(metrics.requests.get("Range")!.succeeded.sum, 0.102);
  near(metrics.ranges.succeeded.sum, 0.002);
});

test("a read that takes several turns is measured by itself", () => {
  const { reads, metrics, pass, endTurn } = timing();
  const startMs = reads.begin();
  endTurn();
  pass(50);
  reads.end(startMs, startMs, true);
  near(metrics.ranges.succeeded.sum, 0.05);
  assert.equal(metrics.ranges.succeeded.count, 1);
});
