/**
 * The simulator used from code, with a plan written by hand. Three members on virtual time; the leader is paused for
 * ten seconds while clients write; then all lose power at once. Prints the leaders and what broke, which is nothing.
 *
 *   node --import tsx examples/simulation.ts
 *
 * `npm run sim` makes such plans from seeds; test/sim/plan.ts has all steps.
 */
import { FAIR } from "../test/sim/network.ts";
import type { Plan, Step } from "../test/sim/plan.ts";
import { simulate } from "../test/sim/simulation.ts";

const put = (atMs: number, target: number, key: string): Step => ({
  ...{ atMs, target, key, kind: "put", prevKv: false, lease: undefined, ignore: "" },
});

const plan: Plan = {
  seed: 1,
  members: 3,
  snapshotCount: 100,
  snapshotCatchUpEntries: 50,
  compactionBatchLimit: 10,
  weather: FAIR,
  healMs: 30_000,
  steps: [
    ...Array.from({ length: 50 }, (_, i) => put(3_000 + i * 300, i % 3, `key/${i % 7}`)),
    { atMs: 5_000, kind: "pause", target: "leader", forMs: 10_000 },
    { atMs: 20_000, kind: "powerAll", downMs: 2_000 },
  ],
};

const { findings, counts, trace, hash } = await simulate(plan, { keepTrace: true });
for (const line of trace) if (/became leader|pause|power/i.test(line)) console.log(line.slice(0, 160));
console.log(
  `${counts.acknowledged} of ${counts.operations} requests acknowledged, ${counts.leaders} leaders, trace ${hash}`,
);
for (const { checker, message } of findings) console.log(`${checker}: ${message}`);
process.exitCode = findings.length === 0 ? 0 : 1;
