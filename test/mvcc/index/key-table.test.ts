import assert from "node:assert/strict";
import { test } from "node:test";
import { KeyRecords } from "../../../src/mvcc/index/key-records.ts";
import { KeyTable } from "../../../src/mvcc/index/key-table.ts";
import { rounds } from "../../harness/fast.ts";
import { SeededRandom } from "../model.ts";

for (const [what, depthMax] of [
  ["divides its segments", 20],
  ["has two segments for all keys, as if their hashes collided", 1],
  ["has a single segment", 0],
] as const) {
  test(`a table that ${what} finds what a map finds, while keys come and go and records move`, () => {
    const random = new SeededRandom(depthMax);
    const records = new KeyRecords();
    const table = new KeyTable(records, random.uint64(), depthMax);
    const model = new Map<string, number>();
    const find = (key: string): number => table.find(Buffer.from(`-${key}`), 1, key.length + 1);
    for (const [steps, insertPart] of [
      [6000, 95],
      [9000, 5],
      [4000, 80],
      [9000, 0],
    ] as const) {
      for (let step = 0; step < rounds(steps); step++) {
        const key = String(random.below(20_000));
        const id = model.get(key) ?? 0;
        assert.equal(find(key), id);
        if (random.below(100) < insertPart) {
          if (id !== 0) {
            const copy = records.copy(id);
            table.replace(id, copy);
            records.free(id);
            model.set(key, copy);
          } else {
            const added = records.add(Buffer.from(key), 0, key.length, 1, 0, 1, 1);
            table.insert(added);
            model.set(key, added);
          }
        } else if (model.size > 0) {
          const [doomed, doomedId] = id === 0 ? [...model.entries()][0]! : [key, id];
          table.remove(doomedId);
          records.free(doomedId);
          model.delete(doomed);
          assert.equal(find(doomed), 0);
        }
        assert.equal(table.size, model.size);
      }
      for (const [key, id] of model) assert.equal(find(key), id);
    }
  });
}
