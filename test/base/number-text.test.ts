import assert from "node:assert/strict";
import { test } from "node:test";
import { clampToSafe, parseBool, parseDuration, parseInt64, parseUint64 } from "../../src/base/number-text.ts";

test("integers are parsed as in Go", () => {
  assert.equal(parseInt64("-9223372036854775808", 10), -(2n ** 63n));
  assert.equal(parseInt64("694d77aa9e38260f", 16), 0x694d77aa9e38260fn);
  assert.equal(parseInt64("-ff", 16), -255n);
  assert.equal(parseInt64("0x1_f", 0), 31n);
  assert.equal(parseInt64("017", 0), 15n);
  assert.equal(parseInt64("017", 10), 17n);
  assert.equal(parseUint64("ffffffffffffffff", 16), 2n ** 64n - 1n);
  assert.equal(clampToSafe(2n ** 63n - 1n), Number.MAX_SAFE_INTEGER);
});

test("a text that is not an integer is refused with Go's error", () => {
  const refused = (action: () => unknown, message: string) => assert.throws(action, { name: "ParseError", message });
  for (const text of ["", "x", "1.5", " 1", "0x1", "1_0", "--1"]) {
    refused(() => parseInt64(text, 10), `strconv.ParseInt: parsing "${text}": invalid syntax`);
  }
  refused(() => parseInt64("0x1", 16), 'strconv.ParseInt: parsing "0x1": invalid syntax');
  const large = "9223372036854775808";
  refused(() => parseInt64(large, 10), `strconv.ParseInt: parsing "${large}": value out of range`);
  refused(() => parseUint64("-1", 10), 'strconv.ParseUint: parsing "-1": invalid syntax');
  refused(() => parseBool("yes"), 'strconv.ParseBool: parsing "yes": invalid syntax');
});

test("durations are milliseconds", () => {
  const values: [string, number][] = [
    ["0", 0],
    ["5s", 5000],
    ["1h2m3.5s", 3_723_500],
    ["100ms", 100],
    ["1.5us", 0.0015],
    ["-.5m", -30_000],
  ];
  for (const [text, ms] of values) assert.equal(parseDuration(text), ms, text);
  const refused = (text: string, message: string) => assert.throws(() => parseDuration(text), { message });
  refused("3", 'time: missing unit in duration "3"');
  refused("", 'time: invalid duration ""');
  refused("x", 'time: invalid duration "x"');
  refused("1d", 'time: unknown unit "d" in duration "1d"');
  refused("1valueOf", 'time: unknown unit "valueOf" in duration "1valueOf"');
  refused("9999999h", 'time: invalid duration "9999999h"');
});
