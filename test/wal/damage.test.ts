import assert from "node:assert/strict";
import test from "node:test";
import { nullLogger } from "../../src/base/log.ts";
import { Entry, EntryType, HardState } from "../../src/proto/raftpb.ts";
import { Record } from "../../src/proto/walpb.ts";
import { Encoder } from "../../src/wal/encoder.ts";
import { WalError } from "../../src/wal/errors.ts";
import { Wal } from "../../src/wal/wal.ts";
import { slow } from "../harness/fast.ts";
import { SimDisk } from "../sim/disk.ts";
import { createWal, DIR, entries, METADATA, readWal, recoverWal, START, walErrorOf, walSnapshot } from "./fixtures.ts";

/** A log of three segments. Returns their paths. */
function threeSegments(disk: SimDisk): string[] {
  const wal = createWal(disk, { segmentSizeBytes: 4000 });
  for (let i = 1; i <= 25; i++) wal.append(HardState.create({ term: 1, vote: 1n, commit: i }), entries(i, i, 1, 300));
  wal.close();
  assert.equal(wal.segmentNames.length, 3);
  return wal.segmentNames.map((name) => `${DIR}/${name}`);
}

/** Offsets of the frames in a segment. */
function frames(content: Buffer): number[] {
  const offsets: number[] = [];
  for (let at = 0; at + 8 <= content.length; ) {
    const length = content.readUIntLE(at, 6);
    if (length === 0) break;
    offsets.push(at);
    at += 8 + length + (-length & 7);
  }
  return offsets;
}

function damage(disk: SimDisk, file: string, change: (content: Buffer) => Buffer | undefined): void {
  const content = disk.contentOf(file);
  disk.replace(file, change(content) ?? content);
}

function assertSays(error: WalError, code: string, file: string, offset: number | undefined, text: RegExp): void {
  assert.equal(error.code, code, error.message);
  assert.equal(error.file, file);
  assert.equal(error.offset, offset);
  assert.match(error.message, text);
  assert.ok(error.message.includes(file));
}

test("a flipped bit in the middle is a checksum mismatch at its file and offset, and repair leaves it alone", () => {
  for (const segment of [0, 1, 2]) {
    const disk = new SimDisk();
    const files = threeSegments(disk);
    const file = files[segment]!;
    const content = disk.contentOf(file);
    const frame = frames(content).find((at) => at >= 80 && content.readUIntLE(at, 6) > 300)!;
    damage(disk, file, (content) => {
      content[frame + 60] = content[frame + 60]! ^ 4;
      return content;
    });
    for (const read of [() => readWal(disk), () => recoverWal(disk), () => Wal.verify(disk, DIR, START, nullLogger)]) {
      assertSays(
        walErrorOf(read),
        "WAL_CRC_MISMATCH",
        file,
        frame,
        /some may have been acknowledged.*remove this member/s,
      );
    }
    assert.equal(walErrorOf(() => Wal.validSnapshotEntries(disk, DIR, nullLogger)).code, "WAL_CRC_MISMATCH");
    if (segment === 2) assert.equal(walErrorOf(() => Wal.repair(disk, DIR, nullLogger)).code, "WAL_CRC_MISMATCH");
    assert.deepEqual(
      disk.readDir(DIR).filter((name) => name.endsWith(".broken")),
      [],
    );
  }
});

