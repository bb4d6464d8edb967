import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { InvariantError } from "../../../src/base/fatal.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { metaKeys } from "../../../src/mvcc/backend/backend.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { revisionBytes } from "../../../src/mvcc/model/revision.ts";
import { type Change, CompactedError, FROM_KEY, FutureRevisionError } from "../../../src/mvcc/model/types.ts";
import { MvccStore, type MvccStoreOptions } from "../../../src/mvcc/store/store.ts";
import { KeyValue } from "../../../src/proto/mvccpb.ts";
import { MemoryBackend, type MemoryBackendFile } from "../../harness/memory-backend.ts";

const everything = { revision: 0, limit: 0, countOnly: false };
const key = (text: string): Buffer => Buffer.from(text);

function openOn(backend: BoltBackend): Promise<MvccStore> {
  return MvccStore.open({ backend, clock: systemClock, logger: nullLogger, compactionSleepMs: 0 });
}

function openStore(options: Partial<MvccStoreOptions> = {}): Promise<{ store: MvccStore; backend: MemoryBackend }> {
  const backend = new MemoryBackend({ clock: systemClock });
  return MvccStore.open({
    backend,
    clock: systemClock,
    logger: nullLogger,
    compactionSleepMs: 0,
    ...options,
  }).then((store) => ({ store, backend }));
}

function put(store: MvccStore, name: string, value = "v"): void {
  const txn = store.begin();
  txn.put(key(name), key(value), 0n);
  txn.end();
}

function remove(store: MvccStore, name: string): void {
  const txn = store.begin();
  txn.deleteRange(key(name), null);
  txn.end();
}

function storedRows(store: MvccStore): string[] {
  const rows: string[] = [];
  store.forEachRevision(0, 1e9, 0, (main, sub, tombstone) => {
    rows.push(`${main}.${sub}${tombstone ? "t" : ""}`);
    return true;
  });
  return rows;
}

test("an empty store is at revision 1 and a transaction that changes nothing does not move it", async () => {
  const { store } = await openStore();
  assert.deepEqual([store.currentRevision, store.compactRevision, store.keyCount], [1, -1, 0]);
  const txn = store.begin();
  assert.equal(txn.deleteRange(key("a"), FROM_KEY), 0);
  assert.equal(txn.revision, 1);
  txn.end();
  assert.equal(store.currentRevision, 1);
});

test("all changes of a transaction share one revision, which only it sees before it ends", async () => {
  const { store } = await openStore();
  put(store, "a");
  const txn = store.begin();
  txn.put(key("b"), key("1"), 0n);
  txn.put(key("c"), key("2"), 0n);
  assert.equal(txn.deleteRange(key("a"), key("b")), 1);
  assert.equal(txn.revision, 3);
  assert.equal(txn.rangeDecoded(key("a"), FROM_KEY, everything).count, 2);
  assert.equal(txn.rangeDecoded(key("a"), FROM_KEY, { ...everything, revision: 2 }).count, 1);
  assert.deepEqual(
    store.rangeDecoded(key("a"), FROM_KEY, everything).kvs.map((kv) => String(kv.key)),
    ["a"],
  );
  assert.throws(() => store.rangeDecoded(key("a"), null, { ...everything, revision: 3 }), FutureRevisionError);
  txn.end();
  assert.equal(store.currentRevision, 3);
  assert.deepEqual(storedRows(store), ["2.0", "3.0", "3.1", "3.2t"]);
  assert.equal(store.keyCount, 2);
});

test("a second transaction, or one used after its end, breaks an invariant", async () => {
  const { store } = await openStore();
  const txn = store.begin();
  assert.throws(() => store.begin(), InvariantError);
  txn.end();
  assert.throws(() => txn.put(key("a"), key("b"), 0n), InvariantError);
  assert.throws(() => txn.end(), InvariantError);
});

