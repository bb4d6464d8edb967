import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { othersTurn } from "../../../src/base/others-turn.ts";
import { InlineWriter } from "../../../src/bolt/store-writer.ts";
import { type Backend, BackendError, BUCKETS, metaKeys } from "../../../src/mvcc/backend/backend.ts";
import { knownBuckets } from "../../../src/mvcc/backend/batch-records.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { dropUnfinished, isUnfinished } from "../../../src/mvcc/backend/long-write.ts";
import { hashBackend } from "../../../src/mvcc/store/hash.ts";
import { MemoryBackend, type MemoryBackendFile } from "../../harness/memory-backend.ts";
import { SimDisk } from "../../sim/disk.ts";
import { SeededRandom } from "../model.ts";

/** The promises of both backends. `reopen` closes cleanly first. */
interface Subject {
  readonly name: string;
  open(): Promise<Backend>;
  reopen(backend: Backend): Promise<Backend>;
}

const dirs: string[] = [];
const disks = new WeakMap<Backend, SimDisk>();
after(async () => {
  for (const dir of dirs) await rm(dir, { recursive: true, force: true });
});

const bolt = (path: string): Backend =>
  new BoltBackend({
    path,
    clock: systemClock,
    logger: nullLogger,
    batchIntervalMs: 1,
    onFailure: (error) => {
      throw error;
    },
  });

/** Without a thread, on a disk in memory. */
const inlineBolt = (disk: SimDisk): Backend => {
  disk.threadPool = (_operation, job) => setImmediate(job);
  return new BoltBackend({
    path: "/d/db",
    clock: systemClock,
    logger: nullLogger,
    batchIntervalMs: 1,
    storage: {
      disk,
      writer: (path) => new InlineWriter(disk, path, knownBuckets, () => othersTurn(systemClock)),
    },
    onFailure: (error) => {
      throw error;
    },
  });
};

const subjects: Subject[] = [
  {
    name: "the backend in memory",
    open: async () => new MemoryBackend({ clock: systemClock, batchIntervalMs: 1 }),
    async reopen(backend) {
      await backend.close();
      const file: MemoryBackendFile = (backend as MemoryBackend).crash();
      return new MemoryBackend({ clock: systemClock, file });
    },
  },
  {
    name: "the bbolt backend",
    async open() {
      const dir = await mkdtemp(join(tmpdir(), "kvorum-backend-"));
      dirs.push(dir);
      return bolt(join(dir, "db"));
    },
    async reopen(backend) {
      await backend.close();
      return bolt((backend as BoltBackend).path);
    },
  },
  {
    name: "the bbolt backend without a thread",
    async open() {
      const disk = new SimDisk();
      disk.makeDir("/d");
      const backend = inlineBolt(disk);
      disks.set(backend, disk);
      return backend;
    },
    async reopen(backend) {
      await backend.close();
      const disk = disks.get(backend)!;
      const next = inlineBolt(disk);
      disks.set(next, disk);
      return next;
    },
  },
];

const bytes = (text: string): Buffer => Buffer.from(text);
const smallKeys = (backend: Backend, bucket: "lease" | "meta"): string[] => {
  const seen: string[] = [];
  backend.forEach(bucket, (key, value) => seen.push(`${Buffer.from(key)}=${Buffer.from(value)}`));
  return seen;
};
const putRow = (backend: Backend, main: number, sub: number, text: string, tombstone = false): void => {
  const value = bytes(`<${text}>`);
  backend.putRevision(main, sub, tombstone, value, 1, value.length - 1);
};
const rows = (backend: Backend, from = 0, fromSub = 0, to = Number.POSITIVE_INFINITY): string[] => {
  const seen: string[] = [];
  backend.forEachRevision(from, fromSub, to, (main, sub, tombstone, value, start, end) => {
    seen.push(`${main}.${sub}${tombstone ? "t" : ""}=${Buffer.from(value.subarray(start, end))}`);
    return true;
  });
  return seen;
};
const row = (backend: Backend, main: number, sub: number): string | undefined => {
  const out = { bytes: Buffer.alloc(0) as Uint8Array, start: 0, end: 0 };
  return backend.getRevision(main, sub, out) ? String(Buffer.from(out.bytes.subarray(out.start, out.end))) : undefined;
};

