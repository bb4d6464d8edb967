import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { chmod, copyFile, mkdtemp, readdir, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../../src/base/clock.ts";
import { type Disk, systemDisk } from "../../../src/base/disk.ts";
import { InvariantError } from "../../../src/base/fatal.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { ELEMENT_BYTES, PAGE_HEADER_BYTES } from "../../../src/bolt/format.ts";
import { BoltReader } from "../../../src/bolt/reader.ts";
import { InlineWriter } from "../../../src/bolt/store-writer.ts";
import { BackendError, metaKeys } from "../../../src/mvcc/backend/backend.ts";
import { knownBuckets } from "../../../src/mvcc/backend/batch-records.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { dropUnfinished, isUnfinished } from "../../../src/mvcc/backend/long-write.ts";
import type { BoltBackendOptions } from "../../../src/mvcc/backend/options.ts";
import { revisionBytes } from "../../../src/mvcc/model/revision.ts";
import { FROM_KEY } from "../../../src/mvcc/model/types.ts";
import { MvccStore } from "../../../src/mvcc/store/store.ts";
import { MemoryBackend } from "../../harness/memory-backend.ts";
import { asOrdinaryUser } from "../../harness/ordinary-user.ts";
import { SeededRandom } from "../model.ts";
import { historyOp } from "./crash-history.ts";

const here = dirname(fileURLToPath(import.meta.url));
const dirs: string[] = [];
after(async () => {
  for (const dir of dirs) await rm(dir, { recursive: true, force: true });
});

async function tempDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "kvorum-bolt-"));
  dirs.push(dir);
  return dir;
}

function open(path: string, options: Partial<BoltBackendOptions> = {}): BoltBackend {
  return new BoltBackend({
    path,
    clock: systemClock,
    logger: nullLogger,
    batchIntervalMs: 2,
    onFailure: (error) => {
      throw error;
    },
    ...options,
  });
}

const openStore = (backend: BoltBackend | MemoryBackend): Promise<MvccStore> =>
  MvccStore.open({ backend, clock: systemClock, logger: nullLogger, compactionSleepMs: 0 });

const withCode = (code: string, path: string) => (error: unknown) =>
  error instanceof BackendError && error.code === code && error.message.includes(path);

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Everything that a client could read, now and in the past. */
function contents(store: MvccStore): unknown[] {
  const seen: unknown[] = [store.currentRevision, store.compactRevision];
  for (const back of [0, 1, 10, 50]) {
    const revision = Math.max(store.compactRevision, store.currentRevision - back, 1);
    const { kvs } = store.rangeDecoded(Buffer.from([0]), FROM_KEY, { revision, limit: 0, countOnly: false });
    for (const kv of kvs) seen.push([`${kv.key}`, `${kv.value}`, kv.modRevision, kv.createRevision, kv.version]);
  }
  return seen;
}