test("the change listener gets each transaction's changes in order, with the bytes the backend stores", async () => {
  const { store, backend } = await openStore();
  const heard: [number, number, readonly Change[]][] = [];
  store.onChange((revision, changes) => heard.push([revision, store.currentRevision, changes as readonly Change[]]));
  put(store, "a", "1");
  const txn = store.begin();
  txn.put(key("a"), key("2"), 0n);
  txn.deleteRange(key("a"), null);
  txn.end();
  store.begin().end();
  assert.deepEqual(
    heard.map(([revision, current, changes]) => [revision, current, changes.map((c) => [c.main, c.sub, c.tombstone])]),
    [
      [2, 2, [[2, 0, false]]],
      [
        3,
        3,
        [
          [3, 0, false],
          [3, 1, true],
        ],
      ],
    ],
  );
  const [put1] = heard[0]![2];
  assert.deepEqual(KeyValue.decode(put1!.bytes, put1!.start, put1!.end), {
    ...KeyValue.create({ createRevision: 2, modRevision: 2, version: 1 }),
    key: key("a"),
    value: key("1"),
  });
  await backend.commit();
});

test("reads below the compact revision or above the current one fail, for any request", async () => {
  const { store } = await openStore();
  for (let i = 0; i < 10; i++) put(store, `k${i}`);
  const done = store.compact(5);
  assert.equal(store.compactRevision, 5);
  for (const end of [null, FROM_KEY]) {
    for (const countOnly of [false, true]) {
      const at = (revision: number) => () => store.range(key("k0"), end, { revision, limit: 0, countOnly }, () => {});
      assert.throws(at(4), (error) => error instanceof CompactedError && error.compactRevision === 5);
      assert.throws(at(12), (error) => error instanceof FutureRevisionError && error.currentRevision === 11);
      at(5)();
      at(11)();
    }
  }
  assert.throws(() => store.compact(5), CompactedError);
  assert.throws(() => store.compact(12), FutureRevisionError);
  await assert.rejects(store.hashKv(4), CompactedError);
  await assert.rejects(store.hashKv(12), FutureRevisionError);
  await done;
});

test("compaction deletes unreadable revisions, and keeps a tombstone only at its own revision", async () => {
  const { store, backend } = await openStore();
  put(store, "a"); // 2
  put(store, "a"); // 3
  put(store, "b"); // 4
  remove(store, "b"); // 5
  put(store, "c"); // 6
  remove(store, "c"); // 7
  put(store, "a"); // 8
  await store.compact(7);
  assert.deepEqual(storedRows(store), ["3.0", "7.0t", "8.0"]);
  await store.compact(8);
  assert.deepEqual(storedRows(store), ["8.0"]);
  assert.deepEqual(backend.get("meta", metaKeys.finishedCompact), revisionBytes(8, 0));
  assert.deepEqual(backend.get("meta", metaKeys.scheduledCompact), revisionBytes(8, 0));
});

test("a store whose last revisions were compacted away keeps its revision over a restart", async () => {
  const { store, backend } = await openStore();
  put(store, "a");
  remove(store, "a");
  put(store, "b");
  remove(store, "b"); // 5
  await store.compact(5);
  await backend.commit();
  const again = await openStore({ backend: new MemoryBackend({ clock: systemClock, file: backend.crash() }) });
  assert.deepEqual([again.store.currentRevision, again.store.compactRevision], [5, 5]);
  put(again.store, "c");
  assert.equal(again.store.currentRevision, 6);
});

