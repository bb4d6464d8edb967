import assert from "node:assert/strict";
import test from "node:test";
import { goDuration } from "../../src/base/duration.ts";

// What Go prints for the same duration.
const printed: [ms: number, text: string][] = [
  [0, "0s"],
  [1e-6, "1ns"],
  [0.000999, "999ns"],
  [0.001, "1µs"],
  [0.25, "250µs"],
  [0.0015, "1.5µs"],
  [1, "1ms"],
  [1.100001, "1.100001ms"],
  [999.999999, "999.999999ms"],
  [1000, "1s"],
  [1500, "1.5s"],
  [1000.000001, "1.000000001s"],
  [60_000, "1m0s"],
  [90_500, "1m30.5s"],
  [60_000.000001, "1m0.000000001s"],
  [3_600_000, "1h0m0s"],
  [3_660_000.5, "1h1m0.0005s"],
  [100 * 3_600_000, "100h0m0s"],
  [-1500, "-1.5s"],
  [-0.25, "-250µs"],
];

for (const [ms, text] of printed) {
  test(`${ms} ms are ${text}`, () => assert.equal(goDuration(ms), text));
}

test("a value within a nanosecond of the next unit is printed in that unit", () => {
  assert.equal(goDuration(999.9999999), "1s");
  assert.equal(goDuration(59_999.9999999), "1m0s");
  assert.equal(goDuration(3_599_999.9999999), "1h0m0s");
  assert.equal(goDuration(0.00099999999), "1µs");
});

test("less than half a nanosecond is zero", () => assert.equal(goDuration(-1e-7), "0s"));
