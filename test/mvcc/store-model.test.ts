// Slow: long random histories.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { nullLogger } from "../../src/base/log.ts";
import { SliceBudget } from "../../src/base/slice-budget.ts";
import type { Backend } from "../../src/mvcc/backend/backend.ts";
import { BoltBackend } from "../../src/mvcc/backend/bolt-backend.ts";
import {
  type ByteString,
  CompactedError,
  FROM_KEY,
  keyString,
  type LeaseAttachments,
} from "../../src/mvcc/model/types.ts";
import { MvccStore, type WriteTxn } from "../../src/mvcc/store/store.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import { Model, SeededRandom } from "./model.ts";

class Leases implements LeaseAttachments {
  readonly attached = new Map<ByteString, bigint>();
  get isEmpty(): boolean {
    return this.attached.size === 0;
  }
  leaseOf(key: ByteString): bigint {
    return this.attached.get(key) ?? 0n;
  }
  attach(lease: bigint, key: ByteString): boolean {
    this.attached.set(key, lease);
    return true;
  }
  detach(lease: bigint, key: ByteString): void {
    assert.equal(this.attached.get(key), lease);
    this.attached.delete(key);
  }
}

const bytes = (text: string): Buffer => Buffer.from(text, "latin1");

interface Kind {
  readonly name: string;
  readonly seeds: readonly number[];
  create(dir: string): Backend;
  /** Ends the backend after a commit and reopens what is left. */
  restart(backend: Backend): Promise<Backend>;
}

const clock = systemClock;
const bolt = (path: string): Backend =>
  new BoltBackend({
    path,
    clock,
    logger: nullLogger,
    batchIntervalMs: 1,
    onFailure: (error) => {
      throw error;
    },
  });

// KVORUM_SEED runs one other history on each kind.
const chosen = process.env["KVORUM_SEED"];
const kinds: Kind[] = [
  {
    name: "in memory",
    seeds: [1, 2, 3, 4, 5, 6],
    create: () => new MemoryBackend({ clock }),
    restart: async (backend) => new MemoryBackend({ clock, file: (backend as MemoryBackend).crash() }),
  },
  {
    name: "in a bbolt file",
    seeds: [7, 8, 9],
    create: (dir) => bolt(join(dir, "db")),
    async restart(backend) {
      await backend.close();
      return bolt((backend as BoltBackend).path);
    },
  },
];

const runs = kinds.flatMap((kind) => (chosen ? [Number(chosen)] : kind.seeds).map((seed) => [kind, seed] as const));

