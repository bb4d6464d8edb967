import assert from "node:assert/strict";
import { test } from "node:test";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { nullLogger } from "../../src/base/log.ts";
import type { BackendSnapshot } from "../../src/mvcc/backend/backend.ts";
import type { RevisionVisitor } from "../../src/mvcc/model/types.ts";
import { MvccStore } from "../../src/mvcc/store/store.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";

const ROWS = 12_000;
/** More than any slice examines. */
const ROWS_PER_TURN_MAX = 3_500;

/** Rows examined since the loop's last turn, and the maximum of that. */
class Meter {
  rows = 0;
  most = 0;
  all = 0;
  readonly clock: Clock = {
    ...systemClock,
    defer: (callback) =>
      systemClock.defer(() => {
        this.rows = 0;
        callback();
      }),
    after: (delayMs, callback) =>
      systemClock.after(delayMs, () => {
        this.rows = 0;
        callback();
      }),
  };

  readonly counted =
    (visit: RevisionVisitor): RevisionVisitor =>
    (...row) => {
      this.all++;
      this.most = Math.max(this.most, ++this.rows);
      return visit(...row);
    };

  begin(): void {
    this.rows = this.most = this.all = 0;
  }
}

class MeteredBackend extends MemoryBackend {
  readonly meter: Meter;

  constructor(meter: Meter) {
    super({ clock: meter.clock });
    this.meter = meter;
  }

  override forEachRevision(fromMain: number, fromSub: number, toMain: number, visit: RevisionVisitor): void {
    super.forEachRevision(fromMain, fromSub, toMain, this.meter.counted(visit));
  }

  override async snapshot(): Promise<BackendSnapshot> {
    const snapshot = await super.snapshot();
    const { meter } = this;
    return {
      sizeBytes: snapshot.sizeBytes,
      buckets: () => snapshot.buckets(),
      forEachRevision: (main, sub, visit) => snapshot.forEachRevision(main, sub, meter.counted(visit)),
      entries: (bucket, bytes) => snapshot.entries(bucket, bytes),
      image: () => snapshot.image(),
      close: () => snapshot.close(),
    };
  }
}

/** Half of the rows are of an old revision. */
async function setUp(): Promise<{ meter: Meter; backend: MeteredBackend; store: MvccStore }> {
  const meter = new Meter();
  const backend = new MeteredBackend(meter);
  const store = await MvccStore.open({
    backend,
    clock: meter.clock,
    logger: nullLogger,
    compactionBatchLimit: 1_000_000,
  });
  for (let round = 0; round < 2; round++) {
    const txn = store.begin();
    for (let i = 0; i < ROWS / 2; i++) txn.put(Buffer.from(`key ${i}`), Buffer.from("value"), 0n);
    txn.end();
  }
  await backend.commit();
  meter.begin();
  return { meter, backend, store };
}

test("a compaction yields to others, whatever the limit of its batches", async () => {
  const { meter, store } = await setUp();
  await store.compact(store.currentRevision);
  assert.ok(meter.all >= ROWS, `${meter.all}`);
  assert.ok(meter.most <= ROWS_PER_TURN_MAX, `${meter.most} rows in one turn`);
});

test("hashes and a start examine few rows in one turn", async () => {
  const { meter, backend, store } = await setUp();
  await store.hashKv(0);
  await store.hash();
  await store.close();
  await MvccStore.open({ backend, clock: meter.clock, logger: nullLogger });
  assert.ok(meter.all >= 3 * ROWS, `${meter.all}`);
  assert.ok(meter.most <= ROWS_PER_TURN_MAX, `${meter.most} rows in one turn`);
});
