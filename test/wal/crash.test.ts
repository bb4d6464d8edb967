import assert from "node:assert/strict";
import test from "node:test";
import { nullLogger } from "../../src/base/log.ts";
import { type Entry, HardState } from "../../src/proto/raftpb.ts";
import { purgeFiles } from "../../src/wal/purge.ts";
import type { WalPosition } from "../../src/wal/replay.ts";
import { Wal, type WalContent } from "../../src/wal/wal.ts";
import { rounds } from "../harness/fast.ts";
import { type SeededRandom, seeded } from "../harness/random.ts";
import { SimDisk } from "../sim/disk.ts";
import { createWal, DIR, entries, entry, recoverWal, START, walSnapshot } from "./fixtures.ts";

const SEEDS = Number(process.env["KVORUM_CRASH_SEEDS"] ?? rounds(120));
const SEGMENT_BYTES = 3000;

class PowerLoss extends Error {}

/** The records written by the test, in order, and how many were reported durable. */
interface History {
  readonly written: (Entry | HardState)[];
  durable: number;
  snapshot: WalPosition;
}

/** Entries after the snapshot and hard state after the first `count` records. */
function contentAfter(history: History, count: number): { entries: Entry[]; hardState: HardState | undefined } {
  let log: Entry[] = [];
  let hardState: HardState | undefined;
  for (const record of history.written.slice(0, count)) {
    if ("commit" in record) hardState = record;
    else log = [...log.filter((e) => e.index < record.index), record];
  }
  return { entries: log.filter((e) => e.index > history.snapshot.index), hardState };
}

/** Random operations on the log until the power fails, possibly in the middle of any call. */
function work(wal: Wal, disk: SimDisk, history: History, random: SeededRandom): void {
  let { term, commit } = [...history.written].reverse().find((r): r is HardState => "commit" in r) ?? {
    term: 1,
    commit: 0,
  };
  // Entries are written before the state, which a crash may have lost.
  for (const record of history.written) term = Math.max(term, record.term);
  for (let step = 0; step < 60; step++) {
    const before = history.written.length;
    switch (random.below(8)) {
      case 0:
        wal.sync();
        history.durable = before;
        break;
      case 1:
        if (!wal.syncing) {
          wal.syncAsync((error) => {
            if (error !== null) throw error;
            history.durable = Math.max(history.durable, before);
          });
        }
        break;
      case 2:
        disk.runPending();
        break;
      case 3:
        if (commit > history.snapshot.index) {
          wal.saveSnapshot(walSnapshot(commit, term));
          history.durable = before;
          history.snapshot = { index: commit, term };
          wal.releaseTo(commit);
          purgeFiles({
            disk,
            dir: DIR,
            suffix: ".wal",
            max: 2,
            logger: nullLogger,
            isNeeded: (name) => wal.isHeld(name),
          });
        }
        break;
      default: {
        // A new leader may replace uncommitted entries.
        if (random.chance(0.2)) term++;
        const from = random.chance(0.2) ? commit + 1 + random.below(wal.lastIndex - commit + 1) : wal.lastIndex + 1;
        const batch = Array.from({ length: random.below(6) }, (_, i) =>
          entry(from + i, term, Buffer.alloc(random.below(900), step + 1)),
        );
        if (random.chance(0.5)) commit = Math.max(commit, Math.min(from - 1, batch.at(-1)?.index ?? 0));
        const hardState = HardState.create({ term, vote: 1n, commit });
        history.written.push(...batch, hardState);
        wal.append(hardState, batch);
      }
    }
  }
}

function assertRecovered(content: WalContent, history: History, seed: number): void {
  const found = JSON.stringify([content.entries.map(describe), content.hardState?.term, content.hardState?.commit]);
  for (let count = history.durable; count <= history.written.length; count++) {
    const expected = contentAfter(history, count);
    if (
      found !== JSON.stringify([expected.entries.map(describe), expected.hardState?.term, expected.hardState?.commit])
    )
      continue;
    history.written.length = count;
    history.durable = count;
    return;
  }
  assert.fail(
    `seed ${seed}: recovered a log that is no prefix of what was written from the ${history.durable} durable records on: ${found}`,
  );
}

