import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { MvccStore } from "../../../src/mvcc/store/store.ts";
import {
  type RangeRequest,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from "../../../src/proto/etcdserverpb.ts";
import { executeRange, isPlainRange, rangeEndOf } from "../../../src/server/apply/range.ts";
import { MemoryBackend } from "../../harness/memory-backend.ts";
import { bytes, range, text } from "../requests.ts";

describe("a range", () => {
  let store: MvccStore;
  before(async () => {
    const backend = new MemoryBackend({ clock: systemClock });
    store = await MvccStore.open({ backend, clock: systemClock, logger: nullLogger });
    // Created at 2, 3, 4 with values in reverse order; "a" modified last, so its version is 2.
    for (const [key, value] of [
      ["a", "9"],
      ["b", "5"],
      ["c", "1"],
      ["a", "7"],
    ] as const) {
      const txn = store.begin();
      txn.put(bytes(key), bytes(value), 0n);
      txn.end();
    }
  });

  const ask = (fields: Partial<RangeRequest>) => executeRange(store, range("a", "z", fields));
  const keys = (fields: Partial<RangeRequest>): string =>
    ask(fields)
      .kvs.map(({ key }) => text(key))
      .join("");

  test("is in key order unless another is requested", () => {
    const { NONE, ASCEND, DESCEND } = SortOrder;
    assert.equal(keys({}), "abc");
    assert.equal(keys({ sortOrder: DESCEND }), "cba");
    assert.equal(keys({ sortTarget: SortTarget.VALUE, sortOrder: ASCEND }), "cba");
    assert.equal(keys({ sortTarget: SortTarget.VALUE, sortOrder: DESCEND }), "abc");
    assert.equal(keys({ sortTarget: SortTarget.VALUE, sortOrder: NONE }), "cba", "a target alone means ascending");
    assert.equal(keys({ sortTarget: SortTarget.MOD, sortOrder: ASCEND }), "bca");
    assert.equal(keys({ sortTarget: SortTarget.CREATE, sortOrder: DESCEND }), "cba");
    assert.equal(keys({ sortTarget: SortTarget.VERSION, sortOrder: DESCEND })[0], "a");
  });

  test("is limited after sorting, and reports that there is more and how many there are", () => {
    const response = ask({ sortTarget: SortTarget.MOD, sortOrder: SortOrder.DESCEND, limit: 2 });
    assert.deepEqual(
      response.kvs.map(({ key }) => text(key)),
      ["a", "c"],
    );
    assert.equal(response.more, true);
    assert.equal(response.count, 3);
    assert.equal(ask({ limit: 3 }).more, false);
  });

  test("can be filtered by revisions, which does not change its count", () => {
    assert.equal(keys({ minModRevision: 4 }), "ac");
    assert.equal(keys({ maxModRevision: 4 }), "bc");
    assert.equal(keys({ minCreateRevision: 3 }), "bc");
    assert.equal(keys({ maxCreateRevision: 3, limit: 1 }), "a");
    assert.equal(ask({ minModRevision: 4 }).count, 3);
  });

  test("reads the state of an earlier revision", () => {
    const response = ask({ revision: 2 });
    assert.deepEqual(
      response.kvs.map(({ key, value }) => `${text(key)}${text(value)}`),
      ["a9"],
    );
    assert.equal(response.header!.revision, 5);
  });

  test("can be of keys alone, or only counted", () => {
    assert.ok(ask({ keysOnly: true }).kvs.every(({ value }) => value.length === 0));
    const counted = ask({ countOnly: true, limit: 1 });
    assert.deepEqual([counted.kvs.length, counted.count, counted.more], [0, 3, false]);
  });

  test("ends before its end, at one key without an end, and never with a zero byte as the end", () => {
    assert.equal(executeRange(store, range("a", "c")).count, 2);
    assert.equal(executeRange(store, range("a")).count, 1);
    assert.equal(executeRange(store, range("b", "\0")).count, 2);
    assert.equal(executeRange(store, range("c", "a")).count, 0);
    assert.equal(rangeEndOf(bytes("")), null);
  });

  test("is plain when the store's own order satisfies it", () => {
    assert.equal(isPlainRange(range("a", "z", { limit: 3, sortOrder: SortOrder.ASCEND })), true);
    assert.equal(isPlainRange(range("a", "z", { sortOrder: SortOrder.DESCEND })), false);
    assert.equal(isPlainRange(range("a", "z", { minModRevision: 1 })), false);
  });
});

test("the first few of many in an order are those that sorting all gives", async () => {
  const backend = new MemoryBackend({ clock: systemClock });
  const store = await MvccStore.open({ backend, clock: systemClock, logger: nullLogger });
  for (let i = 0; i < 400; i++) {
    const txn = store.begin();
    txn.put(bytes(`k${(i * 37) % 200}`), bytes(`${i}`), 0n);
    txn.end();
  }
  for (const sortTarget of [SortTarget.CREATE, SortTarget.MOD, SortTarget.VERSION]) {
    for (const sortOrder of [SortOrder.ASCEND, SortOrder.DESCEND]) {
      for (const fields of [
        {},
        { keysOnly: true },
        { maxCreateRevision: 100 },
        { minModRevision: 250 },
        { revision: 300 },
      ]) {
        const all = executeRange(store, range("k", "l", { sortTarget, sortOrder, ...fields }));
        for (const limit of [1, 3, 8]) {
          const few = executeRange(store, range("k", "l", { sortTarget, sortOrder, limit, ...fields }));
          assert.deepEqual(few.kvs, all.kvs.slice(0, limit));
          assert.deepEqual([few.count, few.more], [all.count, all.kvs.length > limit]);
        }
      }
    }
  }
});
