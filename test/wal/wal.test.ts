import assert from "node:assert/strict";
import * as fs from "node:fs";
import test from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { nullLogger } from "../../src/base/log.ts";
import { Entry, HardState } from "../../src/proto/raftpb.ts";
import { Record } from "../../src/proto/walpb.ts";
import { WalUsageError } from "../../src/wal/errors.ts";
import { purgeFiles } from "../../src/wal/purge.ts";
import { Wal } from "../../src/wal/wal.ts";
import { seeded } from "../harness/random.ts";
import { SimDisk } from "../sim/disk.ts";
import {
  createWal,
  DIR,
  entries,
  entry,
  METADATA,
  readWal,
  recoverWal,
  START,
  walErrorOf,
  walSnapshot,
  withTempDir,
} from "./fixtures.ts";

test("a new log has one preallocated segment that begins with checksum, metadata and snapshot records", () => {
  withTempDir((temp) => {
    const dir = `${temp}/member/wal`;
    const wal = createWal(systemDisk, { dir, segmentSizeBytes: 64_000 });
    wal.close();
    assert.deepEqual(fs.readdirSync(dir), ["0000000000000000-0000000000000000.wal"]);
    const bytes = fs.readFileSync(`${dir}/0000000000000000-0000000000000000.wal`);
    assert.equal(bytes.length, 64_000);
    assert.equal(fs.statSync(dir).mode & 0o777, 0o700);
    assert.equal(fs.statSync(`${dir}/0000000000000000-0000000000000000.wal`).mode & 0o777, 0o600);

    // Length 4, padding 4: type 4, checksum 0, no data.
    assert.equal(bytes.subarray(0, 16).toString("hex"), "0400000000000084" + "0804100000000000");
    const length = bytes.readUIntLE(16, 6);
    const record = Record.decode(bytes, 24, 24 + length);
    assert.equal(record.type, 1);
    assert.deepEqual(Buffer.from(record.data), METADATA);
  });
});

test("appended entries are read back after reopening, on a real disk", () => {
  withTempDir((temp) => {
    const dir = `${temp}/wal`;
    const wal = createWal(systemDisk, { dir });
    const hardState = HardState.create({ term: 2, vote: 7n, commit: 2 });
    wal.append(hardState, [entry(1), entry(2), Entry.create({ index: 3, term: 2, type: 1 })]);
    wal.append(undefined, [entry(4, 2, Buffer.alloc(100_000, 9))]);
    wal.sync();
    assert.equal(wal.lastIndex, 4);
    wal.close();

    const { wal: again, content } = recoverWal(systemDisk, START, { dir });
    assert.deepEqual(Buffer.from(content.metadata), METADATA);
    assert.deepEqual(content.hardState, hardState);
    assert.deepEqual(
      content.entries.map((e) => [e.index, e.term, e.type, e.data.length]),
      [
        [1, 1, 0, 7],
        [2, 1, 0, 7],
        [3, 2, 1, 0],
        [4, 2, 0, 100_000],
      ],
    );
    assert.equal(content.cleared, undefined);
    again.append(undefined, [entry(5, 2)]);
    again.sync();
    again.close();
    assert.equal(readWal(systemDisk, START, dir).entries.length, 5);
  });
});

test("indexes, terms and lengths survive at every varint size, up to 2^53-1", () => {
  const disk = new SimDisk();
  for (const [i, last] of [
    127,
    128,
    16384,
    2 ** 31,
    2 ** 32,
    2 ** 32 + 1,
    2 ** 49,
    Number.MAX_SAFE_INTEGER,
  ].entries()) {
    const dir = `/data/${i}`;
    const wal = Wal.create({
      disk,
      dir,
      metadata: METADATA,
      logger: nullLogger,
      segmentSizeBytes: 8192,
      firstSnapshot: walSnapshot(last - 1, last),
    });
    wal.append(undefined, [entry(last, last, Buffer.alloc(i === 0 ? 0 : 2 ** i))]);
    wal.close();
    const content = readWal(disk, { index: last - 1, term: last }, dir);
    assert.deepEqual(content.entries, [entry(last, last, Buffer.alloc(i === 0 ? 0 : 2 ** i))]);
  }
});

test("an entry written again at the same index replaces it and all after it", () => {
  const disk = new SimDisk();
  const wal = createWal(disk);
  wal.append(HardState.create({ term: 1 }), entries(1, 5));
  wal.append(HardState.create({ term: 2 }), [entry(3, 2)]);
  wal.close();
  assert.deepEqual(
    readWal(disk).entries.map((e) => `${e.index}/${e.term}`),
    ["1/1", "2/1", "3/2"],
  );
});

