import { systemClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { metaKeys } from "../../../src/mvcc/backend/backend.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { MvccStore } from "../../../src/mvcc/store/store.ts";
import { historyOp } from "./crash-history.ts";

// The victim of the crash test: applies the history from where the file ends, and prints each durable index.
const backend = new BoltBackend({
  path: process.argv[2]!,
  clock: systemClock,
  logger: nullLogger,
  batchIntervalMs: 3,
  onFailure: (error) => {
    throw error;
  },
});
const store = await MvccStore.open({
  backend,
  clock: systemClock,
  logger: nullLogger,
  compactionBatchLimit: 50,
  compactionSleepMs: 1,
});
let applied = Number(backend.get("meta", metaKeys.consistentIndex)?.toString() ?? "0");
backend.setPreCommitHook(() => backend.put("meta", metaKeys.consistentIndex, Buffer.from(String(applied))));

for (let turn = 0; ; turn++) {
  for (let i = 0; i < 50; i++) historyOp(store, ++applied);
  if (turn % 40 === 20) void backend.defragment();
  if (turn % 5 === 0) {
    const durable = applied;
    void backend.commit().then(() => process.stdout.write(`${durable}\n`));
  }
  await new Promise((resolve) => setImmediate(resolve));
  if (backend.overloaded) await backend.drained();
}
