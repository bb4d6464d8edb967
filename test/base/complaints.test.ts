import assert from "node:assert/strict";
import { test } from "node:test";
import { Complaints } from "../../src/base/complaints.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";

test("the same complaint is logged once a minute, with how often it was held back", () => {
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

test("complaints about others are not held back, and do not pile up in memory", () => {
  const logger = new MemoryLogger();
  const complaints = new Complaints(logger, new VirtualClock());
  for (let id = 0; id < 1000; id++) complaints.warn("refused", { "member-id": id });
  assert.equal(logger.lines.length, 1000);
  complaints.warn("refused", { "member-id": 999 });
  assert.equal(logger.lines.length, 1000);
  complaints.warn("refused", { "member-id": 0 });
  assert.equal(logger.lines.length, 1001, "the first are forgotten");
});
