// Slow: a crash at every disk operation of a database.
import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { othersTurn } from "../../../src/base/others-turn.ts";
import { checkBoltInSlices } from "../../../src/bolt/check.ts";
import { BoltReader } from "../../../src/bolt/reader.ts";
import { InlineWriter } from "../../../src/bolt/store-writer.ts";
import { knownBuckets } from "../../../src/mvcc/backend/batch-records.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { seeded } from "../../harness/random.ts";
import { SimDisk } from "../../sim/disk.ts";

const PATH = "/d/db";

function open(disk: SimDisk, onFailure: (error: Error) => void): BoltBackend {
  disk.threadPool = (_operation, job) => setImmediate(job);
  return new BoltBackend({
    path: PATH,
    clock: systemClock,
    logger: nullLogger,
    batchIntervalMs: 1,
    cacheBytes: 0,
    onFailure,
    storage: { disk, writer: (path) => new InlineWriter(disk, path, knownBuckets, () => othersTurn(systemClock)) },
  });
}

const rowsOf = (backend: BoltBackend): string[] => {
  const rows: string[] = [];
  backend.forEachRevision(0, 0, Number.POSITIVE_INFINITY, (main, sub, _tombstone, bytes, start, end) => {
    rows.push(`${main}.${sub}=${Buffer.from(bytes.subarray(start, end))}`);
    return true;
  });
  return rows;
};

/** Writes, compacts and defragments, and records the expected content after each commit. */
async function history(backend: BoltBackend, durable: { rows: string[]; pending: string[][] }): Promise<void> {
  let main = 2;
  for (let round = 0; round < 6; round++) {
    for (let i = 0; i < 60; i++, main++) {
      const value = Buffer.from(`v${main}`.repeat(1 + (main % 40)));
      backend.putRevision(main, 0, false, value, 0, value.length);
    }
    for (let old = main - 150; old < main - 60; old += 2) backend.deleteRevision(old, 0, false);
    backend.put("meta", Buffer.from("round"), Buffer.from(String(round)));
    const rows = rowsOf(backend);
    durable.pending.push(rows);
    const defragmented = round % 2 === 1 ? backend.defragment() : undefined;
    // It may fail before it is awaited.
    defragmented?.catch(() => {});
    await backend.commit();
    durable.rows = rows;
    durable.pending = durable.pending.filter((other) => other !== rows);
    await defragmented;
  }
}

test("a crash at any disk operation, also during defragmentation, loses no batch that was reported durable", async () => {
  let stops = 0;
  for (let stopAt = 3; ; stopAt += 1 + Math.floor(stopAt / 40)) {
    const disk = new SimDisk();
    disk.makeDir("/d");
    disk.syncDir("/d");
    let operations = 0;
    let crashed: SimDisk | undefined;
    const random = seeded(stopAt);
    disk.observe = (operation) => {
      if (operation === "read" || operation === "readDir") return;
      if (++operations === stopAt && crashed === undefined) {
        crashed = random.chance(0.3) ? disk.kill() : disk.crash(random);
      }
    };
    const durable = { rows: [] as string[], pending: [] as string[][] };
    let backend: BoltBackend | undefined;
    let isOver = false;
    try {
      // A machine that is off never answers: waiting callers are abandoned.
      const run = async (): Promise<void> => {
        backend = open(disk, () => {});
        await history(backend, durable);
      };
      const running = run().finally(() => {
        isOver = true;
      });
      await Promise.race([running, until(() => isOver || crashed !== undefined)]);
    } catch {
      assert.ok(crashed !== undefined);
    }
    if (crashed === undefined) {
      await backend!.close();
      break;
    }
    stops++;
    const after = open(crashed, (error) => {
      throw error;
    });
    const found = rowsOf(after);
    const allowed = [durable.rows, ...durable.pending];
    assert.ok(
      allowed.some((rows) => rows.join() === found.join()),
      `operation ${stopAt}: ${found.length} rows, of ${allowed.map((rows) => rows.length)}`,
    );
    const value = Buffer.from("again");
    after.putRevision(5000, 0, false, value, 0, value.length);
    await after.defragment();
    await after.close();
    assert.deepEqual(
      crashed.files().filter((name) => name.startsWith("/d/")),
      [PATH],
    );
    const reader = new BoltReader({ disk: crashed, path: PATH });
    assert.deepEqual(await checkBoltInSlices(reader, () => othersTurn(systemClock)), []);
    reader.close();
  }
  assert.ok(stops > 30, `stopped at ${stops} operations only`);
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
