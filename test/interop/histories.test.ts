/**
 * Random histories on stock etcd and on this server: every answer, every error and every hash must be equal.
 *
 * KVORUM_SEED repeats one history, KVORUM_HISTORIES and KVORUM_STEPS set how many and how long; KVORUM_STOCK_ETCD
 * chooses the stock etcd to compare with.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type CompactionRequest, HashKVRequest, KVService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { ourEtcd, requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { seeded } from "../harness/random.ts";
import { type Server, startServers } from "../harness/server.ts";
import { type Outcome, outcome, show } from "./compare.ts";
import { type Difference, differencesTo } from "./differences.ts";
import { awkwardKeys, type HistoryOptions, type HistoryState, nextStep, type Step } from "./history.ts";

const histories = Number(process.env["KVORUM_HISTORIES"] ?? 4);
const stepsPerHistory = Number(process.env["KVORUM_STEPS"] ?? 800);
const firstSeed = Number(process.env["KVORUM_SEED"] ?? 1);

const shapes: readonly HistoryOptions[] = [
  { keys: awkwardKeys(), opsPerTxnMax: 20, depthMax: 2 },
  { keys: awkwardKeys().slice(0, 5), opsPerTxnMax: 8, depthMax: 1 },
];

describe("random histories", { skip: requireStockEtcd() }, () => {
  for (let seed = firstSeed; seed < firstSeed + histories; seed++) {
    test(`seed ${seed}: every answer and hash equals stock etcd's, also after a restart`, async () => {
      const [ours, stock] = (await startServers([ourEtcd(), stockEtcd()])) as [Server, Server];
      try {
        await compareHistory(seed, ours, stock);
      } finally {
        await Promise.all([ours.close(), stock.close()]);
      }
    });
  }
});

async function compareHistory(seed: number, ours: Server, stock: Server): Promise<void> {
  const differences = await differencesTo(stock);
  const random = seeded(seed);
  const shape = shapes[seed % shapes.length]!;
  const state: HistoryState = { revision: 1, compacted: 0, leases: [] };
  const restartAt = random.below(stepsPerHistory);
  // etcd answers HashKV with the hash from before its compaction or from after it, depending on the background
  // compaction's progress; only a physical one has finished when it is answered.
  const compacting = new Set<number>();
  let failures = 0;
  for (let i = 0; i < stepsPerHistory; i++) {
    if (i === restartAt) {
      await Promise.all([ours.kill("SIGTERM"), stock.kill("SIGTERM")]);
      await Promise.all([ours.start(), stock.start()]);
    }
    const step = nextStep(random, state, shape);
    for (const difference of differences) difference.adapt?.(step);
    if (step.method.path === KVService.Compact.path) {
      const { revision, physical } = step.request as CompactionRequest;
      if (!physical) compacting.add(revision);
    }
    if (step.method.path === MaintenanceService.HashKV.path) {
      const { revision } = step.request as HashKVRequest;
      if (compacting.has(revision || state.revision)) continue;
    }
    const revision = await compareStep(`seed ${seed} step ${i}`, step, ours, stock, differences);
    if (revision === undefined) failures++;
    else state.revision = Math.max(state.revision, revision);
  }
  for (let revision = state.compacted + 1; revision <= state.revision; revision += 1 + random.below(20)) {
    await compareStep(`seed ${seed} hash of ${revision}`, hashKv(revision), ours, stock, differences);
  }
  assert.ok(failures < stepsPerHistory / 2, `most of a history must succeed, but ${failures} steps failed`);
}

async function compareStep(
  what: string,
  step: Step,
  ours: Server,
  stock: Server,
  differences: readonly Difference[],
): Promise<number | undefined> {
  const [a, b] = (await Promise.all(
    [ours, stock].map((server) =>
      outcome(server.client, step, differences).catch((error) => {
        const request = `${step.method.path} ${show(step.request)}`;
        throw new Error(
          `${what}: ${server.program.file} answered ${request} with ${error}: ${server.log().slice(-4000)}`,
        );
      }),
    ),
  )) as [Outcome, Outcome];
  if (a.text !== b.text && !differences.some((difference) => difference.excuses?.(step, a.text, b.text))) {
    const request = `${step.method.path} ${show(step.request)}`;
    assert.equal(a.text, b.text, `${what}: ours (actual) and stock (expected) differ after ${request}`);
  }
  return b.revision;
}

const hashKv = (revision: number): Step => ({
  method: MaintenanceService.HashKV as Step["method"],
  request: HashKVRequest.create({ revision }),
});
