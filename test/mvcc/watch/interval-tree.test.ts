import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { IntervalTree } from "../../../src/mvcc/watch/interval-tree.ts";
import { seeded } from "../../harness/random.ts";

describe("the interval tree", () => {
  it("finds the same as a list of all ranges, whatever is inserted and removed", () => {
    const random = seeded(3);
    const tree = new IntervalTree<string>();
    const ranges = new Map<string, [string, string]>();
    const key = () => Array.from({ length: random.below(4) }, () => random.pick(["\0", "a", "b", "\xff"])).join("");
    for (let step = 0; step < 20_000; step++) {
      const start = key();
      const end = random.chance(0.1) ? "" : key();
      const name = JSON.stringify([start, end]);
      if ((end === "" || start < end) && random.chance(ranges.size < 200 ? 0.6 : 0.4)) {
        assert.equal(tree.get(start, end), ranges.has(name) ? name : undefined);
        if (!ranges.has(name)) tree.insert(start, end, name);
        ranges.set(name, [start, end]);
      } else if (ranges.size > 0) {
        const victim = random.pick([...ranges.keys()]);
        tree.remove(...ranges.get(victim)!);
        ranges.delete(victim);
      }
      const probe = key();
      const found: string[] = [];
      tree.stab(probe, found);
      const expected = [...ranges].filter(([, [from, to]]) => from <= probe && (to === "" || probe < to));
      assert.deepEqual(found.sort(), expected.map(([name]) => name).sort());
      assert.equal(tree.size, ranges.size);
    }
    const values: string[] = [];
    tree.values(values);
    assert.deepEqual(values.sort(), [...ranges.keys()].sort());
  });

  it("stays balanced when ranges come in order", () => {
    const tree = new IntervalTree<number>();
    const count = 100_000;
    const name = (i: number) => `key/${String(i).padStart(6, "0")}`;
    for (let i = 0; i < count; i++) tree.insert(name(i), name(i + 1), i);
    const found: number[] = [];
    tree.stab(name(77_777), found);
    assert.deepEqual(found, [77_777]);
    for (let i = 0; i < count; i++) tree.remove(name(i), name(i + 1));
    assert.equal(tree.size, 0);
  });
});
