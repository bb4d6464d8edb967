import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Intake, type IntakeStream } from "../../../src/api/services/intake.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";

/** A stream with pending messages, which it takes until it must pause. */
class Sender implements IntakeStream {
  taken = 0;
  readonly #intake: Intake;
  #left: number;

  constructor(intake: Intake, messages: number) {
    this.#intake = intake;
    this.#left = messages;
  }

  goOn(): void {
    while (this.#left > 0) {
      this.#left--;
      this.taken++;
      if (!this.#intake.take(this)) return;
    }
  }
}

describe("the intake of messages", () => {
  it("is bounded in each turn, whichever streams they come from", () => {
    const clock = new VirtualClock();
    const intake = new Intake(clock, 10);
    const senders = [7, 25, 3].map((count) => new Sender(intake, count));
    const taken = (): number => senders.reduce((sum, sender) => sum + sender.taken, 0);
    for (const sender of senders) sender.goOn();
    for (let before = 0, turns = 0; before < 35; turns++) {
      assert.ok(turns < 10);
      assert.ok(taken() - before <= 12, `${taken() - before} in one turn`);
      before = taken();
      clock.turn();
    }
    assert.deepEqual(
      senders.map((sender) => sender.taken),
      [7, 25, 3],
    );
  });

  it("gives waiting streams their turn in order, and forgets those that ended", () => {
    const clock = new VirtualClock();
    const intake = new Intake(clock, 5);
    const [first, second, third] = [100, 100, 100].map((count) => new Sender(intake, count));
    for (const sender of [first!, second!, third!]) sender.goOn();
    intake.forget(second!);
    const before = second!.taken;
    for (let i = 0; i < 6; i++) clock.turn();
    assert.equal(second!.taken, before);
    assert.ok(first!.taken >= 15 && third!.taken >= 10, `${first!.taken}, ${third!.taken}`);
  });
});
