import assert from "node:assert/strict";
import { isUtf8 } from "node:buffer";
import { test } from "node:test";
import { Utf8Check } from "../../src/base/utf8-check.ts";
import { seeded } from "../harness/random.ts";

function isText(bytes: Uint8Array): boolean {
  const check = new Utf8Check();
  return bytes.every((byte) => check.take(byte)) && check.needs === 0;
}

test("the check byte by byte agrees with a check of the whole text", () => {
  const random = seeded(11);
  // Bytes at the bounds of every rule.
  const bytes = [
    0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4,
    0xf5, 0xff,
  ];
  let texts = 0;
  for (let i = 0; i < 50_000; i++) {
    const text = Uint8Array.from({ length: 1 + random.below(4) }, () => random.pick(bytes));
    assert.equal(isText(text), isUtf8(text), Buffer.from(text).toString("hex"));
    if (isText(text)) texts++;
  }
  assert.ok(texts > 500);
});
