import assert from "node:assert/strict";
import test from "node:test";
import { varintSize, writeVarint } from "../../src/base/varint.ts";
import { KeyValue } from "../../src/proto/mvccpb.ts";
import { seeded } from "../harness/random.ts";

function written(value: number): string {
  const out = Buffer.alloc(12, 0xee);
  const end = writeVarint(out, 1, value);
  assert.equal(out[0], 0xee);
  assert.ok(out.subarray(end).every((byte) => byte === 0xee));
  return out.toString("hex", 1, end);
}

const known: [value: number, wire: string][] = [
  [0, "00"],
  [1, "01"],
  [127, "7f"],
  [128, "8001"],
  [300, "ac02"],
  [2 ** 31 - 1, "ffffffff07"],
  [2 ** 31, "8080808008"],
  [2 ** 32, "8080808010"],
  [2 ** 53 - 1, "ffffffffffffff0f"],
];

for (const [value, wire] of known) {
  test(`the varint of ${value} is ${wire}`, () => {
    assert.equal(written(value), wire);
    assert.equal(varintSize(value), wire.length / 2);
  });
}

test("varints at every power of two and between are those of the codec", () => {
  const random = seeded(1);
  for (let bits = 0; bits < 53; bits++) {
    for (const value of [2 ** bits, 2 ** bits - 1, 2 ** bits + random.below(2 ** bits)]) {
      if (value === 0) continue;
      const wire = KeyValue.encode(KeyValue.create({ version: value })).toString("hex", 1);
      assert.equal(written(value), wire);
      assert.equal(varintSize(value), wire.length / 2);
    }
  }
});