test("a full segment is cut to its content, and the next one is named for its first entry and repeats the hard state", () => {
  const disk = new SimDisk();
  const wal = createWal(disk, { segmentSizeBytes: 2000 });
  const hardState = HardState.create({ term: 1, vote: 1n, commit: 20 });
  wal.append(hardState, entries(1, 20, 1, 100));
  assert.deepEqual(wal.segmentNames, ["0000000000000000-0000000000000000.wal"]);
  wal.append(undefined, entries(21, 22));
  assert.deepEqual(wal.segmentNames, [
    "0000000000000000-0000000000000000.wal",
    "0000000000000001-0000000000000015.wal",
  ]);
  wal.close();
  const first = disk.contentOf(`${DIR}/0000000000000000-0000000000000000.wal`);
  assert.ok(first.length > 2000);
  const content = readWal(disk);
  assert.equal(content.entries.length, 22);
  // From the second segment alone.
  disk.remove(`${DIR}/0000000000000000-0000000000000000.wal`);
  const error = walErrorOf(() => readWal(disk, { index: 0, term: 0 }));
  assert.equal(error.code, "WAL_SEGMENT_MISSING");
});

test("the next segment is written in the background, and appends continue beyond the size until it is ready", () => {
  const disk = new SimDisk();
  const mib = 1024 * 1024;
  const wal = createWal(disk, { segmentSizeBytes: 3 * mib });
  wal.append(undefined, entries(1, 2, 1, mib));
  wal.append(undefined, entries(3, 4, 1, mib));
  wal.append(undefined, entries(5, 5, 1, 10));
  assert.equal(wal.segmentNames.length, 1, "it has to wait for the thread pool");
  disk.runPending();
  const writes = disk.counts.get("write")!;
  wal.append(undefined, entries(6, 6, 1, 10));
  assert.equal(wal.segmentNames.length, 2);
  assert.equal(disk.counts.get("write")! - writes, 2, "header and batch, no zeros");
  wal.close();
  assert.equal(readWal(disk).entries.length, 6);
});

test("a segment that exceeds twice its size is closed even if the next one is not ready", () => {
  const disk = new SimDisk();
  const mib = 1024 * 1024;
  const wal = createWal(disk, { segmentSizeBytes: 2 * mib });
  wal.append(undefined, entries(1, 5, 1, mib));
  wal.append(undefined, entries(6, 6, 1, 10));
  assert.equal(wal.segmentNames.length, 2);
  disk.runPending();
  wal.append(undefined, entries(7, 10, 1, mib));
  disk.runPending();
  wal.append(undefined, entries(11, 11, 1, 10));
  assert.equal(wal.segmentNames.length, 3);
  wal.close();
  assert.deepEqual(
    disk.readDir(DIR).filter((name) => name.endsWith(".tmp")),
    [],
  );
  assert.equal(readWal(disk).entries.length, 11);
});

test("a batch is one write, without a sync", () => {
  const disk = new SimDisk();
  const wal = createWal(disk, { segmentSizeBytes: 100_000 });
  const before = new Map(disk.counts);
  wal.append(HardState.create({ term: 1, vote: 1n, commit: 0 }), entries(1, 100, 1, 300));
  assert.equal(disk.counts.get("write")! - before.get("write")!, 1);
  assert.equal(disk.counts.get("sync"), before.get("sync"));
  wal.append(undefined, []);
  wal.append(HardState.create(), []);
  assert.equal(disk.counts.get("write")! - before.get("write")!, 1, "an empty batch writes nothing");
  wal.close();
});

test("an asynchronous sync reports once, allows appends meanwhile, and refuses a second one in flight", () => {
  const disk = new SimDisk();
  const wal = createWal(disk, { segmentSizeBytes: 2000 });
  const done: unknown[] = [];
  wal.append(undefined, entries(1, 1));
  wal.syncAsync((error) => done.push(error));
  assert.equal(wal.syncing, true);
  assert.throws(() => wal.syncAsync(() => {}), WalUsageError);
  // Past several segments, while the first one is still being synced.
  for (let i = 2; i < 100; i++) wal.append(undefined, entries(i, i, 1, 100));
  assert.ok(wal.segmentNames.length > 3);
  assert.equal(done.length, 0);
  disk.runPending();
  assert.deepEqual([...done], [null]);
  assert.equal(wal.syncing, false);
  wal.syncAsync((error) => done.push(error));
  wal.close();
  disk.runPending();
  assert.deepEqual(done, [null, null]);
});