test("a compaction interrupted by a crash is finished after the restart, with the same hash as elsewhere", async () => {
  const fill = (store: MvccStore): void => {
    for (let i = 0; i < 400; i++) {
      if (i % 7 === 0) remove(store, `k${i % 40}`);
      else put(store, `k${i % 50}`, `v${i}`);
    }
  };
  const whole = await openStore();
  fill(whole.store);
  await whole.store.compact(300);
  const expected = storedRows(whole.store);
  const hash = await whole.store.hashKv(350);

  // The victim commits each batch of ten rows at once and crashes after some of them.
  for (const batchCount of [0, 1, 5, 20]) {
    const backend = new MemoryBackend({ clock: systemClock });
    const { store } = await openStore({ backend, compactionBatchLimit: 10 });
    fill(store);
    let left: MemoryBackendFile | undefined;
    let commits = 0;
    const commit = backend.commit.bind(backend);
    backend.commit = async () => {
      await commit();
      if (commits++ === batchCount) left = backend.crash();
    };
    void store.compact(300).catch(() => {});
    await commit();
    if (batchCount === 0) left = backend.crash();
    while (left === undefined) await new Promise((resolve) => setImmediate(resolve));

    const next = new MemoryBackend({ clock: systemClock, file: left });
    const reopened = await openStore({ backend: next });
    assert.equal(reopened.store.compactRevision, 300);
    while (next.get("meta", metaKeys.finishedCompact) === undefined) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(storedRows(reopened.store), expected);
    assert.equal((await reopened.store.hashKv(350)).hash, hash.hash);
    await reopened.store.close();
  }
});

test("HashKV during a compaction and writes is the same as without them", async () => {
  const { store } = await openStore({ compactionBatchLimit: 5 });
  for (let i = 0; i < 300; i++) put(store, `k${i % 60}`, `v${i}`);
  const calm = await store.hashKv(200);
  const running = store.hashKv(200);
  const compacted = store.compact(150);
  for (let i = 0; i < 50; i++) put(store, `k${i % 60}`, `w${i}`);
  assert.deepEqual((await running).hash, calm.hash);
  const during = await store.hashKv(250);
  await compacted;
  assert.equal((await store.hashKv(250)).hash, during.hash);
  assert.equal(during.compactRevision, 150);
});

test("HashKV where no key is left does not depend on a compaction's progress", async () => {
  const { store } = await openStore({ compactionBatchLimit: 5, compactionSleepMs: 20 });
  for (let i = 0; i < 100; i++) put(store, `k${i % 30}`, `v${i}`);
  const compacted = store.compact(90);
  const txn = store.begin();
  txn.deleteRange(key("k"), key("l"));
  txn.end();
  const before = storedRows(store).length;
  const during = await store.hashKv(0);
  await compacted;
  assert.ok(storedRows(store).length < before, "it had not come to its end");
  assert.deepEqual(await store.hashKv(0), during);
});

test("HashKV of the compact revision is the hash from before the compaction", async () => {
  const { store } = await openStore();
  for (let i = 0; i < 50; i++) put(store, `k${i % 6}`, `v${i}`);
  const before = await store.hashKv(30);
  await store.compact(30);
  assert.deepEqual(await store.hashKv(30), before);
  assert.deepEqual(store.compactionHashes(), [{ hash: before.hash, compactRevision: -1, revision: 30, hasKeys: true }]);
  assert.equal((await store.hashKv(31)).compactRevision, 30);
});

test("a replaced backend replaces everything: keys, revisions, hashes and running compactions", async () => {
  const source = await openStore();
  for (let i = 0; i < 20; i++) put(source.store, `new${i}`);
  await source.store.compact(10);
  await source.backend.commit();
  const sourceRows = storedRows(source.store);

  const { store } = await openStore({ compactionBatchLimit: 2, compactionSleepMs: 3_600_000 });
  for (let i = 0; i < 100; i++) put(store, `old${i % 10}`);
  const interrupted = store.compact(90);
  let restored = 0;
  store.onRestore(() => restored++);
  await store.replaceBackend(new MemoryBackend({ clock: systemClock, file: source.backend.crash() }));
  assert.equal(restored, 1);
  await interrupted;
  assert.deepEqual([store.currentRevision, store.compactRevision, store.keyCount], [21, 10, 20]);
  assert.equal(store.rangeDecoded(key("old"), key("old\xff"), everything).count, 0);
  assert.deepEqual(storedRows(store), sourceRows);
});

