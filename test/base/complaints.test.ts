import assert from "node:assert/strict";
import { test } from "node:test";
import { Complaints } from "../../src/base/complaints.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";

test("the same warning is logged once a minute, with the number of suppressed repeats", () => {
  const logger = new MemoryLogger();
  const clock = new VirtualClock();
  const complaints = new Complaints(logger, clock);
  for (let second = 0; second < 150; second++) {
    complaints.warn("refused", { "member-id": "a" });
    clock.advance(1000);
  }
  assert.deepEqual(
    logger.lines.map(({ fields }) => fields),
    [{ "member-id": "a" }, { "member-id": "a", "times-suppressed": 59 }, { "member-id": "a", "times-suppressed": 59 }],
  );
});

test("varying details are shown, and do not make a different warning", () => {
  const logger = new MemoryLogger();
  const complaints = new Complaints(logger, new VirtualClock());
  for (let port = 1; port < 100; port++) complaints.warn("refused", { address: "a" }, { port });
  assert.deepEqual(
    logger.lines.map(({ fields }) => fields),
    [{ address: "a", port: 1 }],
  );
});

test("different warnings are not suppressed, up to a number of lines a minute", () => {
  const logger = new MemoryLogger();
  const clock = new VirtualClock();
  const complaints = new Complaints(logger, clock, 100);
  for (let id = 0; id < 1000; id++) complaints.warn("refused", { "member-id": id });
  assert.equal(logger.lines.length, 100);
  clock.advance(60_000);
  complaints.warn("refused", { "member-id": 5000 });
  assert.equal(logger.lines.length, 101, "the oldest was forgotten");
  assert.deepEqual(logger.lines[100]!.fields, { "member-id": 5000, "other-complaints-suppressed": 900 });
});