test("after kill -9 the file holds a prefix of the history that contains every batch reported durable", async () => {
  const path = join(await tempDir(), "db");
  const random = new SeededRandom(Number(process.env["KVORUM_SEED"] ?? Date.now() & 0xffff));
  let applied = 0;
  for (let round = 0; round < 4; round++) {
    const child = spawn(process.execPath, ["--import", "tsx", join(here, "crash-child.ts"), path], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let reported = "";
    child.stdout.on("data", (data: Buffer) => (reported += data));
    await once(child.stdout, "data");
    await new Promise((resolve) => setTimeout(resolve, 100 + random.below(400)));
    child.kill("SIGKILL");
    await once(child, "exit");

    const durable = Number(reported.trimEnd().split("\n").at(-1));
    const backend = open(path);
    const found = Number(String(backend.get("meta", metaKeys.consistentIndex)));
    assert.ok(found >= durable, `index ${found} in the file, ${durable} was durable`);
    assert.ok(found > applied);
    applied = found;
    const store = await openStore(backend);
    const again = await openStore(new MemoryBackend({ clock: systemClock }));
    for (let index = 1; index <= found; index++) historyOp(again, index);
    assert.deepEqual(contents(store), contents(again));
    const hash = await store.hashKv(0);
    assert.equal(hash.hash, (await again.hashKv(0)).hash);
    await store.close();
    await again.close();
    await backend.close();
    assert.deepEqual((await readdir(dirname(path))).sort(), ["db"]);
  }
});

test("defragmenting while reads, writes and a snapshot go on loses nothing and gives the space back", async () => {
  const path = join(await tempDir(), "db");
  let backend = open(path);
  let store = await openStore(backend);
  const value = Buffer.alloc(500, 1);
  const put = (key: string): void => {
    const txn = store.begin();
    txn.put(Buffer.from(key), value, 0n);
    txn.end();
  };
  for (let i = 0; i < 20_000; i++) put(`k${i % 1000}`);
  // Revisions that are compacted before they were committed never reach the file.
  await backend.commit();
  await store.compact(store.currentRevision);
  await backend.commit();
  const before = backend.sizeBytes();
  assert.ok(backend.sizeInUseBytes() * 3 < before);

  const snapshot = await backend.snapshot();
  let done = false;
  const defragmented = backend.defragment().then(() => (done = true));
  let written = 0;
  while (!done) {
    // However long it takes, what is new must stay small beside what is given back.
    for (let i = 0; i < 10 && written < 2000; i++) put(`new${written++}`);
    const last = store.rangeDecoded(Buffer.from(`new${written - 1}`), null, {
      revision: 0,
      limit: 0,
      countOnly: false,
    });
    assert.equal(last.kvs[0]?.value.length, 500);
    assert.equal(
      store.range(Buffer.from("k7"), null, { revision: 0, limit: 0, countOnly: false }, () => {}).visited,
      1,
    );
    await turn();
  }
  await defragmented;
  for (let i = 0; i < 10; i++) put(`new${written++}`);
  await backend.commit();
  assert.equal([...snapshot.entries("key")].flat().length, 1000);
  snapshot.close();
  assert.ok((await stat(path)).size * 2 < before);

  const hash = await store.hashKv(0);
  await backend.defragment();
  await store.close();
  await backend.close();
  assert.deepEqual((await readdir(dirname(path))).sort(), ["db"]);
  backend = open(path);
  store = await openStore(backend);
  assert.equal(store.keyCount, 1000 + written);
  assert.equal((await store.hashKv(0)).hash, hash.hash);
  await store.close();
  await backend.close();
});

test("rows of one to ten kilobytes share leaves, so that the file is hardly larger than stock's", async () => {
  const backend = open(join(await tempDir(), "db"));
  let bytes = 0;
  for (let main = 2; main < 1002; main++) {
    const value = Buffer.alloc(1000 + ((main * 7919) % 9000), 1);
    bytes += value.length;
    backend.putRevision(main, 0, false, value, 0, value.length);
  }
  await backend.commit();
  assert.ok(backend.sizeInUseBytes() < bytes * 1.25, `${bytes} bytes take ${backend.sizeInUseBytes()}`);
  await backend.defragment();
  assert.ok(backend.sizeBytes() < bytes * 1.25, `${bytes} bytes take ${backend.sizeBytes()}`);
  await backend.close();
});

/** The system's disk, some of whose calls the test sees and may fail. */
function watchedDisk(onCall: (call: string, path: string, bytes: number) => void): Disk {
  return {
    ...systemDisk,
    syncDir(path) {
      onCall("syncDir", path, 0);
      systemDisk.syncDir(path);
    },
    open(path, flags, mode) {
      const file = systemDisk.open(path, flags, mode);
      return new Proxy(file, {
        get(target, name) {
          const value: unknown = Reflect.get(target, name, target);
          if (typeof value !== "function") return value;
          return (...args: unknown[]) => {
            onCall(`${String(name)} ${flags}`, path, args[0] instanceof Uint8Array ? args[0].length : 0);
            return value.apply(target, args) as unknown;
          };
        },
      });
    },
  };
}

const storageOn = (disk: Disk): NonNullable<BoltBackendOptions["storage"]> => ({
  disk,
  writer: (path) => new InlineWriter(disk, path, knownBuckets, turn),
});

function putMany(backend: BoltBackend, count: number, valueBytes = 500): void {
  const value = Buffer.alloc(valueBytes, 1);
  for (let main = 2; main < count; main++) backend.putRevision(main, 0, false, value, 0, value.length);
}

test("the last to close the file that a defragmentation replaced is the thread pool, where the kernel frees its space", async () => {
  const path = join(await tempDir(), "db");
  const closes: string[] = [];
  const disk = watchedDisk((call, of) => {
    if (of === path && call.startsWith("close")) closes.push(call);
  });
  const backend = open(path, { storage: storageOn(disk) });
  putMany(backend, 1000);
  await backend.commit();
  await backend.defragment();
  assert.deepEqual(closes.slice(-2), ["close r+", "closeAsync r"]);
  await backend.close();
});

test("a defragmentation syncs its copy as it goes, so that the disk is never busy with all of it", async () => {
  const path = join(await tempDir(), "db");
  let unsynced = 0;
  let most = 0;
  const disk = watchedDisk((call, of, bytes) => {
    if (!of.endsWith("defrag-tmp")) return;
    if (call.startsWith("write")) most = Math.max(most, (unsynced += bytes));
    else if (call.startsWith("dataSync")) unsynced = 0;
  });
  const backend = open(path, { storage: storageOn(disk) });
  putMany(backend, 300, 100_000);
  await backend.commit();
  await backend.defragment();
  assert.ok(most > 2_000_000 && most < 12_000_000, `${most} bytes were written before a sync`);
  await backend.close();
});

for (const isGone of [false, true]) {
  const what = isGone ? ", or the name is gone," : "";
  test(`a defragmentation that fails when the copy has its name${what} ends the backend, for the old file has none`, async () => {
    const path = join(await tempDir(), "db");
    let failing = false;
    const disk = watchedDisk((call) => {
      if (call !== "syncDir" || !failing) return;
      if (isGone) renameSync(path, `${path}.elsewhere`);
      throw Object.assign(new Error("EIO: i/o error, fsync"), { code: "EIO" });
    });
    const failures: BackendError[] = [];
    const backend = open(path, { storage: storageOn(disk), onFailure: (error) => failures.push(error) });
    putMany(backend, 1000);
    await backend.commit();
    failing = true;
    await assert.rejects(backend.defragment(), (error) => error instanceof BackendError && /EIO/.test(error.message));
    assert.equal(failures.length, 1);
    await assert.rejects(backend.commit(), BackendError);
    failing = false;
    await backend.close();
  });
}

test("defragmenting refills pages that compaction left half empty", async () => {
  const backend = open(join(await tempDir(), "db"));
  const value = Buffer.alloc(300, 1);
  for (let main = 2; main < 8002; main++) backend.putRevision(main, 0, false, value, 0, value.length);
  await backend.commit();
  for (let main = 2; main < 8002; main++) if (main % 5 < 2) backend.deleteRevision(main, 0, false);
  await backend.commit();
  const inUse = backend.sizeInUseBytes();
  await backend.defragment();
  assert.ok(backend.sizeBytes() * 1.2 < inUse, `${inUse} bytes in use became ${backend.sizeBytes()}`);
  let count = 0;
  backend.forEachRevision(0, 0, 9000, (main) => {
    assert.ok(main % 5 >= 2);
    count++;
    return true;
  });
  assert.equal(count, 4800);
  await backend.close();
});

test("more waiting than the limit makes it overloaded until a commit is through", async () => {
  const backend = new BoltBackend({
    path: join(await tempDir(), "db"),
    clock: systemClock,
    logger: nullLogger,
    pendingBytesMax: 100_000,
    onFailure: (error) => {
      throw error;
    },
  });
  const value = Buffer.alloc(60_000, 3);
  backend.putRevision(2, 0, false, value, 0, value.length);
  const first = backend.commit();
  assert.equal(backend.overloaded, false);
  backend.putRevision(3, 0, false, value, 0, value.length);
  assert.equal(backend.overloaded, true);
  await backend.drained();
  await first;
  assert.equal(backend.overloaded, false);
  await backend.close();
});

test("a view of a file whose last long write was cut off by a crash is given when its rows are dropped, not before", async () => {
  const path = join(await tempDir(), "db");
  const before = open(path);
  before.put("meta", metaKeys.unfinished, revisionBytes(7, 0));
  await before.close();
  const backend = open(path);
  await assert.rejects(backend.snapshot(), InvariantError);
  await dropUnfinished(backend, systemClock, nullLogger);
  const snapshot = await backend.snapshot();
  assert.equal(isUnfinished(snapshot), false);
  snapshot.close();
  await backend.close();
});

test("what was committed before a close is durable, though another commit ran then", async () => {
  const path = join(await tempDir(), "db");
  const backend = open(path);
  const [first, second] = ["1", "2"].map((value) => {
    backend.put("meta", Buffer.from("k"), Buffer.from(value));
    return backend.commit();
  });
  const closing = backend.close();
  await Promise.all([first, second, closing]);
  const again = open(path);
  assert.equal(`${Buffer.from(again.get("meta", Buffer.from("k"))!)}`, "2");
  await again.close();
});

test("commits asked for while the backend closes do not make the close fail", async () => {
  const path = join(await tempDir(), "db");
  const failures: BackendError[] = [];
  const backend = open(path, { onFailure: (error) => failures.push(error) });
  let isOpen = true;
  const closing = backend.close().finally(() => {
    isOpen = false;
  });
  const refusals: unknown[] = [];
  for (let i = 1; isOpen; i++) {
    try {
      backend.put("meta", Buffer.from("k"), Buffer.from(`${i}`));
      backend.snapshot().then(
        (snapshot) => snapshot.close(),
        (error: unknown) => refusals.push(error),
      );
    } catch (error) {
      refusals.push(error);
    }
    await turn();
    assert.ok(i < 100_000, "the close does not end");
  }
  await closing;
  assert.deepEqual(failures, []);
  for (const error of refusals) assert.ok(withCode("ERR_BACKEND_CLOSED", path)(error), String(error));
  const again = open(path);
  await again.close();
});

test("a file that another backend has open is refused, in this process and in others", async () => {
  const path = join(await tempDir(), "db");
  const backend = open(path);
  assert.throws(() => open(path), withCode("ERR_BACKEND_IN_USE", path));
  await backend.close();
  await open(path).close();

  const child = spawn(process.execPath, ["--import", "tsx", join(here, "crash-child.ts"), path], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  assert.throws(() => open(path), withCode("ERR_BACKEND_IN_USE", path));
  child.kill("SIGKILL");
  await once(child, "exit");
  await open(path).close();
});

test("a file that is not a database is refused, an empty one is taken", async () => {
  const path = join(await tempDir(), "db");
  await writeFile(path, Buffer.alloc(100_000, "not a database "));
  assert.throws(() => open(path), withCode("ERR_BACKEND_CORRUPT", path));
  await writeFile(path, "short");
  assert.throws(() => open(path), withCode("ERR_BACKEND_CORRUPT", path));
  await writeFile(path, "");
  await open(path).close();
});

test("a file in which the name of a bucket is damaged is refused, where the bucket would only be missing", async () => {
  const path = join(await tempDir(), "db");
  const backend = open(path);
  const name = Buffer.from("role");
  backend.put("authRoles", name, name);
  await backend.close();
  const whole = readFileSync(path);
  const reader = new BoltReader({ disk: systemDisk, path });
  const { meta } = reader;
  const names = [...reader.root.buckets()].map(({ name }) => name.toString());
  reader.close();
  const root = meta.rootPage * meta.pageSize;
  const element = root + PAGE_HEADER_BYTES + names.indexOf("authRoles") * ELEMENT_BYTES;
  for (const [what, offset, bit] of [
    ["the length of its name", element + 9, 4],
    ["where its tree is", element + whole.readUInt32LE(element + 4) + "authRoles".length + 3, 1],
    ["that it is a bucket", element, 1],
  ] as const) {
    const bytes = Buffer.from(whole);
    bytes[offset]! ^= bit;
    writeFileSync(path, bytes);
    assert.throws(() => open(path), withCode("ERR_BACKEND_CORRUPT", `page ${meta.rootPage}: `), what);
  }
  writeFileSync(path, whole);
  const again = open(path);
  assert.deepEqual(again.get("authRoles", name), name);
  await again.close();
});

test("a file that was cut off is refused with an error, not with the death of the process", async () => {
  const dir = await tempDir();
  const path = join(dir, "db");
  const backend = open(path);
  const value = Buffer.alloc(300, 3);
  for (let main = 2; main < 5002; main++) backend.putRevision(main, 0, false, value, 0, value.length);
  await backend.close();
  const whole = (await stat(path)).size;
  for (const part of [0.01, 0.3, 0.9]) {
    const cut = join(dir, `cut${part}`);
    await copyFile(path, cut);
    await truncate(cut, Math.floor(whole * part));
    await assert.rejects(
      async () => {
        const damaged = open(cut);
        try {
          await openStore(damaged);
        } finally {
          await damaged.close();
        }
      },
      withCode("ERR_BACKEND_CORRUPT", cut),
    );
  }
});

test("a file without write permission is refused", async () => {
  const dir = await tempDir();
  const path = join(dir, "db");
  await open(path).close();
  await chmod(path, 0o400);
  await asOrdinaryUser([dir, path], () => {
    assert.throws(() => open(path), withCode("ERR_BACKEND_NOT_WRITABLE", path));
  });
});

test("a move to a place where it cannot go names both paths, and a file that is in use is not replaced", async () => {
  const dir = await tempDir();
  const path = join(dir, "db");
  const backend = open(path);
  const missing = join(dir, "missing", "db");
  assert.throws(
    () => backend.moveTo(missing),
    (error: Error) => {
      assert.match(error.message, /^cannot move the database /);
      return error.message.includes(`${path} to ${missing}: `);
    },
  );
  const other = open(join(dir, "other"));
  assert.throws(() => other.moveTo(path), withCode("ERR_BACKEND_IN_USE", path));
  await backend.close();
  other.moveTo(path);
  await other.close();
  assert.deepEqual(await readdir(dir), ["db"]);
});