for (const subject of subjects) {
  describe(subject.name, () => {
    test("reads a write at once, after its commit and after a restart", async () => {
      let backend = await subject.open();
      backend.put("lease", bytes("b"), bytes("2"));
      backend.put("lease", bytes("a"), bytes(""));
      putRow(backend, 2, 0, "two");
      putRow(backend, 2, 1, "gone", true);
      const check = (): void => {
        assert.deepEqual(smallKeys(backend, "lease"), ["a=", "b=2"]);
        assert.equal(String(backend.get("lease", bytes("b"))), "2");
        assert.equal(backend.get("lease", bytes("a"))?.length, 0);
        assert.equal(backend.get("meta", bytes("b")), undefined);
        assert.deepEqual(rows(backend), ["2.0=two", "2.1t=gone"]);
        assert.equal(row(backend, 2, 0), "two");
        assert.equal(row(backend, 2, 1), undefined);
        assert.equal(row(backend, 3, 0), undefined);
      };
      check();
      await backend.commit();
      check();
      backend = await subject.reopen(backend);
      check();
      await backend.close();
    });

    test("shows writes and deletions in order whether they are committed, being committed or waiting", async () => {
      const backend = await subject.open();
      for (let main = 2; main < 12; main++) putRow(backend, main, 0, `v${main}`);
      backend.put("meta", bytes("k"), bytes("1"));
      backend.put("meta", bytes("l"), bytes("1"));
      await backend.commit();
      putRow(backend, 12, 0, "v12");
      putRow(backend, 12, 1, "v12b");
      backend.deleteRevision(3, 0, false);
      backend.delete("meta", bytes("k"));
      const running = backend.commit();
      putRow(backend, 13, 0, "v13");
      backend.deleteRevision(4, 0, false);
      backend.deleteRevision(12, 0, false);
      backend.put("meta", bytes("j"), bytes("3"));
      const check = (): void => {
        const all = ["2.0=v2", ...[5, 6, 7, 8, 9, 10, 11].map((n) => `${n}.0=v${n}`), "12.1=v12b", "13.0=v13"];
        assert.deepEqual(rows(backend), all);
        assert.deepEqual(rows(backend, 11, 0, 13), ["11.0=v11", "12.1=v12b"]);
        assert.deepEqual(rows(backend, 12, 1), ["12.1=v12b", "13.0=v13"]);
        assert.deepEqual(rows(backend, 12, 2), ["13.0=v13"]);
        assert.deepEqual(rows(backend, 2, 0, 5), ["2.0=v2"]);
        assert.deepEqual(smallKeys(backend, "meta"), ["j=3", "l=1"]);
        assert.equal(backend.get("meta", bytes("k")), undefined);
      };
      check();
      await running;
      check();
      await backend.commit();
      check();
      await backend.close();
    });

    test("prevents a view from showing part of a long write, and marks a file left with one", async () => {
      let backend = await subject.open();
      putRow(backend, 2, 0, "whole");
      backend.beginLongWrite(3);
      putRow(backend, 3, 0, "part");
      await backend.commit();
      const waiting = backend.snapshot();
      putRow(backend, 3, 1, "rest");
      await backend.commit();
      backend.endLongWrite();
      const view = await waiting;
      const seen: string[] = [];
      view.forEachRevision(0, 0, (main, sub) => seen.push(`${main}.${sub}`) > 0);
      assert.deepEqual(seen, ["2.0", "3.0", "3.1"]);
      assert.equal(isUnfinished(view), false);
      view.close();

      backend.beginLongWrite(4);
      putRow(backend, 4, 0, "part");
      await backend.commit();
      putRow(backend, 4, 1, "more", true);
      backend = await subject.reopen(backend);
      assert.deepEqual(rows(backend, 3), ["3.0=part", "3.1=rest", "4.0=part", "4.1t=more"]);
      assert.equal(await dropUnfinished(backend, systemClock, nullLogger), 2);
      assert.equal(await dropUnfinished(backend, systemClock, nullLogger), 0);
      putRow(backend, 4, 0, "again");
      assert.deepEqual(rows(backend, 3), ["3.0=part", "3.1=rest", "4.0=again"]);
      backend = await subject.reopen(backend);
      assert.deepEqual(rows(backend, 3), ["3.0=part", "3.1=rest", "4.0=again"]);
      assert.deepEqual(smallKeys(backend, "meta"), []);
      await backend.close();
    });

    test("refuses a view that waits for a long write once that is abandoned", async () => {
      const backend = await subject.open();
      backend.beginLongWrite(3);
      putRow(backend, 3, 0, "part");
      const waiting = assert.rejects(backend.snapshot(), { code: "ERR_BACKEND_CLOSED" });
      backend.abandonLongWrite();
      await waiting;
      await assert.rejects(backend.snapshot(), { code: "ERR_BACKEND_CLOSED" });
      await backend.close();
    });

    test("stops a scan when the visitor says so", async () => {
      const backend = await subject.open();
      for (let main = 2; main < 6; main++) putRow(backend, main, 0, "x");
      await backend.commit();
      for (let main = 6; main < 9; main++) putRow(backend, main, 0, "x");
      for (const stopAt of [2, 5, 6, 8]) {
        let last = 0;
        backend.forEachRevision(0, 0, 100, (main) => {
          last = main;
          return main < stopAt;
        });
        assert.equal(last, stopAt);
      }
      await backend.close();
    });

    test("puts the pre-commit hook's writes into the same batch, and never calls it inside a turn", async () => {
      let backend = await subject.open();
      let applied = 0;
      let isWriting = false;
      backend.setPreCommitHook(() => {
        assert.equal(isWriting, false);
        backend.put("meta", metaKeys.consistentIndex, bytes(String(applied)));
      });
      for (let turn = 0; turn < 5; turn++) {
        isWriting = true;
        for (let i = 0; i < 4000; i++) putRow(backend, 2 + turn * 4000 + i, 0, "x");
        applied += 4000;
        isWriting = false;
        await new Promise((resolve) => setImmediate(resolve));
      }
      await backend.commit();
      backend = await subject.reopen(backend);
      assert.equal(String(backend.get("meta", metaKeys.consistentIndex)), "20000");
      assert.equal(rows(backend).length, 20000);
      await backend.close();
    });

    test("keeps a snapshot unchanged while writes continue", async () => {
      const backend = await subject.open();
      for (let main = 2; main < 1002; main++) putRow(backend, main, 0, `v${main}`);
      backend.put("lease", bytes("a"), bytes("1"));
      const snapshot = await backend.snapshot();
      assert.equal(backend.openReadCount(), 1);
      for (let main = 2; main < 502; main++) backend.deleteRevision(main, 0, false);
      putRow(backend, 2000, 0, "later");
      backend.delete("lease", bytes("a"));
      await backend.commit();
      assert.deepEqual(snapshot.buckets(), BUCKETS);
      const seen: string[] = [];
      let chunkCount = 0;
      for (const chunk of snapshot.entries("key", 1000)) {
        chunkCount++;
        for (const { key, value } of chunk) seen.push(`${Buffer.from(key).readUIntBE(2, 6)}=${Buffer.from(value)}`);
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.deepEqual(
        seen,
        Array.from({ length: 1000 }, (_, i) => `${i + 2}=v${i + 2}`),
      );
      assert.ok(chunkCount > 10);
      assert.deepEqual(
        [...snapshot.entries("lease")].flat().map(({ key }) => String(Buffer.from(key))),
        ["a"],
      );
      const unfinished = snapshot.entries("key", 1000);
      unfinished.next();
      snapshot.close();
      snapshot.close();
      assert.equal(backend.openReadCount(), 0);
      assert.throws(() => unfinished.next(), { code: "ERR_BACKEND_CLOSED" });
      assert.throws(() => snapshot.entries("key").next(), { code: "ERR_BACKEND_CLOSED" });
      assert.throws(() => snapshot.forEachRevision(0, 0, () => true), { code: "ERR_BACKEND_CLOSED" });
      assert.equal(rows(backend).length, 501);
      await backend.close();
    });

    test("refuses what it cannot store or do", async () => {
      const backend = await subject.open();
      const code = (wanted: string) => (error: unknown) => error instanceof BackendError && error.code === wanted;
      assert.throws(() => backend.put("authUsers", Buffer.alloc(0), bytes("x")), code("ERR_BACKEND_KEY_LENGTH"));
      assert.throws(
        () => backend.put("authUsers", Buffer.alloc(32_769, 97), bytes("x")),
        code("ERR_BACKEND_KEY_LENGTH"),
      );
      backend.put("authUsers", Buffer.alloc(32_768, 97), bytes("x"));
      putRow(backend, 5, 0, "x");
      assert.throws(() => putRow(backend, 4, 9, "x"), /not above/);
      await backend.commit();
      const left = await backend.snapshot();
      const unfinished = left.entries("key", 1);
      unfinished.next();
      await backend.close();
      await backend.close();
      const isClosed = code("ERR_BACKEND_CLOSED");
      assert.throws(() => backend.put("meta", bytes("a"), bytes("b")), isClosed);
      assert.throws(() => backend.get("meta", bytes("a")), isClosed);
      assert.throws(() => rows(backend), isClosed);
      assert.throws(() => row(backend, 5, 0), isClosed);
      assert.throws(() => backend.forEach("meta", () => {}), isClosed);
      assert.throws(() => unfinished.next(), isClosed);
      await assert.rejects(backend.snapshot(), isClosed);
      await assert.rejects(backend.commit(), isClosed);
    });

    test("stores values from nothing to megabytes", async () => {
      let backend = await subject.open();
      const sizes = [0, 1, 100, 2000, 2100, 4096, 70_000, 1 << 20, 17 << 20];
      const valueOfSize = (size: number): Buffer => Buffer.alloc(size, `s${size}`);
      for (const [i, size] of sizes.entries()) backend.putRevision(i + 2, 0, false, valueOfSize(size), 0, size);
      backend = await subject.reopen(backend);
      const out = { bytes: Buffer.alloc(0) as Uint8Array, start: 0, end: 0 };
      for (const [i, size] of [...sizes.entries(), ...[...sizes.entries()].reverse()]) {
        assert.ok(backend.getRevision(i + 2, 0, out));
        assert.ok(valueOfSize(size).equals(out.bytes.subarray(out.start, out.end)), `value of ${size} bytes`);
      }
      let n = 0;
      backend.forEachRevision(0, 0, 100, (main, _sub, _tombstone, value, start, end) => {
        assert.equal(main, n + 2);
        assert.ok(valueOfSize(sizes[n++]!).equals(value.subarray(start, end)));
        return true;
      });
      assert.equal(n, sizes.length);
      const snapshot = await backend.snapshot();
      const values = [...snapshot.entries("key")].flat().map(({ value }) => value);
      for (const [i, size] of sizes.entries()) assert.ok(valueOfSize(size).equals(values[i]!));
      snapshot.close();
      await backend.close();
    });
  });
}

test("the same writes give both backends the same hash, except for what members need not share", async () => {
  const hashes: number[] = [];
  for (const subject of subjects) {
    const random = new SeededRandom(7);
    const backend = await subject.open();
    for (let main = 2; main < 300; main++) {
      putRow(backend, main, 0, `v${random.below(1000)}`, random.below(5) === 0);
      if (random.below(4) === 0) backend.put("lease", bytes(`l${random.below(20)}`), bytes(`x${main}`));
      if (random.below(9) === 0) backend.delete("lease", bytes(`l${random.below(20)}`));
      if (random.below(50) === 0) await backend.commit();
    }
    backend.put("meta", metaKeys.term, bytes(subject.name));
    backend.put("meta", metaKeys.confState, bytes("shared"));
    const snapshot = await backend.snapshot();
    hashes.push(await hashBackend(snapshot, systemClock));
    snapshot.close();
    await backend.close();
  }
  assert.equal(hashes[0], hashes[1]);
});

test("a crash of the in-memory backend loses exactly what was not committed", async () => {
  const timers: (() => void)[] = [];
  const clock = {
    ...systemClock,
    after(_ms: number, callback: () => void) {
      timers.push(callback);
      return { cancel() {} };
    },
  };
  const backend = new MemoryBackend({ clock, commitDelayMs: () => 5 });
  putRow(backend, 2, 0, "committed");
  const first = backend.commit();
  putRow(backend, 3, 0, "lost");
  void backend.commit();
  // The first commit's timer comes after that of the batch interval.
  timers[1]!();
  await first;
  const next = new MemoryBackend({ clock, file: backend.crash() });
  assert.deepEqual(rows(next), ["2.0=committed"]);
});