test("a flipped bit is detected wherever it is, and is never taken for a torn tail", slow, () => {
  const disk = new SimDisk();
  const wal = createWal(disk, { segmentSizeBytes: 900 });
  const vote = 0x8e9e05c52164694dn;
  wal.append(HardState.create({ term: 1, vote, commit: 0 }), [Entry.create({ index: 1, term: 1 })]);
  const changes = [EntryType.EntryConfChange, EntryType.EntryConfChangeV2, EntryType.EntryNormal];
  for (let i = 2; i <= 9; i++) {
    const term = i < 5 ? 1 : 2;
    const type = changes[i] ?? EntryType.EntryNormal;
    wal.append(HardState.create({ term, vote, commit: i - 1 }), [
      Entry.create({ index: i, term, type, data: Buffer.alloc(i * 13, i) }),
    ]);
    if (i === 6) wal.saveSnapshot(walSnapshot(6, 2));
  }
  wal.append(HardState.create({ term: 3, vote, commit: 8 }), [Entry.create({ index: 10, term: 3 })]);
  wal.append(HardState.create({ term: 3, vote, commit: 10 }), []);
  wal.close();
  const files = wal.segmentNames.map((name) => `${DIR}/${name}`);
  assert.ok(files.length > 1);
  const whole = new Map(files.map((file) => [file, disk.contentOf(file)]));
  const { metadata, hardState, entries: all } = readWal(disk);
  for (const [file, content] of whole) {
    let used = content.length;
    while (content[used - 1] === 0) used--;
    for (let bit = 0; bit < (used + 16) * 8; bit++) {
      const flipped = Buffer.from(content);
      flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7));
      const after = new SimDisk();
      after.makeDir(DIR);
      for (const each of files) after.replace(each, each === file ? flipped : whole.get(each)!);
      const where = `bit ${bit & 7} of ${file} at offset ${bit >> 3}`;
      try {
        const { content: found } = recoverWal(after);
        assert.deepEqual(
          { metadata: found.metadata, hardState: found.hardState, entries: found.entries },
          { metadata, hardState, entries: all },
          where,
        );
      } catch (error) {
        if (!(error instanceof WalError)) throw error;
        assert.ok(error.message.includes(DIR), error.message);
      }
    }
  }
});

test("a tail whose sectors were not all written is torn: repaired at the last complete record, keeping a copy", () => {
  const disk = new SimDisk();
  const wal = createWal(disk);
  wal.append(undefined, entries(1, 3));
  const offset = wal.totalSizeBytes;
  wal.append(undefined, entries(4, 4, 1, 3000));
  const end = wal.totalSizeBytes;
  wal.close();
  const file = `${DIR}/${wal.segmentNames[0]}`;
  damage(disk, file, (content) => content.fill(0, 1536, 2048));
  const before = disk.contentOf(file);

  const opened = Wal.open({ disk, dir: DIR, snapshot: START, logger: nullLogger });
  assertSays(
    walErrorOf(() => opened.readAll()),
    "WAL_TORN_TAIL",
    file,
    offset,
    /nothing acknowledged is lost. Repair/,
  );
  assert.equal(readWal(disk).entries.length, 3, "reading only needs no repair");

  const report = Wal.repair(disk, DIR, nullLogger);
  assert.equal(report.repaired, true);
  assert.equal(report.file, file);
  assert.equal(report.offset, offset);
  assert.ok(report.bytesCut > 2900 && report.bytesCut <= end - offset);
  assert.match(report.summary, /nothing acknowledged is lost/);
  assert.equal(report.brokenFile, `${file}.broken`);
  const copy = disk.contentOf(`${file}.broken`);
  assert.equal(copy.length, offset + report.bytesCut);
  assert.equal(Buffer.compare(copy, before.subarray(0, copy.length)), 0);
  assert.equal(disk.contentOf(file).length, offset);

  const { wal: again, content } = recoverWal(disk);
  assert.equal(content.entries.length, 3);
  again.append(undefined, entries(4, 5));
  again.close();
  assert.equal(readWal(disk).entries.length, 5);
  assert.equal(Wal.repair(disk, DIR, nullLogger).repaired, false);
});

test("a file that ends inside its last record is torn, at every possible length", () => {
  const disk = new SimDisk();
  const wal = createWal(disk);
  wal.append(undefined, entries(1, 1));
  const offset = wal.totalSizeBytes;
  wal.append(undefined, entries(2, 2, 1, 700));
  const end = wal.totalSizeBytes;
  wal.close();
  const file = `${DIR}/${wal.segmentNames[0]}`;
  const whole = disk.contentOf(file);
  for (let size = offset + 1; size < end; size++) {
    disk.replace(file, whole.subarray(0, size));
    const error = walErrorOf(() => Wal.open({ disk, dir: DIR, snapshot: START, logger: nullLogger }).readAll());
    assert.equal(error.code, "WAL_TORN_TAIL", `${size}: ${error.message}`);
    assert.equal(error.offset, offset);
  }
});

test("a damaged length field is damage, not a torn tail: cutting there would lose acknowledged entries", () => {
  for (const [name, at, value] of [
    ["a length beyond the file", 2, 0x40],
    ["an absurd length", 6, 0xff],
    ["wrong padding", 7, 0x81],
    ["a flag without meaning", 7, 0x40],
  ] as const) {
    const disk = new SimDisk();
    const file = threeSegments(disk)[2]!;
    const frame = frames(disk.contentOf(file))[4]!;
    damage(disk, file, (content) => {
      content[frame + at] = value;
      return content;
    });
    const error = walErrorOf(() => recoverWal(disk));
    assert.equal(error.code, "WAL_CORRUPT", `${name}: ${error.message}`);
    assert.equal(error.offset, frame, name);
  }
});

