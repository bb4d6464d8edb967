import assert from "node:assert/strict";
import { test } from "node:test";
import { KeyRows } from "../../src/utl/key-rows.ts";
import { seeded } from "../harness/random.ts";

test("the last row of each key is known, whatever is set and deleted", () => {
  const random = seeded(7);
  const rows = new KeyRows();
  const model = new Map<string, number>();
  for (let row = 0; row < 200_000; row++) {
    const number = random.below(40_000);
    const key =
      number % 3 === 0 ? `/registry/pods/default/${number}` : String.fromCharCode(number % 256, number >> 8, 0);
    const before = model.get(key) ?? -1;
    if (random.chance(0.4)) {
      assert.equal(rows.delete(key), before);
      model.delete(key);
    } else {
      assert.equal(rows.set(key, row), before);
      model.set(key, row);
    }
    assert.equal(rows.size, model.size);
  }
});
