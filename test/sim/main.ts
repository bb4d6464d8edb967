/**
 * `npm run sim -- [--seeds N] [--from S] [--seed X] [--trace]`: runs seeds and sums up; a failing one tells its story.
 */
import { planOf } from "./plan.ts";
import { simulate } from "./simulation.ts";

const args = process.argv.slice(2);
const option = (name: string, otherwise: number): number => {
  const at = args.indexOf(`--${name}`);
  return at < 0 ? otherwise : Number(args[at + 1]);
};
const single = args.includes("--seed");
const from = single ? option("seed", 1) : option("from", 1);
const seeds = single ? 1 : option("seeds", 100);
const members = option("members", 0);
const keepTrace = args.includes("--trace");

const startMs = performance.now();
let failures = 0;
const total = {
  virtualMs: 0,
  events: 0,
  faults: 0,
  operations: 0,
  acknowledged: 0,
  unknown: 0,
  revisions: 0,
  watchEvents: 0,
  messages: 0,
  snapshots: 0,
  restarts: 0,
  leaders: 0,
};
for (let seed = from; seed < from + seeds; seed++) {
  const plan = planOf(seed, members > 0 ? { members } : {});
  const outcome = await simulate(plan, { keepTrace });
  for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += outcome.counts[key];
  if (single) {
    for (const line of outcome.trace) console.log(line);
    console.log(`seed ${seed}: trace ${outcome.hash}`);
  }
  if (outcome.findings.length === 0) continue;
  failures++;
  console.log(`seed ${seed} FAILED (trace ${outcome.hash}):`);
  for (const { checker, message, moment } of outcome.findings.slice(0, 3))
    console.log(`  #${moment} ${checker}: ${message.slice(0, 1500)}`);
}
const minutes = (performance.now() - startMs) / 60_000;
console.log(
  `${seeds} seeds, ${failures} failed, in ${minutes.toFixed(2)} min: ${(total.virtualMs / 3_600_000).toFixed(2)} simulated hours`,
);
console.log(JSON.stringify(total));
console.log(
  `per minute: ${(total.virtualMs / 3_600_000 / minutes).toFixed(2)} simulated hours, ${Math.round(total.faults / minutes)} faults, ${Math.round(total.operations / minutes)} operations`,
);
process.exitCode = failures > 0 ? 1 : 0;
