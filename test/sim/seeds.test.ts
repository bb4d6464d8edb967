// Slow: thirty whole simulations.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BUGS } from "./bugs.ts";
import type { Finding } from "./checkers/history.ts";
import { type Plan, planOf } from "./plan.ts";
import { simulate } from "./simulation.ts";

/** KVORUM_SIM_SEEDS=N runs more; `npm run sim` runs any number. */
const SEEDS = Number(process.env["KVORUM_SIM_SEEDS"] ?? 30);
const PLANS = join(import.meta.dirname, "plans");

/** Seeds of the current planner that failed once; reduced cases are also kept as plans. */
const FAILED_ONCE = [
  22, 43, 55, 62, 74, 98, 99, 114, 127, 130, 143, 296, 347, 1241, 1860, 2108, 2608, 46, 5025, 6681, 7072, 7082, 7178,
  8561,
];

/** The same, with the seed's default scene. */
const FAILED_WITH_SCENE = [114, 179, 807, 1335, 1634, 3223, 4038];

const describe = (findings: readonly Finding[]): string =>
  findings.map(({ checker, message, moment }) => `#${moment} ${checker}: ${message}`).join("\n");

async function keepsItsPromises(plan: Plan): Promise<void> {
  const { findings } = await simulate(plan);
  assert.equal(findings.length, 0, `seed ${plan.seed}: ${describe(findings)}`);
}

test("a cluster keeps its promises under the faults of each seed", async () => {
  for (let seed = 1; seed <= SEEDS; seed++) await keepsItsPromises(planOf(seed));
});

test("a single member keeps its promises too", async () => {
  for (let seed = 1; seed <= SEEDS / 3; seed++) await keepsItsPromises(planOf(seed, { members: 1 }));
});

test("seeds that failed once do not fail again", async () => {
  for (const seed of FAILED_ONCE) await keepsItsPromises(planOf(seed, { scene: "plain", limits: {} }));
  for (const seed of FAILED_WITH_SCENE) await keepsItsPromises(planOf(seed, { limits: {} }));
  for (const file of readdirSync(PLANS)) {
    await keepsItsPromises(JSON.parse(readFileSync(join(PLANS, file), "utf8")) as Plan);
  }
});

test("the same seed gives the same trace, byte for byte", async () => {
  for (const seed of [4, 11]) {
    const first = await simulate(planOf(seed));
    const second = await simulate(planOf(seed), { keepTrace: true });
    assert.equal(second.hash, first.hash, `seed ${seed}`);
    assert.deepEqual(second.counts, first.counts);
  }
});

test("planted bugs are found, each by its own checker", async () => {
  for (const [name, seed, checker] of [
    ["term-not-persisted", 1, "durability"],
    ["vote-not-persisted", 1, "durability"],
    ["unfinished-write-unmarked", 1, "state"],
    ["apply-twice", 1, "state"],
    ["read-local", 3, "linearizability"],
    ["event-twice", 4, "watch"],
    ["acknowledged-during-sync", 1, "durability"],
    ["old-term-counted", 12, "raft"],
    ["skipped-when-full", 8, "watch"],
    // The watch hub notices itself that revisions are missing, and stops the member.
    ["restore-unnoticed", 1, "process"],
    ["lease-never", 3, "lease"],
  ] as const) {
    const bug = BUGS.find((each) => each.name === name)!;
    // Any change of the server changes what happens in a seed, so one of three has to show it.
    const all: Finding[] = [];
    const isFound = (): boolean => all.some((finding) => finding.checker === checker);
    for (let each = seed; each < seed + 3 && !isFound(); each++) {
      const { findings } = await simulate(planOf(each, { scene: "plain", ...bug.settings }), { bug });
      all.push(...findings);
    }
    assert.ok(isFound(), `${name}: ${describe(all)}`);
  }
});
