import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeLossless, encodeLossless } from "../../src/base/lossless-text.ts";
import { quote, unquotePrefix } from "../../src/base/quote.ts";

/** A reproducible sequence of bytes that are often almost UTF-8. */
function* samples(): Generator<Buffer> {
  let state = 1;
  const next = (bound: number) => (state = (state * 48271) % 2147483647) % bound;
  const leads = [0x00, 0x0a, 0x22, 0x5c, 0x61, 0x7f, 0x80, 0xbf, 0xc0, 0xc2, 0xe0, 0xe2, 0xed, 0xef, 0xf0, 0xf4, 0xff];
  for (let i = 0; i < 3000; i++) {
    yield Buffer.from(Array.from({ length: next(9) }, () => (next(2) === 0 ? leads[next(leads.length)]! : next(256))));
  }
}

test("bytes become text and come back unchanged, whatever they are", () => {
  for (const bytes of samples()) assert.deepEqual(encodeLossless(decodeLossless(bytes)), bytes);
  assert.equal(decodeLossless(Buffer.from("grün 😀")), "grün 😀");
  assert.equal(decodeLossless(Buffer.from("\ufeffx")), "\ufeffx");
});

test("quoted text is unquoted to the same bytes", () => {
  for (const bytes of samples()) {
    const unquoted = unquotePrefix(`${quote(bytes)} rest`);
    assert.deepEqual(unquoted?.value, bytes);
    assert.equal(unquoted.rest, " rest");
  }
});

test("quoting matches Go", () => {
  assert.equal(quote(Buffer.from([0x61, 0xff, 0x00, 0x0a, 0x1b, 0x22, 0x5c])), '"a\\xff\\x00\\n\\x1b\\"\\\\"');
  assert.equal(quote("é\u200b\u00a0\u{e0001}€😀"), '"é\\u200b\\u00a0\\U000e0001€😀"');
});

test("badly quoted text is not accepted", () => {
  for (const text of ["", "x", '"', '"a', '"\\q"', '"\\x1"', '"\\400"', '"\\ud800"', "`a", '"a\nb"']) {
    assert.equal(unquotePrefix(text), undefined, text);
  }
  assert.deepEqual(unquotePrefix("`a\\n`)"), { value: Buffer.from("a\\n"), rest: ")" });
  assert.deepEqual(unquotePrefix('"\\101\\u00e9"')?.value, Buffer.from("Aé"));
});