test("a missing segment is named, whether in the middle or at the beginning", () => {
  const disk = new SimDisk();
  const files = threeSegments(disk);
  disk.remove(files[1]!);
  assert.equal(walErrorOf(() => readWal(disk)).code, "WAL_SEGMENT_MISSING");
  assert.match(
    walErrorOf(() => readWal(disk)).message,
    /not consecutive: 0000000000000000-\S+ is followed by 0000000000000002-/,
  );
  assert.equal(walErrorOf(() => Wal.validSnapshotEntries(disk, DIR, nullLogger)).code, "WAL_SEGMENT_MISSING");
  disk.remove(files[0]!);
  assert.match(walErrorOf(() => readWal(disk)).message, /begins at index \d+, after snapshot index 0/);
});

test("a middle segment that lost its end breaks the chain to the next one", () => {
  const disk = new SimDisk();
  const files = threeSegments(disk);
  damage(disk, files[1]!, (content) => content.subarray(0, frames(content).at(-1)));
  assertSays(
    walErrorOf(() => recoverWal(disk)),
    "WAL_CRC_MISMATCH",
    files[2]!,
    0,
    /broken chain/,
  );
});

test("a segment without its header is refused, empty, cut off or replaced", () => {
  for (const change of [
    () => Buffer.alloc(0),
    (content: Buffer) => content.subarray(0, 5),
    (content: Buffer) => content.subarray(0, 16),
    (content: Buffer) => content.subarray(0, 20),
    (content: Buffer) => content.fill(0),
    (content: Buffer) => content.subarray(frames(content)[1]!),
    (content: Buffer) => Buffer.concat([content.subarray(0, 16), content.subarray(frames(content)[2]!)]),
  ]) {
    const disk = new SimDisk();
    const file = threeSegments(disk)[2]!;
    damage(disk, file, change);
    const error = walErrorOf(() => recoverWal(disk));
    assert.ok(["WAL_SHORT_HEADER", "WAL_CRC_MISMATCH"].includes(error.code), error.message);
    assert.equal(error.file, file);
  }
});

test("segments of two clusters in one directory are refused", () => {
  // The first segments of two logs differ only in the metadata; a second one with a matching chain is made by hand.
  const disk = new SimDisk();
  const wal = createWal(disk);
  wal.close();
  const first = `${DIR}/${wal.segmentNames[0]}`;
  const second = `${DIR}/0000000000000001-0000000000000001.wal`;
  damage(disk, first, (content) => content.subarray(0, wal.totalSizeBytes));
  const encoder = new Encoder(chainOf(disk.contentOf(first)));
  encoder.segmentHeader(METADATA.map((byte) => byte ^ 1));
  disk.replace(second, encoder.bytes());
  for (const read of [() => readWal(disk), () => recoverWal(disk), () => Wal.verify(disk, DIR, START, nullLogger)]) {
    assertSays(walErrorOf(read), "WAL_METADATA_CONFLICT", second, 16, /another member or cluster/);
  }
});

/** The rolling checksum of the last record of a segment. */
function chainOf(content: Buffer): number {
  const last = frames(content).at(-1)!;
  return Record.decode(content, last + 8, last + 8 + content.readUIntLE(last, 6)).crc;
}

test("a failed fdatasync stops the log for good, blocking or not, and is not retried", () => {
  for (const asynchronous of [false, true]) {
    const disk = new SimDisk();
    const wal = createWal(disk);
    wal.append(undefined, entries(1, 1));
    disk.fault = (operation) => (operation === "sync" ? "EIO" : undefined);
    let error: unknown;
    if (asynchronous) {
      wal.syncAsync((failure) => {
        error = failure;
      });
      disk.runPending();
    } else error = walErrorOf(() => wal.sync());
    assert.ok(error instanceof WalError);
    assertSays(error, "WAL_SYNC_FAILED", `${DIR}/${wal.segmentNames[0]}`, undefined, /none of them was acknowledged/);
    disk.fault = undefined;
    const syncs = disk.counts.get("sync");
    assert.equal(walErrorOf(() => wal.sync()).code, "WAL_FAILED");
    assert.equal(walErrorOf(() => wal.append(undefined, entries(2, 2))).code, "WAL_FAILED");
    assert.equal(walErrorOf(() => wal.syncAsync(() => {})).code, "WAL_FAILED");
    wal.close();
    assert.equal(disk.counts.get("sync"), syncs);
  }
});