function describe(e: Entry): string {
  return `${e.index}/${e.term}/${e.data.length}/${e.data[0] ?? ""}`;
}

test(`after power loss at any moment the log is a prefix of what was written, with all that was synced (${SEEDS} seeds)`, () => {
  let repaired = 0;
  let crashes = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seeded(seed);
    let disk = new SimDisk();
    const history: History = { written: [], durable: 0, snapshot: START };
    let wal: Wal | undefined;
    for (let life = 0; life < 4; life++) {
      let left = 20 + random.below(250);
      disk.fault = () => {
        if (--left < 0) throw new PowerLoss();
        return undefined;
      };
      try {
        if (wal === undefined) {
          if (Wal.exists(disk, DIR)) {
            const snapshot = Wal.validSnapshotEntries(disk, DIR, nullLogger).at(-1)!;
            assert.ok(snapshot.index >= history.snapshot.index, `seed ${seed}: a saved snapshot is gone`);
            history.snapshot = { index: snapshot.index, term: snapshot.term };
            const recovered = recoverWal(disk, history.snapshot, {
              segmentSizeBytes: SEGMENT_BYTES,
              logger: { ...nullLogger, warn: (message) => void (message === "repaired WAL" && repaired++) },
            });
            wal = recovered.wal;
            assertRecovered(recovered.content, history, seed);
          } else {
            assert.equal(history.durable, 0, `seed ${seed}: the log is gone`);
            wal = createWal(disk, { segmentSizeBytes: SEGMENT_BYTES });
          }
        }
        work(wal, disk, history, random);
      } catch (error) {
        if (!hasCause(error, PowerLoss)) throw error;
      }
      disk.fault = undefined;
      disk = disk.crash(random);
      wal = undefined;
      crashes++;
    }
  }
  assert.ok(crashes > SEEDS && repaired > SEEDS / 20, `the test has to see torn tails (saw ${repaired})`);
});

test("a log does not exist until its creation is complete, wherever the power fails", () => {
  for (let operations = 0; ; operations++) {
    const disk = new SimDisk();
    let left = operations;
    disk.fault = () => {
      if (--left < 0) throw new PowerLoss();
      return undefined;
    };
    let created = false;
    try {
      createWal(disk);
      created = true;
    } catch (error) {
      if (!hasCause(error, PowerLoss)) throw error;
    }
    disk.fault = undefined;
    const after = disk.crash(seeded(operations));
    if (Wal.exists(after, DIR)) recoverWal(after).wal.close();
    else {
      assert.equal(created, false);
      createWal(after).close();
    }
    if (created) return;
  }
});

test("sectors left by a torn write after the end of the log are cleared and reported", () => {
  const disk = new SimDisk();
  const wal = createWal(disk);
  wal.append(undefined, entries(1, 2));
  wal.close();
  const file = `${DIR}/${wal.segmentNames[0]}`;
  const content = disk.contentOf(file);
  const end = wal.totalSizeBytes;
  const left = Math.ceil(end / 512) * 512 + 512;
  content.fill(0xab, left, left + 512);
  disk.replace(file, content);

  const { wal: again, content: read } = recoverWal(disk);
  assert.deepEqual(read.cleared, { file, offset: end, bytes: left + 512 - end });
  assert.ok(
    disk
      .contentOf(file)
      .subarray(end)
      .every((byte) => byte === 0),
  );
  again.append(undefined, entries(3, 20, 1, 100));
  again.close();
  assert.equal(recoverWal(disk).content.entries.length, 20);
});

function hasCause(error: unknown, type: typeof PowerLoss): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (at instanceof type) return true;
  return false;
}

test("data written but not synced by a killed process is durable once the log is opened again", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const disk = new SimDisk();
    const wal = createWal(disk);
    wal.append(HardState.create({ term: 1, commit: 0 }), entries(1, 5));
    wal.sync();
    wal.append(HardState.create({ term: 1, commit: 5 }), entries(6, 20));
    const killed = disk.kill();
    assert.equal(recoverWal(killed).content.entries.length, 20);
    const { entries: kept } = recoverWal(killed.crash(seeded(seed))).content;
    assert.equal(kept.length, 20, `seed ${seed}`);
  }
});
