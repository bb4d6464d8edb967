/** The load process: runs one job (see jobs.ts) against a server on 127.0.0.1 and prints its result as JSON. */
import type { Job, JobResult } from "./jobs.ts";
import { runKeepAlives } from "./keepalive.ts";
import { runUnary } from "./unary.ts";
import { runWatch } from "./watch.ts";

function run(job: Job): Promise<JobResult> {
  switch (job.kind) {
    case "watch":
      return runWatch(job);
    case "keepalive":
      return runKeepAlives(job);
    default:
      return runUnary(job);
  }
}

const result = await run(JSON.parse(process.argv[2] ?? "null") as Job);
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