test("a blocking sync that fails while another is on the thread pool fails both", () => {
  const disk = new SimDisk();
  const wal = createWal(disk);
  wal.append(undefined, entries(1, 1));
  let failure: unknown;
  wal.syncAsync((error) => {
    failure = error;
  });
  disk.fault = (operation) => (operation === "sync" ? "EIO" : undefined);
  assert.equal(walErrorOf(() => wal.sync()).code, "WAL_SYNC_FAILED");
  disk.fault = undefined;
  disk.runPending();
  assert.ok(failure instanceof WalError);
});

test("no space for the next segment is reported before anything is written, and the log continues when there is some", () => {
  const disk = new SimDisk();
  const warnings: string[] = [];
  const mib = 1024 * 1024;
  const wal = createWal(disk, {
    segmentSizeBytes: 2 * mib,
    logger: { ...nullLogger, warn: (message) => void warnings.push(message) },
  });
  disk.capacityBytes = 3 * mib;
  wal.append(undefined, entries(1, 20, 1, 100_000));
  disk.runPending();
  assert.match(warnings[0]!, /failed to preallocate/);
  wal.append(undefined, entries(21, 21, 1, 100_000));
  const size = wal.totalSizeBytes;
  assert.ok(size > 2 * mib);
  for (let attempt = 0; attempt < 2; attempt++) {
    const error = walErrorOf(() => wal.append(undefined, entries(22, 22)));
    assert.equal(error.code, "NO_SPACE");
    assert.match(error.message, /reserve 2097152 bytes.*Nothing acknowledged is lost\. Free space/s);
  }
  assert.equal(wal.totalSizeBytes, size);
  assert.equal(wal.lastIndex, 21);
  assert.equal(readWal(disk).entries.length, 21);
  disk.capacityBytes = 10 * mib;
  wal.append(undefined, entries(22, 22));
  assert.equal(wal.segmentNames.length, 2);
  wal.close();
  assert.equal(recoverWal(disk).content.entries.length, 22);
});

test("no space beyond the reserved part stops the log; after a restart everything synced is there", () => {
  const disk = new SimDisk();
  const wal = createWal(disk, { segmentSizeBytes: 4096 });
  wal.append(undefined, entries(1, 3));
  wal.sync();
  disk.capacityBytes = 8192;
  const error = walErrorOf(() => wal.append(undefined, entries(4, 10, 1, 3000)));
  assert.equal(error.code, "NO_SPACE");
  assert.ok(error.file.endsWith(".wal"));
  assert.equal(walErrorOf(() => wal.append(undefined, entries(4, 4))).code, "WAL_FAILED");
  wal.close();
  disk.capacityBytes = Number.POSITIVE_INFINITY;
  const { wal: again, content } = recoverWal(disk, START, { segmentSizeBytes: 4096 });
  assert.ok(content.entries.length >= 3);
  again.close();
});

test("file system errors keep their meaning: read-only, no permission, quota, I/O", () => {
  const codes = {
    EROFS: "READ_ONLY",
    EACCES: "NO_PERMISSION",
    EPERM: "NO_PERMISSION",
    EDQUOT: "NO_SPACE",
    EIO: "IO",
  } as const;
  for (const [errno, code] of Object.entries(codes)) {
    for (const operation of ["makeDir", "open", "write", "rename", "syncDir"] as const) {
      const disk = new SimDisk();
      disk.fault = (done) => (done === operation ? errno : undefined);
      const error = walErrorOf(() => createWal(disk));
      assert.equal(error.code, code, `${operation} with ${errno}: ${error.message}`);
      assert.ok(error.message.includes(errno));
    }
    for (const operation of ["readDir", "open", "read"] as const) {
      const disk = new SimDisk();
      createWal(disk).close();
      disk.fault = (done) => (done === operation ? errno : undefined);
      assert.equal(walErrorOf(() => recoverWal(disk)).code, code);
    }
  }
});