test("HashKV while the backend is replaced is that of one state, the one before or the one after", async () => {
  /** Views wait at a gate. */
  class GatedBackend extends MemoryBackend {
    open = (): void => {};
    readonly #gate = new Promise<void>((resolve) => {
      this.open = resolve;
    });

    override async snapshot(): ReturnType<MemoryBackend["snapshot"]> {
      await this.#gate;
      return super.snapshot();
    }
  }
  const history = (store: MvccStore): void => {
    for (let i = 0; i < 30; i++) put(store, `k${i % 7}`);
  };
  const source = await openStore();
  history(source.store);
  await source.store.compact(20);
  await source.backend.commit();
  const expected = await source.store.hashKv(25);

  for (const [revision, answer] of [
    [10, CompactedError],
    [25, expected.hash],
  ] as const) {
    const backend = new GatedBackend({ clock: systemClock });
    const store = await MvccStore.open({ backend, clock: systemClock, logger: nullLogger, compactionSleepMs: 0 });
    history(store);
    const asked = store.hashKv(revision).then(
      ({ hash }) => hash,
      (error: unknown) => (error as object).constructor,
    );
    await store.replaceBackend(new MemoryBackend({ clock: systemClock, file: source.backend.crash() }));
    backend.open();
    assert.equal(await asked, answer);
    await store.close();
  }
});

test("closing a store ends hashes that wait for a long transaction, which will not end", async () => {
  const dir = await mkdtemp(join(tmpdir(), "kvorum-store-"));
  const path = join(dir, "db");
  const onFailure = (error: unknown): never => assert.fail(`${error}`);
  let backend = new BoltBackend({ path, clock: systemClock, logger: nullLogger, onFailure });
  let store = await openOn(backend);
  put(store, "a");
  const txn = store.begin();
  txn.put(key("b"), key("v"), 0n);
  txn.becomeLong();
  const hashes = Promise.allSettled([store.hashKv(0), store.hash(), store.hashKv(2)]);
  await backend.commit();
  await store.close();
  for (const result of await hashes) {
    assert.equal(result.status === "rejected" && result.reason.code, "ERR_BACKEND_CLOSED");
  }
  await backend.close();

  backend = new BoltBackend({ path, clock: systemClock, logger: nullLogger, onFailure });
  store = await openOn(backend);
  assert.equal(store.currentRevision, 2, "what the long transaction wrote is gone");
  await store.close();
  await backend.close();
  await rm(dir, { recursive: true });
});

test("closing a store does not wait for the pause of a compaction, which the next start continues", async () => {
  const { store, backend } = await openStore({ compactionBatchLimit: 1, compactionSleepMs: 3_600_000 });
  for (let i = 0; i < 10; i++) put(store, "k", `v${i}`);
  const compacted = store.compact(6);
  let commits = 0;
  const commit = backend.commit.bind(backend);
  backend.commit = async () => {
    await commit();
    commits++;
  };
  while (commits === 0) await new Promise((resolve) => setImmediate(resolve));
  await store.close();
  await compacted;
  assert.equal(backend.get("meta", metaKeys.finishedCompact), undefined);
  const next = new MemoryBackend({ clock: systemClock, file: backend.crash() });
  const reopened = await openStore({ backend: next });
  while (next.get("meta", metaKeys.finishedCompact) === undefined) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  await reopened.store.close();
});

test("one history gives the same hashes in memory and in a bbolt file", async () => {
  const dir = await mkdtemp(join(tmpdir(), "kvorum-store-"));
  try {
    const bolt = new BoltBackend({
      path: join(dir, "db"),
      clock: systemClock,
      logger: nullLogger,
      onFailure: (error) => {
        throw error;
      },
    });
    const stores = [(await openStore()).store, (await openStore({ backend: bolt })).store];
    const seen = [];
    for (const store of stores) {
      for (let i = 0; i < 3000; i++) {
        if (i % 5 === 0) remove(store, `k${i % 35}`);
        else put(store, `k${i % 50}`, `v${i}`);
      }
      const first = await store.hashKv(0);
      await store.compact(2000);
      seen.push([first, await store.hashKv(0), await store.hash(), storedRows(store)]);
      await store.close();
    }
    assert.deepEqual(seen[0], seen[1]);
    await bolt.close();
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
