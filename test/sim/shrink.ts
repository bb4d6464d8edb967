/**
 * Reduces a failing plan: drops steps as long as the same checker still fails, first many at once, then one by one
 * (delta debugging). Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002.
 */
import { isFault, type Plan, type Step } from "./plan.ts";
import { type Outcome, type RunSettings, simulate } from "./simulation.ts";

export interface Shrunk {
  readonly plan: Plan;
  readonly outcome: Outcome;
  readonly runs: number;
}

export async function shrink(plan: Plan, settings: RunSettings, runsMax: number): Promise<Shrunk> {
  let outcome = await simulate(plan, settings);
  const checker = outcome.findings[0]?.checker;
  if (checker === undefined) throw new Error(`seed ${plan.seed} does not fail`);
  let best = plan;
  let runs = 1;
  const tryWith = async (steps: readonly Step[]): Promise<boolean> => {
    runs++;
    const candidate = { ...best, steps };
    const result = await simulate(candidate, settings);
    if (!result.findings.some((finding) => finding.checker === checker)) return false;
    best = candidate;
    outcome = result;
    return true;
  };
  // Faults first: a plan with few of them is the easiest to understand.
  for (const which of [isFault, (step: Step) => !isFault(step)]) {
    for (let size = Math.ceil(best.steps.filter(which).length / 2); size >= 1 && runs < runsMax; ) {
      const chosen = best.steps.filter(which);
      let removed = false;
      for (let at = chosen.length; at > 0 && runs < runsMax; at -= size) {
        const out = new Set(chosen.slice(Math.max(0, at - size), at));
        if (await tryWith(best.steps.filter((step) => !out.has(step)))) removed = true;
      }
      if (size === 1 && !removed) break;
      size = size === 1 ? 1 : Math.floor(size / 2);
    }
  }
  return { plan: best, outcome, runs };
}
