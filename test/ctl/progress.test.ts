import assert from "node:assert/strict";
import { test } from "node:test";
import { showProgress } from "../../src/ctl/progress.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";

function shown(errIsTerminal: boolean) {
  const clock = new VirtualClock();
  let printed = "";
  let share = 0;
  const end = showProgress({ clock, err: (text) => void (printed += text), errIsTerminal }, () => share);
  return {
    clock,
    end,
    printed: () => printed,
    at: (next: number) => {
      share = next;
      clock.advance(200);
    },
  };
}

test("progress is one line of a terminal, written when it has changed, and gone at the end", () => {
  const { clock, end, printed, at } = shown(true);
  assert.equal(printed(), "\r  0 %", "at once");
  at(0.001);
  at(0.5);
  at(7);
  end();
  assert.equal(printed(), "\r  0 %\r 50 %\r100 %\r     \r");
  assert.equal(clock.timerCount, 0);
});

test("without a terminal there is no progress", () => {
  const { clock, end, printed, at } = shown(false);
  at(0.5);
  end();
  assert.equal(printed(), "");
  assert.equal(clock.timerCount, 0);
});
