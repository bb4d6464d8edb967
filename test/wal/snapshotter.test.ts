import assert from "node:assert/strict";
import * as fs from "node:fs";
import test from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { nullLogger } from "../../src/base/log.ts";
import { ConfState, Snapshot, SnapshotMetadata } from "../../src/proto/raftpb.ts";
import { SnapshotFile } from "../../src/proto/snappb.ts";
import { SnapError } from "../../src/wal/errors.ts";
import { purgeFiles } from "../../src/wal/purge.ts";
import { readSnapshotFile, Snapshotter } from "../../src/wal/snapshotter.ts";
import { seeded } from "../harness/random.ts";
import { SimDisk } from "../sim/disk.ts";
import { withTempDir } from "./fixtures.ts";

const DIR = "/data/member/snap";

function snapshot(index: number, term = 1, data = `state at ${index}`): Snapshot {
  const confState = ConfState.create({ voters: [1n, 2n], learners: [3n] });
  return Snapshot.create({ data: Buffer.from(data), metadata: SnapshotMetadata.create({ index, term, confState }) });
}

function snapshotter(disk = new SimDisk()): { disk: SimDisk; snapshots: Snapshotter } {
  disk.makeDir(DIR);
  return { disk, snapshots: new Snapshotter({ disk, dir: DIR, logger: nullLogger }) };
}

