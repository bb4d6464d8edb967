/** Large writes, and the work of operators and of the member itself. */
import { setTimeout as sleep } from "node:timers/promises";
import { KVService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { generate } from "../generator.ts";
import { type Bench, type Case, LIMIT_MS } from "./case.ts";
import { HeavyClient } from "./heavy.ts";

const all = { key: Buffer.from("/bench/"), rangeEnd: Buffer.from("/bench0") };
const OPS_PER_TXN = 100;

/** One more revision of every key. */
export async function fillKeys(port: number, keys: number): Promise<void> {
  const shape = { port, connections: 4, concurrency: 2, opsPerTxn: OPS_PER_TXN, valueSize: 256 };
  await generate({ kind: "fill", ...shape, count: keys / OPS_PER_TXN }, 600);
}

const call = (name: string, what: string, ask: (bench: Bench) => Promise<unknown>, more: Partial<Case> = {}): Case => ({
  name,
  what,
  data: "keys",
  run: async (bench) => void (await ask(bench)),
  ...more,
});

const options = { timeoutMs: LIMIT_MS };

const snapshot: Case = {
  name: "snapshot",
  what: "a backup by Maintenance.Snapshot",
  data: "keys",
  async run(bench) {
    const client = new HeavyClient(bench.port);
    const { bytes, status } = await client.ask(MaintenanceService.Snapshot, {}, { timeoutMs: LIMIT_MS });
    bench.note(`${Math.round(bytes / 2 ** 20)} MiB${status === 0 ? "" : `, status ${status}`}`);
    client.close();
  },
};

const compaction: Case = {
  name: "compaction",
  what: "compaction of one old revision of every key",
  data: "keys",
  prepare: ({ port, sizes }) => fillKeys(port, sizes.keys),
  async run({ server }) {
    const { header } = await server.client.unary(KVService.Range, { key: Buffer.from("/honest/0") }, options);
    const revision = header!.revision;
    await server.client.unary(KVService.Compact, { revision, physical: true }, options);
  },
};

const start: Case = {
  name: "start",
  what: "a start, and the two seconds after it",
  data: "keys",
  alone: true,
  async prepare(bench) {
    await bench.server.kill("SIGKILL");
    bench.note(`serves after ${Math.round(await bench.server.start())} ms`);
    bench.turnsSinceMs = Date.now();
  },
  run: () => sleep(2000),
};

export const upkeepCases: readonly Case[] = [
  call("hash-kv", "HashKV", ({ server }) => server.client.unary(MaintenanceService.HashKV, {}, options)),
  call("hash", "Hash", ({ server }) => server.client.unary(MaintenanceService.Hash, {}, options)),
  snapshot,
  call("defragment", "Defragment", ({ server }) => server.client.unary(MaintenanceService.Defragment, {}, options)),
  start,
  compaction,
  call("delete", "deletion of all keys", ({ server }) => server.client.unary(KVService.DeleteRange, all, options), {
    spoils: true,
  }),
];