test("syncs without fsync report success and touch no file", async () => {
  const disk = new SimDisk();
  const wal = Wal.create({
    disk,
    dir: DIR,
    metadata: METADATA,
    logger: nullLogger,
    segmentSizeBytes: 4096,
    unsafeNoSync: true,
  });
  const syncs = disk.counts.get("sync");
  wal.append(undefined, entries(1, 3));
  wal.sync();
  assert.equal(await new Promise<unknown>((resolve) => wal.syncAsync(resolve)), null);
  assert.equal(disk.counts.get("sync"), syncs);
  wal.close();
});

test("released segments may be purged, needed ones never, and the log then opens at the snapshot", () => {
  const disk = new SimDisk();
  const wal = createWal(disk, { segmentSizeBytes: 1000 });
  for (let i = 1; i <= 60; i++) wal.append(HardState.create({ term: 1, vote: 1n, commit: i }), entries(i, i, 1, 100));
  const all = wal.segmentNames;
  assert.ok(all.length > 5);
  wal.saveSnapshot(walSnapshot(30));
  const purge = (max: number) =>
    purgeFiles({ disk, dir: DIR, suffix: ".wal", max, logger: nullLogger, isNeeded: (name) => wal.isHeld(name) });
  assert.deepEqual(purge(1), [], "nothing has been released");
  wal.releaseTo(30);
  assert.deepEqual(purge(0), [], "zero means no limit");
  assert.deepEqual(purge(all.length - 1), all.slice(0, 1));
  const purged = purge(1);
  assert.ok(purged.length > 0);
  assert.deepEqual(disk.readDir(DIR).sort(), wal.segmentNames);
  wal.close();

  const { wal: again, content } = recoverWal(disk, { index: 30, term: 1 }, { segmentSizeBytes: 1000 });
  assert.deepEqual(
    content.entries.map((e) => e.index),
    Array.from({ length: 30 }, (_, i) => 31 + i),
  );
  assert.equal(again.lastIndex, 60);
  assert.equal(walErrorOf(() => readWal(disk, START)).code, "WAL_SEGMENT_MISSING");
  again.close();
});

test("the total size counts records in all needed segments, not reserved space", () => {
  const disk = new SimDisk();
  const wal = createWal(disk, { segmentSizeBytes: 10_000 });
  const empty = wal.totalSizeBytes;
  assert.ok(empty < 200);
  for (let i = 1; i <= 20; i++) wal.append(undefined, entries(i, i, 1, 1000));
  const size = wal.totalSizeBytes;
  assert.ok(size > 20_000 && size < 24_000);
  wal.close();
  const { wal: again } = recoverWal(disk, START, { segmentSizeBytes: 10_000 });
  assert.equal(again.totalSizeBytes, size);
  again.close();
});

test("snapshots count as valid only up to the committed index", () => {
  const disk = new SimDisk();
  const wal = createWal(disk);
  wal.append(HardState.create({ term: 1, vote: 1n, commit: 5 }), entries(1, 10));
  wal.saveSnapshot(walSnapshot(5));
  wal.saveSnapshot(walSnapshot(20));
  assert.equal(wal.lastIndex, 20);
  wal.close();
  const valid = Wal.validSnapshotEntries(disk, DIR, nullLogger);
  assert.deepEqual(
    valid.map((snapshot) => snapshot.index),
    [0, 5],
  );
  assert.deepEqual(valid[1]!.confState?.voters, [1n]);
  assert.equal(Wal.verify(disk, DIR, { index: 5, term: 1 }, nullLogger)?.commit, 5);
});

test("snapshots from an index on are found although segments before it are not read, wherever the log was cut", () => {
  const disk = new SimDisk();
  const wal = createWal(disk, { segmentSizeBytes: 1000 });
  const random = seeded(1);
  for (let index = 1; index <= 60; index++) {
    const hardState = HardState.create({ term: 1, vote: 1n, commit: index });
    wal.append(hardState, entries(index, index, 1, 10 + random.below(200)));
    // A snapshot is of a state some entries ago.
    if (random.chance(0.2)) wal.saveSnapshot(walSnapshot(Math.max(1, index - random.below(8))));
  }
  wal.close();
  const indexes = (fromIndex?: number): number[] =>
    Wal.validSnapshotEntries(disk, DIR, nullLogger, fromIndex).map(({ index }) => index);
  const all = indexes();
  assert.ok(all.length > 6);
  for (let from = 0; from <= 61; from++) {
    const found = indexes(from).filter((index) => index >= from);
    assert.deepEqual(
      found,
      all.filter((index) => index >= from),
    );
  }
  const [first] = disk.readDir(DIR).sort();
  disk.replace(`${DIR}/${first}`, Buffer.from("damaged"));
  assert.deepEqual(
    indexes(60),
    all.filter((index) => index >= 60),
  );
  assert.equal(walErrorOf(() => indexes(0)).code, "WAL_CORRUPT");
});

