/**
 * Runs seeds and prints a summary; for a failing seed, its timeline.
 *
 *   npm run sim -- [--seeds N] [--from S]     that many seeds (100) from S (1) on
 *   npm run sim -- --seed X [--trace]         one seed; its whole trace
 *   npm run sim -- --seed X --shrink          the fewest steps with which it still fails; --save FILE keeps them
 *   npm run sim -- --plan FILE [--trace]      such a file
 *   npm run sim -- --bugs [--seeds N]         how soon each planted bug is found, in at most N seeds (50)
 *
 * --members N fixes the size of the cluster, --scene NAME what clients do besides keys and leases (plain, sessions,
 * users, quota); --bug NAME plants a bug, --jobs N runs as many seeds at a time in processes of their own, --minutes N
 * starts none after that time. The exit code is 1 when a promise was broken, or a bug not found.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { commandLine } from "../harness/command-line.ts";
import { BUGS } from "./bugs.ts";
import type { Finding } from "./checkers/history.ts";
import { forEach, type Jobs, openJobs } from "./jobs.ts";
import { isFault, type Plan, planOf } from "./plan.ts";
import type { Bug } from "./plant.ts";
import { SCENES } from "./scenes.ts";
import { shrink } from "./shrink.ts";
import { type Outcome, simulate } from "./simulation.ts";

const options = commandLine({
  seeds: "number",
  from: "number",
  seed: "number",
  plan: "text",
  bugs: "flag",
  trace: "flag",
  shrink: "flag",
  save: "text",
  runs: "number",
  members: "number",
  scene: "text",
  bug: "text",
  jobs: "number",
  minutes: "number",
});
const members = options.number("members", 0);
const scene = choice("scene", options.text("scene"), SCENES, (each) => each);
const settings = { ...(members > 0 ? { members } : {}), ...(scene === undefined ? {} : { scene }) };
const bug = choice("bug", options.text("bug"), BUGS, ({ name }) => name);
const planFile = options.text("plan");
const seed = options.number("seed", -1);

if (options.has("bugs")) await withJobs((jobs, isOver) => findBugs(options.number("seeds", 50), jobs, isOver));
else if (planFile !== undefined) await runOne(JSON.parse(readFileSync(planFile, "utf8")) as Plan);
else if (seed >= 0) await runOne(planOf(seed, planSettings(bug)));
else await withJobs((jobs, isOver) => runMany(options.number("from", 1), options.number("seeds", 100), jobs, isOver));

/** The one of this name, which must exist. */
function choice<T>(
  option: string,
  name: string | undefined,
  all: readonly T[],
  nameOf: (each: T) => string,
): T | undefined {
  const found = all.find((each) => nameOf(each) === name);
  if (found !== undefined || name === undefined) return found;
  console.error(`--${option} is one of ${all.map(nameOf).join(", ")}, not ${name}`);
  process.exit(2);
}

async function withJobs(work: (jobs: Jobs, isOver: () => boolean) => Promise<void>): Promise<void> {
  const endMs = performance.now() + options.number("minutes", 1_000_000) * 60_000;
  const jobs = openJobs(options.number("jobs", 1));
  try {
    await work(jobs, () => performance.now() >= endMs);
  } finally {
    jobs.end();
  }
}

