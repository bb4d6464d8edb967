import assert from "node:assert/strict";
import { test } from "node:test";
import { KeyEntry } from "../../../src/mvcc/index/key-entry.ts";
import { KeyIndex } from "../../../src/mvcc/index/key-index.ts";
import { fromByteString, toByteString } from "../../../src/mvcc/model/types.ts";
import { SeededRandom } from "../model.ts";

const shapes: Record<string, (random: SeededRandom, i: number) => string> = {
  "random keys": (random) => String(random.below(20_000)),
  "ascending keys": (_random, i) => String(i).padStart(8, "0"),
  "descending keys": (_random, i) => String(1e8 - i),
  "keys of one long prefix": (random) => `/registry/pods/default/${random.below(20_000)}`,
  "arbitrary bytes": (random) =>
    String.fromCharCode(...Array.from({ length: 1 + random.below(5) }, () => random.below(256))),
};

for (const [name, keyOf] of Object.entries(shapes)) {
  test(`the index finds, orders and counts ${name} like a sorted array`, () => {
    const random = new SeededRandom(name.length);
    const index = new KeyIndex(random.below(2 ** 32));
    const model = new Map<string, boolean>();
    let main = 1;
    // Grows, shrinks to almost nothing, and grows again.
    for (const [steps, insertPart] of [
      [8000, 90],
      [12_000, 5],
      [3000, 80],
    ] as const) {
      for (let step = 0; step < steps; step++) {
        main++;
        if (random.below(100) < insertPart || model.size === 0) {
          const key = keyOf(random, main);
          const entry = index.find(fromByteString(key));
          assert.equal(entry !== undefined, model.has(key));
          if (entry === undefined) index.insert(new KeyEntry(key, main, 0, 1, main));
          else if (entry.live) index.tombstone(entry, main, 0);
          else index.put(entry, main, 0);
          model.set(key, !model.get(key));
        } else {
          const keys = [...model.keys()];
          for (let n = 0; n < 50 && model.size > 0; n++, step++) {
            main++;
            const key = keys[random.below(keys.length)]!;
            if (!model.has(key)) continue;
            const entry = index.findString(key)!;
            if (entry.live) index.tombstone(entry, main, 0);
            index.remove(entry);
            model.delete(key);
          }
        }
      }
      compare();
    }

    function compare(): void {
      const sorted = [...model.keys()].sort();
      assert.equal(index.size, sorted.length);
      assert.equal(index.liveCount, sorted.filter((key) => model.get(key)).length);
      const seen: string[] = [];
      index.visit("", null, (entry) => {
        seen.push(entry.key);
        return true;
      });
      assert.deepEqual(seen, sorted);
      const some = [...sorted, "x"];
      for (let i = 0; i < 200; i++) {
        const start = random.below(2) === 0 ? keyOf(random, random.below(main)) : random.pick(some);
        const end =
          random.below(5) === 0 ? null : random.below(2) === 0 ? keyOf(random, random.below(main)) : random.pick(some);
        const expected = sorted.filter((key) => key >= start && (end === null || key < end));
        assert.equal(index.countLive(start, end), expected.filter((key) => model.get(key)).length);
        const limit = 1 + random.below(300);
        const visited: string[] = [];
        index.visit(start, end, (entry) => {
          visited.push(entry.key);
          return visited.length < limit;
        });
        assert.deepEqual(visited, expected.slice(0, limit));
        const live: string[] = [];
        index.visitLive(start, end, (entry) => {
          live.push(entry.key);
          return live.length < limit;
        });
        assert.deepEqual(live, expected.filter((key) => model.get(key)).slice(0, limit));
        assert.equal(index.find(fromByteString(start))?.key, model.has(start) ? start : undefined);
      }
    }
  });
}

test("byte strings order as bytes do", () => {
  const random = new SeededRandom(3);
  const keys = Array.from({ length: 500 }, () =>
    Buffer.from(Array.from({ length: random.below(6) }, () => random.below(256))),
  );
  const byBytes = [...keys].sort(Buffer.compare).map(toByteString);
  assert.deepEqual(keys.map(toByteString).sort(), byBytes);
  for (const key of keys) assert.ok(fromByteString(toByteString(key)).equals(key));
});
