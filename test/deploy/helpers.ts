/** Runs commands of `kvorum` that deploy inside the test's process, and collects what they print. */
import { join } from "node:path";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import { main } from "../../src/deploy/main.ts";
import { repositoryRoot } from "../harness/repository.ts";

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface Surroundings {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Added to the wall clock. */
  readonly laterMs?: number;
}

export async function kvorum({ cwd, env = {}, laterMs = 0 }: Surroundings, ...args: string[]): Promise<Ran> {
  let [out, err] = ["", ""];
  const clock: Clock = { ...systemClock, wallMs: () => systemClock.wallMs() + laterMs };
  const code = await main({
    args,
    cwd,
    env: { PATH: process.env["PATH"], ...env },
    clock,
    random: systemRandom,
    self: { file: process.execPath, args: [join(repositoryRoot, "bin", "kvorum")] },
    out: (text) => (out += text),
    err: (text) => (err += text),
  });
  return { code, out, err };
}