async function runMany(from: number, seeds: number, jobs: Jobs, isOver: () => boolean): Promise<void> {
  const startMs = performance.now();
  const total: Record<string, number> = {};
  const failed: number[] = [];
  let ran = 0;
  await forEach(range(from, from + seeds), jobs, isOver, async (seed) => {
    const { findings, hash, counts } = await jobs.run({ seed, bug: bug?.name, settings });
    ran++;
    for (const [what, count] of Object.entries(counts ?? {})) total[what] = (total[what] ?? 0) + count;
    if (findings.length === 0) return;
    failed.push(seed);
    process.exitCode = 1;
    console.log(`seed ${seed} failed (trace ${hash}); npm run sim -- --seed ${seed} --shrink`);
    printFindings(findings);
  });
  failed.sort((a, b) => a - b);
  const minutes = (performance.now() - startMs) / 60_000;
  const hours = (total["virtualMs"] ?? 0) / 3_600_000;
  const perMinute = (count: number): string => (count / minutes).toFixed(count / minutes < 100 ? 1 : 0);
  console.log(`${ran} seeds, ${failed.length} failed${failed.length > 0 ? ` (${failed.join(", ")})` : ""}`);
  console.log(`${minutes.toFixed(2)} minutes: ${hours.toFixed(2)} simulated hours`);
  console.log(
    Object.entries(total)
      .map(([what, count]) => `${what} ${Math.round(count)}`)
      .join(", "),
  );
  console.log(
    `a minute: ${perMinute(hours)} simulated hours, ${perMinute(total["faults"] ?? 0)} faults, ${perMinute(total["operations"] ?? 0)} operations checked`,
  );
}

function* range(from: number, to: number): Iterable<number> {
  for (let number = from; number < to; number++) yield number;
}

async function runOne(plan: Plan): Promise<void> {
  const { seed } = plan;
  const run = bug === undefined ? {} : { bug };
  if (!options.has("shrink")) {
    const outcome = await simulate(plan, { ...run, keepTrace: options.has("trace") });
    for (const line of outcome.trace) console.log(line);
    printFindings(outcome.findings);
    console.log(`seed ${seed}: ${outcome.findings.length} findings, trace ${outcome.hash}`);
    process.exitCode = outcome.findings.length > 0 ? 1 : 0;
    return;
  }
  const { plan: small, runs } = await shrink(plan, run, options.number("runs", 300));
  const { trace, findings } = await simulate(small, { ...run, keepTrace: true });
  for (const line of timeline(trace)) console.log(line);
  printFindings(findings);
  const file = options.text("save");
  if (file !== undefined) writeFileSync(file, `${JSON.stringify(small, undefined, 2)}\n`);
  const faults = small.steps.filter(isFault).length;
  console.log(
    `seed ${seed}: ${plan.steps.length} steps became ${small.steps.length} (${faults} faults) in ${runs} runs; ${small.members} members`,
  );
  process.exitCode = 1;
}

/** The essential trace lines: steps, faults, leaders and findings, without the log lines of each start. */
function timeline(trace: Outcome["trace"]): string[] {
  return trace
    .filter((line) => !/ m\d+: (?!starts|stops|fails|is |loses|became|elected|sent)/.test(line))
    .map((line) => line.slice(0, 400));
}

async function findBugs(seedsMax: number, jobs: Jobs, isOver: () => boolean): Promise<void> {
  const wanted = BUGS.filter((each) => bug === undefined || each === bug);
  await forEach(wanted, jobs, isOver, async ({ name }) => {
    const startMs = performance.now();
    let found: { seed: number; first: Finding } | undefined;
    for (let seed = 1; seed <= seedsMax && found === undefined; seed++) {
      const { findings } = await jobs.run({ seed, bug: name, settings });
      if (findings[0] !== undefined) found = { seed, first: findings[0] };
    }
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    if (found === undefined) {
      console.log(`${name}: NOT FOUND in ${seedsMax} seeds, ${seconds} s`);
      process.exitCode = 1;
    } else
      console.log(
        `${name}: seed ${found.seed}, ${seconds} s, ${found.first.checker}: ${found.first.message.split("\n")[0]!.slice(0, 160)}`,
      );
  });
}

function planSettings(each: Bug | undefined): Parameters<typeof planOf>[1] {
  return { ...each?.settings, ...settings };
}

function printFindings(findings: readonly Finding[]): void {
  for (const { checker, message, moment } of findings.slice(0, 5)) {
    console.log(`  #${moment} ${checker}: ${message.slice(0, 2000)}`);
  }
}
