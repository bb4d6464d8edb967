/** Runs `kvorum doctor` inside the test's process. */
import assert from "node:assert/strict";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Io } from "../../src/ctl/io.ts";
import { main } from "../../src/doctor/main.ts";

export interface FoundByDoctor {
  readonly severity: string;
  readonly code: string;
  readonly subject: string;
  readonly text: string;
  readonly lost?: string;
  readonly next?: readonly string[];
}

export async function doctor(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = "";
  let err = "";
  const never = () => Promise.reject(new Error("the doctor does not do this"));
  const io: Io = {
    args,
    env: {},
    stdin: (async function* () {})(),
    stdinIsTerminal: false,
    errIsTerminal: false,
    out: (data) => void (out += data.toString()),
    drained: () => Promise.resolve(),
    err: (text) => void (err += text),
    clock: systemClock,
    disk: systemDisk,
    random: systemRandom,
    interrupted: () => new Promise(() => {}),
    askPassword: never,
    fetchText: never,
    runProgram: never,
  };
  const code = await main(args, io);
  return { code, out, err };
}

/** The findings by `-w json`. */
export async function findings(...args: string[]): Promise<{ code: number; all: FoundByDoctor[] }> {
  const { code, out, err } = await doctor("-w", "json", ...args);
  assert.notEqual(out, "", err);
  return { code, all: (JSON.parse(out) as { findings: FoundByDoctor[] }).findings };
}

/** Codes that say how this machine is, not what the test prepared. */
const OF_THE_MACHINE = new Set(["disk", "disk-slow", "space", "space-low", "quota-beyond-disk"]);

/** Codes of the findings that are not `ok`, in alphabetical order, without those of the machine. */
export const codesOf = (all: readonly FoundByDoctor[]): string[] =>
  all
    .filter(({ severity, code }) => severity !== "ok" && !OF_THE_MACHINE.has(code))
    .map(({ code }) => code)
    .sort();

export function one(all: readonly FoundByDoctor[], code: string): FoundByDoctor {
  const found = all.filter((finding) => finding.code === code);
  assert.equal(found.length, 1, `one finding ${code} among ${all.map((finding) => finding.code).join(", ")}`);
  return found[0]!;
}