test("a snapshot that is not in the log, or has another term, is refused", () => {
  const disk = new SimDisk();
  const wal = createWal(disk);
  wal.append(HardState.create({ term: 1, vote: 1n, commit: 5 }), entries(1, 10));
  wal.saveSnapshot(walSnapshot(5, 1));
  wal.close();
  for (const read of [
    (snapshot: typeof START) => readWal(disk, snapshot),
    (snapshot: typeof START) => Wal.verify(disk, DIR, snapshot, nullLogger),
  ]) {
    assert.equal(walErrorOf(() => read({ index: 4, term: 1 })).code, "WAL_SNAPSHOT_NOT_FOUND");
    assert.equal(walErrorOf(() => read({ index: 5, term: 2 })).code, "WAL_SNAPSHOT_MISMATCH");
  }
});

test("creating a log where one exists is refused, as is opening one where there is none", () => {
  const disk = new SimDisk();
  assert.equal(Wal.exists(disk, DIR), false);
  assert.equal(
    walErrorOf(() => Wal.open({ disk, dir: DIR, snapshot: START, logger: nullLogger })).code,
    "WAL_NOT_FOUND",
  );
  createWal(disk).close();
  assert.equal(Wal.exists(disk, DIR), true);
  assert.equal(walErrorOf(() => createWal(disk)).code, "WAL_EXISTS");
});

test("misuse is a usage error: writing before reading, reading twice, leaving a gap, a snapshot without ConfState", () => {
  const disk = new SimDisk();
  createWal(disk).close();
  const wal = Wal.open({ disk, dir: DIR, snapshot: START, logger: nullLogger, segmentSizeBytes: 8192 });
  assert.throws(() => wal.append(undefined, entries(1, 1)), WalUsageError);
  wal.readAll();
  assert.throws(() => wal.readAll(), WalUsageError);
  assert.throws(() => wal.append(undefined, entries(2, 2)), WalUsageError);
  assert.throws(() => wal.saveSnapshot({ index: 1, term: 1, confState: undefined }), WalUsageError);
  wal.append(undefined, entries(1, 1));
  wal.close();
  wal.close();
  assert.throws(() => wal.append(undefined, entries(2, 2)), WalUsageError);

  const reader = Wal.openForRead({ disk, dir: DIR, snapshot: START, logger: nullLogger });
  reader.readAll();
  assert.throws(() => reader.append(undefined, entries(2, 2)), WalUsageError);
});

test("a batch larger than the write limit is written in pieces and read back whole", () => {
  const disk = new SimDisk();
  const wal = createWal(disk);
  const big = entries(1, 12, 1, 1_000_000);
  wal.append(undefined, big);
  wal.close();
  const read = readWal(disk).entries;
  assert.equal(read.length, big.length);
  for (const [i, { data }] of read.entries()) assert.equal(Buffer.compare(data, big[i]!.data), 0, `entry ${i + 1}`);
});

test("slow syncs are timed with the clock given and warned about", () => {
  const disk = new SimDisk();
  let now = 0;
  const durations: number[] = [];
  const warnings: string[] = [];
  const clock = {
    nowMs: () => (now += 600),
    wallMs: () => 0,
    after: () => ({ cancel() {} }),
    every: () => ({ cancel() {} }),
    defer() {},
  };
  const wal = Wal.create({
    disk,
    dir: DIR,
    metadata: METADATA,
    logger: { ...nullLogger, warn: (message) => warnings.push(message) },
    clock,
    onSync: (durationMs) => durations.push(durationMs),
    segmentSizeBytes: 4096,
  });
  wal.append(undefined, entries(1, 1));
  wal.sync();
  now += 1000;
  wal.syncAsync(() => {});
  now += 1000;
  disk.runPending();
  assert.deepEqual(durations, [600, 1600]);
  assert.deepEqual(warnings, ["slow fdatasync"]);
  wal.close();
});