for (const [kind, seed] of runs) {
  test(`a random history ${kind.name} reads as a naive model says, through compactions and restarts (seed ${seed})`, async (t) => {
    const random = new SeededRandom(seed);
    const dir = await mkdtemp(join(tmpdir(), "kvorum-model-"));
    let backend = kind.create(dir);
    t.after(async () => {
      await store.close();
      await backend.close();
      await rm(dir, { recursive: true, force: true });
    });
    let leases = new Leases();
    const open = (): Promise<MvccStore> =>
      MvccStore.open({
        backend,
        clock,
        logger: nullLogger,
        leases,
        compactionBatchLimit: 1 + random.below(20),
        compactionSleepMs: 0,
      });
    let store = await open();
    const model = new Model();
    // As a range end, one zero byte means "from the key on".
    const keys = Array.from({ length: 30 }, () =>
      Buffer.from(Array.from({ length: 1 + random.below(4) }, () => random.pick([0, 1, 97, 98, 255]))).toString(
        "latin1",
      ),
    ).filter((key) => key !== "\0");
    let compaction: Promise<void> = Promise.resolve();

    for (let step = 0; step < 600; step++) {
      // Commits of the batches run in between.
      if (random.below(4) === 0) await new Promise((resolve) => setImmediate(resolve));
      const what = random.below(100);
      if (what < 75) await write();
      else if (what < 97) compareRange();
      else if (what < 99 && model.revision > 2) {
        const revision = Math.max(model.compactRevision + 1, 1) + random.below(model.revision);
        if (revision <= model.revision) {
          compaction = store.compact(revision);
          model.compactRevision = revision;
          if (random.below(2) === 0) await compaction;
        }
      } else await restart();
    }
    await compaction;
    for (let revision = Math.max(1, model.compactRevision); revision <= model.revision; revision++) {
      compare(revision, "", null, 0);
    }
    assert.throws(
      () =>
        store.range(bytes("a"), null, { revision: model.compactRevision - 1, limit: 0, countOnly: false }, () => {}),
      model.compactRevision > 1 ? CompactedError : Error,
    );

    /** One transaction, in one turn or in many; some of the latter are left halfway, as by a crash. */
    async function write(): Promise<void> {
      const txn = store.begin();
      const isLong = random.below(4) === 0;
      const isGivenUp = isLong && random.below(4) === 0;
      const main = model.revision + 1;
      const touched = new Set<string>();
      for (let n = random.below(4); n >= 0; n--) {
        const key = random.pick(keys);
        if (random.below(3) > 0) {
          if (touched.has(key)) continue;
          touched.add(key);
          const value = `v${random.below(1000)}`;
          const lease = random.below(4) === 0 ? BigInt(1 + random.below(3)) : 0n;
          model.put(main, txn.changeCount, key, value, lease);
          txn.put(bytes(key), bytes(value), lease);
        } else {
          const end = random.below(2) === 0 ? undefined : random.below(4) === 0 ? null : random.pick(keys);
          const doomed = model.range(main, key, end).filter((row) => !touched.has(row.key));
          if (model.range(main, key, end).length !== doomed.length) continue;
          for (const [i, row] of doomed.entries()) {
            model.delete(main, txn.changeCount + i, row.key);
            touched.add(row.key);
          }
          const before = txn.changeCount;
          if (end === undefined || random.below(2) === 0) {
            txn.deleteRange(bytes(key), end === undefined ? null : end === null ? FROM_KEY : bytes(end));
          } else {
            const stop = end === null ? null : bytes(end);
            for (let next: Uint8Array | null = bytes(key); next !== null; ) {
              next = txn.deleteSlice(next, stop, new SliceBudget(1 + random.below(3), 1000));
              if (isLong) await elsewhere(txn);
            }
          }
          assert.equal(txn.changeCount - before, doomed.length);
        }
        if (isLong && random.below(2) === 0) await elsewhere(txn);
        const seen = txn.rangeDecoded(bytes("\0"), FROM_KEY, { revision: 0, limit: 0, countOnly: false });
        assert.deepEqual(
          seen.kvs.map((kv) => kv.modRevision),
          model.range(main, "\0", null).map((row) => row.main),
        );
      }
      if (isGivenUp) {
        txn.becomeLong();
        model.rows = model.rows.filter((row) => row.main < main);
        await restart();
        return;
      }
      const changed = txn.changeCount > 0;
      txn.end();
      if (changed) model.revision = main;
      assert.equal(store.currentRevision, model.revision);
    }

    /** Actions and reads of others during a transaction: they see the previous revision. */
    async function elsewhere(txn: WriteTxn): Promise<void> {
      txn.becomeLong();
      if (random.below(4) === 0) void backend.commit();
      await new Promise((resolve) => setImmediate(resolve));
      compareRange();
      assert.equal(store.currentRevision, model.revision);
      assert.equal(store.keyCount, model.at(model.revision).length);
    }

    function compareRange(): void {
      const low = Math.max(1, model.compactRevision);
      const revision = random.below(3) === 0 ? 0 : low + random.below(model.revision - low + 1);
      const end = random.below(3) === 0 ? undefined : random.below(3) === 0 ? null : random.pick(keys);
      compare(revision, random.pick(keys), end, random.below(6));
    }

    function compare(revision: number, start: string, end: string | null | undefined, limit: number): void {
      const expected = model.range(revision === 0 ? model.revision : revision, start, end);
      const rangeEnd = end === undefined ? null : end === null ? FROM_KEY : bytes(end);
      const result = store.rangeDecoded(bytes(start), rangeEnd, { revision, limit, countOnly: false });
      const wanted = limit > 0 ? expected.slice(0, limit) : expected;
      assert.deepEqual(
        result.kvs.map((kv) => [
          Buffer.from(kv.key).toString("latin1"),
          Buffer.from(kv.value).toString("latin1"),
          kv.modRevision,
          kv.createRevision,
          kv.version,
          kv.lease,
        ]),
        wanted.map((row) => [row.key, row.value, row.main, row.create, row.version, row.lease]),
      );
      assert.equal(result.count, expected.length);
      const counted = store.rangeDecoded(bytes(start), rangeEnd, { revision, limit, countOnly: true });
      assert.deepEqual([counted.count, counted.kvs.length], [expected.length, 0]);
      const named: unknown[] = [];
      store.rangeKeys(bytes(start), rangeEnd, { revision, limit, countOnly: false }, (key, ...rest) =>
        named.push([keyString(key), ...rest]),
      );
      assert.deepEqual(
        named,
        wanted.map((row) => [row.key, row.main, row.create, row.version]),
      );
    }

    async function restart(): Promise<void> {
      await backend.commit();
      await store.close();
      backend = await kind.restart(backend);
      leases = new Leases();
      store = await open();
      assert.equal(store.currentRevision, model.revision);
      assert.equal(store.compactRevision, model.compactRevision);
      const wanted = model.at(model.revision).filter((row) => row.lease !== 0n);
      assert.deepEqual(new Map([...leases.attached].sort()), new Map(wanted.map((row) => [row.key, row.lease])));
    }
  });
}
