/** Runs the load process of bench/load and converts its result to measurements. */
import { join } from "node:path";
import { repositoryRoot, run } from "../test/harness/programs.ts";
import type { Job, JobResult } from "./load/jobs.ts";
import type { Measurement } from "./suite.ts";

/** Shares of one core above which the generator, not the server, is the bottleneck. */
const GENERATOR_CPU_MAX = 0.95;

export async function generate(job: Job, timeoutSeconds: number): Promise<JobResult> {
  const main = join(repositoryRoot, "bench", "load", "main.ts");
  const { code, stdout, stderr } = await run(process.execPath, ["--import", "tsx", main, JSON.stringify(job)], {
    cwd: repositoryRoot,
    timeoutMs: timeoutSeconds * 1000,
  });
  if (code !== 0) throw new Error(`the load process failed on ${job.kind}: ${stderr}`);
  const result = JSON.parse(stdout.toString()) as JobResult;
  if (result.failed > 0) throw new Error(`${job.kind}: ${result.failed} calls failed beside ${result.done} done`);
  if (result.generatorCpu > GENERATOR_CPU_MAX) {
    process.stderr.write(`note: the load process was busy (${Math.round(result.generatorCpu * 100)} % of a core)\n`);
  }
  return result;
}

export function measurements(name: string, unit: string, result: JobResult): Measurement[] {
  return [
    { name, unit, better: "higher", value: result.perSecond },
    { name: `${name} p50`, unit: "ms", better: "lower", value: result.p50Ms },
    { name: `${name} p99`, unit: "ms", better: "lower", value: result.p99Ms },
  ];
}
