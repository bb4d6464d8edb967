import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { RevisionSet } from "../../../src/mvcc/model/revision-set.ts";
import { SeededRandom } from "../model.ts";

/** Every revision of transactions with so many changes each. */
function* revisions(sizes: Iterable<number>): Generator<readonly [main: number, sub: number]> {
  let main = 2;
  for (const size of sizes) {
    for (let sub = 0; sub < size; sub++) yield [main, sub];
    main++;
  }
}

test("a set of revisions has what was added, in any order, and nothing else", () => {
  const random = new SeededRandom(3);
  const sizes = Array.from({ length: 300 }, (_, i) =>
    i % 50 === 7 ? 70_000 : 1 + random.below(3) * random.below(900),
  );
  const added = new RevisionSet();
  const expected = new Set<string>();
  for (const [main, sub] of [...revisions(sizes)].reverse()) {
    if (random.below(3) > 0) continue;
    added.add(main, sub);
    expected.add(`${main}.${sub}`);
  }
  assert.equal(added.size, expected.size);
  for (const [main, sub] of revisions(sizes)) {
    if (added.has(main, sub) !== expected.has(`${main}.${sub}`)) assert.fail(`${main}.${sub}`);
  }
});

/** The largest number of elements that a Set was made of meanwhile. */
function largestSet(t: TestContext, action: () => void): number {
  let most = 0;
  const { Set: original } = globalThis;
  t.after(() => (globalThis.Set = original));
  globalThis.Set = class<T> extends original<T> {
    constructor(items?: Iterable<T> | null) {
      super(items);
      most = Math.max(most, this.size);
    }
  } as SetConstructor;
  action();
  globalThis.Set = original;
  return most;
}

for (const [what, sizes] of [
  ["many transactions of a hundred changes", Array.from({ length: 3000 }, () => 100)],
  ["one transaction of many changes", [400_000]],
] as const) {
  test(`no query takes long in a set of ${what}`, (t) => {
    const added = new RevisionSet();
    for (const [main, sub] of revisions(sizes)) added.add(main, sub);
    const most = largestSet(t, () => {
      for (const [main, sub] of revisions(sizes)) if (!added.has(main, sub)) assert.fail(`${main}.${sub}`);
    });
    assert.ok(most > 1000 && most < 50_000, `${most} revisions were hashed at once`);
  });
}
