import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Writer } from "../../src/base/protobuf.ts";
import { Rope, RopeLimit } from "../../src/base/rope.ts";
import { seeded } from "../harness/random.ts";

describe("a rope", () => {
  test("holds what was written to it and to those it took over, in order", () => {
    const random = seeded(5);
    for (let round = 0; round < 50; round++) {
      const limit = new RopeLimit(Number.POSITIVE_INFINITY);
      const rope = new Rope(limit);
      const expected: Buffer[] = [];
      for (let i = 0; i < 30; i++) {
        const bytes = Buffer.alloc(random.pick([0, 1, 10, 500, 1023, 1024, 5000, 65_536, 100_000]), i);
        expected.push(bytes);
        if (random.chance(0.5)) rope.bytes(bytes, 0, bytes.length);
        else {
          const other = new Rope(limit);
          other.bytes(bytes, 0, bytes.length);
          rope.adopt(other);
        }
      }
      const whole = Buffer.concat(expected);
      assert.equal(rope.length, whole.length);
      assert.equal(limit.bytes, whole.length);
      assert.ok(rope.finish().equals(whole));
    }
  });

  test("keeps nothing above the shared limit, and still counts", () => {
    const limit = new RopeLimit(100_000);
    const [rope, other] = [new Rope(limit), new Rope(limit)];
    const bytes = Buffer.alloc(60_000);
    rope.bytes(bytes, 0, bytes.length);
    assert.ok(!limit.isExceeded);
    other.bytes(bytes, 0, bytes.length);
    assert.ok(limit.isExceeded);
    rope.adopt(other);
    rope.byte(1);
    assert.equal(rope.length, 120_001);
  });

  test("writes varints as the protobuf writer does", () => {
    for (const value of [0n, 1n, 127n, 128n, 16_384n, 2n ** 53n - 1n, 2n ** 63n - 1n, -1n, -(2n ** 63n)]) {
      const writer = new Writer().reset();
      writer.int64Big(value);
      const expected = writer.finish();
      const rope = new Rope(new RopeLimit(100));
      rope.varintBig(value);
      assert.deepEqual(rope.finish(), expected);
      if (value < 0n || value > 2n ** 53n) continue;
      const plain = new Rope(new RopeLimit(100));
      plain.varint(Number(value));
      assert.deepEqual(plain.finish(), expected);
    }
  });
});
