// Slow: fuzzing.
import assert from "node:assert/strict";
import test from "node:test";
import { nullLogger } from "../../src/base/log.ts";
import { ConfState, type Entry, HardState, Snapshot, SnapshotMetadata } from "../../src/proto/raftpb.ts";
import { SnapError, WalError } from "../../src/wal/errors.ts";
import { readSnapshotFile, Snapshotter } from "../../src/wal/snapshotter.ts";
import { Wal } from "../../src/wal/wal.ts";
import { rounds } from "../harness/fast.ts";
import { type SeededRandom, seeded } from "../harness/random.ts";
import { SimDisk } from "../sim/disk.ts";
import { createWal, DIR, entries, readWal, recoverWal, START, walSnapshot } from "./fixtures.ts";

const ROUNDS = Number(process.env["KVORUM_FUZZ_ROUNDS"] ?? rounds(1500));

function mutate(content: Buffer, random: SeededRandom): Buffer {
  const changed = Buffer.from(content);
  // Most of a segment is reserved space; aim at the records.
  let used = changed.length;
  while (used > 0 && changed[used - 1] === 0) used--;
  const at = random.below(used + 16);
  switch (random.below(7)) {
    case 0:
      if (at < changed.length) changed[at] = changed[at]! ^ (1 << random.below(8));
      return changed;
    case 1:
      return changed.subarray(0, at);
    case 2:
      return changed.fill(0, Math.min(at, changed.length), Math.min(at + 512, changed.length));
    case 3: {
      for (let i = 0; i < 8; i++) if (at + i < changed.length) changed[at + i] = random.below(256);
      return changed;
    }
    case 4: {
      // A length field of any size.
      const frame = at & ~7;
      if (frame + 8 <= changed.length)
        changed.writeBigUInt64LE(BigInt(random.below(2 ** 32)) << BigInt(random.below(33)), frame);
      return changed;
    }
    case 5: {
      const to = random.below(used);
      changed.copy(changed, to, Math.min(at, changed.length), Math.min(at + random.below(600), changed.length));
      return changed;
    }
    default:
      return Buffer.concat([
        changed.subarray(0, at),
        Buffer.alloc(random.below(40), random.below(256)),
        changed.subarray(at),
      ]);
  }
}

test(`a mutated log reads as a prefix of what was written, or throws a WalError that names a file (${ROUNDS} rounds)`, () => {
  const original = new SimDisk();
  const wal = createWal(original, { segmentSizeBytes: 2500 });
  const written = new Map<string, Buffer>();
  const random = seeded(20260);
  for (let i = 1; i <= 24; i++) {
    const batch = entries(i, i, 1 + Math.floor(i / 9), random.below(400));
    for (const e of batch) written.set(`${e.index}/${e.term}`, Buffer.from(e.data));
    wal.append(HardState.create({ term: 1 + Math.floor(i / 9), vote: 9n, commit: i }), batch);
    if (i === 8) wal.saveSnapshot(walSnapshot(8));
  }
  wal.close();
  const names = wal.segmentNames;
  assert.ok(names.length >= 3);

  const outcomes = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const disk = new SimDisk();
    disk.makeDir(DIR);
    for (const name of names) disk.replace(`${DIR}/${name}`, original.contentOf(`${DIR}/${name}`));
    const victim = `${DIR}/${random.pick(names)}`;
    for (let i = random.below(3); i >= 0; i--) disk.replace(victim, mutate(disk.contentOf(victim), random));
    for (const snapshot of [START, { index: 8, term: 1 }]) {
      for (const read of [
        () => readWal(disk, snapshot).entries,
        () => recoverWal(disk, snapshot).content.entries,
        () => {
          Wal.verify(disk, DIR, snapshot, nullLogger);
          Wal.validSnapshotEntries(disk, DIR, nullLogger);
          return [];
        },
      ]) {
        let outcome = "read";
        try {
          const found: readonly Entry[] = read();
          for (const [i, e] of found.entries()) {
            assert.equal(e.index, snapshot.index + 1 + i);
            const expected = written.get(`${e.index}/${e.term}`);
            assert.ok(
              expected !== undefined && Buffer.compare(expected, e.data) === 0,
              `round ${round}: entry ${e.index} was altered`,
            );
          }
        } catch (error) {
          if (!(error instanceof WalError)) throw error;
          assert.ok(error.message.includes(error.file), error.message);
          outcome = error.code;
        }
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }
  }
  for (const outcome of ["read", "WAL_CRC_MISMATCH", "WAL_CORRUPT", "WAL_SHORT_HEADER"]) {
    assert.ok(outcomes.has(outcome), `the mutations have to reach ${outcome}: ${JSON.stringify([...outcomes])}`);
  }
});

test("a mutated snapshot file reads unchanged or is refused with a SnapError", () => {
  const random = seeded(7);
  const confState = ConfState.create({ voters: [1n, 2n, 3n] });
  const snapshot = Snapshot.create({
    data: Buffer.alloc(700, 3),
    metadata: SnapshotMetadata.create({ index: 5, term: 2, confState }),
  });
  const original = new SimDisk();
  original.makeDir("/snap");
  new Snapshotter({ disk: original, dir: "/snap", logger: nullLogger }).save(snapshot);
  const path = `/snap/${original.readDir("/snap")[0]}`;
  const expected = Snapshot.encode(snapshot);
  for (let round = 0; round < ROUNDS; round++) {
    const disk = new SimDisk();
    disk.makeDir("/snap");
    disk.replace(path, mutate(original.contentOf(path), random));
    try {
      assert.equal(Buffer.compare(Snapshot.encode(readSnapshotFile(disk, path)), expected), 0);
    } catch (error) {
      if (!(error instanceof SnapError)) throw error;
    }
  }
});