function snapErrorOf(action: () => unknown): SnapError {
  try {
    action();
  } catch (error) {
    if (error instanceof SnapError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

test("a saved snapshot is one file named by term and index, and loads again, on a real disk", () => {
  withTempDir((dir) => {
    const snapshots = new Snapshotter({ disk: systemDisk, dir, logger: nullLogger });
    assert.equal(snapshots.load(), undefined);
    snapshots.save(snapshot(26, 3));
    assert.deepEqual(fs.readdirSync(dir), ["0000000000000003-000000000000001a.snap"]);
    assert.deepEqual(Snapshot.encode(snapshots.load()!), Snapshot.encode(snapshot(26, 3)));
  });
});

test("the newest snapshot is loaded, or the newest named by the log", () => {
  const { snapshots } = snapshotter();
  for (const index of [10, 20, 30]) snapshots.save(snapshot(index));
  snapshots.save(Snapshot.create());
  assert.equal(snapshots.load()?.metadata?.index, 30);
  const named = [
    { index: 10, term: 1 },
    { index: 20, term: 1 },
    { index: 30, term: 2 },
  ];
  assert.equal(snapshots.loadNewestAvailable(named)?.metadata?.index, 20);
  assert.equal(snapshots.loadNewestAvailable([]), undefined);
});

test("the oldest snapshot is known by its name, and a file with another name may be of any", () => {
  const { disk, snapshots } = snapshotter();
  assert.equal(snapshots.oldestIndex(), undefined);
  for (const [index, term] of [
    [300, 1],
    [20, 5],
    [4000, 6],
  ] as const) {
    snapshots.save(snapshot(index, term));
  }
  assert.equal(snapshots.oldestIndex(), 20);
  disk.rename(`${DIR}/${disk.readDir(DIR).sort()[0]}`, `${DIR}/copy.snap`);
  assert.equal(snapshots.oldestIndex(), 0);
});

test("a damaged snapshot is renamed to .broken and the one before is loaded", () => {
  const good = snapshot(10);
  const broken = new Map<string, Buffer>([
    ["empty", Buffer.alloc(0)],
    ["no data", SnapshotFile.encode({ crc: 1, data: Buffer.alloc(0) })],
    ["cut off", SnapshotFile.encode({ crc: 1, data: Snapshot.encode(good) }).subarray(0, 20)],
    ["wrong checksum", SnapshotFile.encode({ crc: 1, data: Snapshot.encode(good) })],
  ]);
  for (const [name, content] of broken) {
    const { disk, snapshots } = snapshotter();
    snapshots.save(good);
    const path = `${DIR}/0000000000000001-0000000000000014.snap`;
    disk.replace(path, content);
    assert.match(snapErrorOf(() => readSnapshotFile(disk, path)).code, /^SNAP_/, name);
    assert.equal(snapshots.load()?.metadata?.index, 10, name);
    assert.ok(disk.exists(`${path}.broken`), name);
    assert.ok(!disk.exists(path), name);
  }
});

test("an unreadable snapshot is an error and stays in place", () => {
  for (const [errno, code] of [
    ["EIO", "IO"],
    ["EACCES", "NO_PERMISSION"],
  ] as const) {
    const { disk, snapshots } = snapshotter();
    snapshots.save(snapshot(10));
    snapshots.save(snapshot(20));
    disk.fault = (operation) => (operation === "read" ? errno : undefined);
    assert.equal(snapErrorOf(() => snapshots.load()).code, code);
    disk.fault = undefined;
    assert.equal(snapshots.load()?.metadata?.index, 20);
  }
});

test("a failed save leaves no file behind and keeps the error's meaning", () => {
  for (const operation of ["open", "write", "sync", "rename"] as const) {
    const { disk, snapshots } = snapshotter();
    disk.fault = (done) => (done === operation ? "ENOSPC" : undefined);
    const error = snapErrorOf(() => snapshots.save(snapshot(10)));
    assert.equal(error.code, "NO_SPACE");
    assert.match(error.message, /0000000000000001-000000000000000a\.snap.*Free space/s);
    disk.fault = undefined;
    assert.deepEqual(disk.readDir(DIR), []);
  }
});

test("a saved snapshot survives power loss, and a partly saved one is never seen", () => {
  for (let seed = 1; seed <= 100; seed++) {
    const random = seeded(seed);
    const { disk, snapshots } = snapshotter();
    snapshots.save(snapshot(10, 1, "x".repeat(3000)));
    let left = random.below(8);
    disk.fault = () => (--left < 0 ? "EIO" : undefined);
    let saved = false;
    try {
      snapshots.save(snapshot(20, 1, "y".repeat(3000)));
      saved = true;
    } catch (error) {
      assert.ok(error instanceof SnapError);
    }
    disk.fault = undefined;
    const after = disk.crash(random);
    const found = snapshotter(after).snapshots.load()?.metadata?.index;
    assert.ok(found === 20 || (!saved && found === 10), `seed ${seed}: ${found}`);
    assert.deepEqual(
      after.readDir(DIR).filter((name) => name.endsWith(".broken")),
      [],
    );
  }
});

test("a received database gets its name when complete; older ones and orphans are removed", () => {
  const { disk, snapshots } = snapshotter();
  const writer = snapshots.receiveDb(0x2a);
  writer.write(Buffer.from("page one"));
  writer.write(Buffer.from("page two"));
  assert.equal(snapErrorOf(() => snapshots.existingDbPath(0x2a)).code, "SNAP_DB_NOT_FOUND");
  const results: unknown[] = [];
  writer.commit((error) => results.push(error));
  assert.throws(() => writer.write(Buffer.from("late")), /no longer being written/);
  writer.abort();
  disk.runPending();
  assert.deepEqual(results, [null]);
  const path = `${DIR}/000000000000002a.snap.db`;
  assert.equal(snapshots.existingDbPath(0x2a), path);
  assert.equal(disk.contentOf(path).toString(), "page onepage two");

  const aborted = snapshots.receiveDb(0x30);
  aborted.write(Buffer.from("x"));
  aborted.abort();
  assert.deepEqual(disk.readDir(DIR), ["000000000000002a.snap.db"]);

  snapshots.receiveDb(0x31).write(Buffer.from("interrupted"));
  disk.replace(`${DIR}/db.tmp.123`, Buffer.from("defragmentation"));
  disk.replace(`${DIR}/0000000000000001-0000000000000001.snap.tmp`, Buffer.from("save"));
  disk.replace(`${DIR}/db`, Buffer.from("the backend"));
  snapshots.removeOrphans();
  assert.deepEqual(disk.readDir(DIR).sort(), ["000000000000002a.snap.db", "db"]);
  snapshots.releaseSnapDbs(0x2a);
  assert.ok(disk.exists(path), "the one at the snapshot's own index is kept");
  snapshots.releaseSnapDbs(0x2b);
  assert.deepEqual(disk.readDir(DIR), ["db"]);
});

test("of two transfers of one database the first to finish wins", () => {
  const { disk, snapshots } = snapshotter();
  const writers = [snapshots.receiveDb(7), snapshots.receiveDb(7)];
  const results: unknown[] = [];
  for (const [i, writer] of writers.entries()) writer.write(Buffer.from(`transfer ${i}`));
  for (const writer of writers) writer.commit((error) => results.push(error));
  disk.runPending();
  assert.deepEqual(results, [null, null]);
  assert.equal(disk.contentOf(snapshots.dbPath(7)).toString(), "transfer 0");
  assert.deepEqual(disk.readDir(DIR), ["0000000000000007.snap.db"]);
});

test("a full disk during a transfer is reported and leaves nothing behind", () => {
  const { disk, snapshots } = snapshotter();
  disk.capacityBytes = 10;
  const writer = snapshots.receiveDb(7);
  assert.equal(snapErrorOf(() => writer.write(Buffer.alloc(20))).code, "NO_SPACE");
  assert.deepEqual(disk.readDir(DIR), []);
  disk.capacityBytes = 100;
  const second = snapshots.receiveDb(7);
  second.write(Buffer.alloc(20));
  disk.fault = (operation) => (operation === "sync" ? "EIO" : undefined);
  let failure: SnapError | null = null;
  second.commit((error) => {
    failure = error;
  });
  disk.runPending();
  assert.equal((failure as SnapError | null)?.code, "IO");
  assert.deepEqual(disk.readDir(DIR), []);
});

test("purging keeps the newest snapshots", () => {
  const { disk, snapshots } = snapshotter();
  for (let index = 1; index <= 8; index++) snapshots.save(snapshot(index, index > 4 ? 2 : 1));
  const one = purgeFiles({ disk, dir: DIR, suffix: ".snap", max: 5, atOnce: 1, logger: nullLogger });
  assert.equal(one.length, 1);
  const purged = one.concat(purgeFiles({ disk, dir: DIR, suffix: ".snap", max: 5, logger: nullLogger }));
  assert.equal(purged.length, 3);
  assert.equal(snapshots.load()?.metadata?.index, 8);
  assert.deepEqual(purgeFiles({ disk, dir: DIR, suffix: ".snap", max: 5, logger: nullLogger }), []);
});
