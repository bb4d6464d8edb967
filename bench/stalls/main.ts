/**
 * Does any request to a member make other clients wait? Runs each heavy load beside an honest client, on ours and on
 * stock etcd in turn, and prints the honest client's waits (median, 99 %, longest) and the member's longest turn and
 * memory. See docs/benchmarks.md.
 *
 *   npm run bench -- stalls [--cases count,list] [--sides ours,stock] [--keys 100000] [--members 1] [--rounds 1] …
 *
 * With --attempts a case during which the machine did not let the honest client run is repeated, that many times at
 * most, and the attempt in which it ran best counts.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ourEtcd, type Program, stockEtcd } from "../../test/harness/programs.ts";
import { machine, type Side } from "../report.ts";
import type { Case, Sizes } from "./case.ts";
import { clientCases } from "./clients.ts";
import { type Loaded, type LoadOptions, load } from "./data.ts";
import { type CaseResult, measure } from "./measure.ts";
import { rangeCases } from "./ranges.ts";
import { LATE_MS, table } from "./table.ts";
import { upkeepCases } from "./upkeep.ts";

export const cases: readonly Case[] = [...rangeCases, ...upkeepCases, ...clientCases];

const OPTIONS = {
  cases: { type: "string", default: "" },
  without: { type: "string", default: "" },
  sides: { type: "string", default: "ours,stock" },
  keys: { type: "string", default: "100000" },
  "large-mib": { type: "string", default: "450" },
  leases: { type: "string", default: "100000" },
  watches: { type: "string", default: "100000" },
  handshakes: { type: "string", default: "1000" },
  seconds: { type: "string", default: "10" },
  members: { type: "string", default: "1" },
  rounds: { type: "string", default: "1" },
  attempts: { type: "string", default: "1" },
  stock: { type: "string" },
  ours: { type: "string" },
  dir: { type: "string", default: tmpdir() },
  json: { type: "string", default: "stalls-results.json" },
  help: { type: "boolean", default: false },
} as const;

export async function stalls(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({ args: [...args], options: OPTIONS });
  const names = (text: string): string[] => text.split(",").filter((name) => name !== "");
  const wanted = names(values.cases);
  const without = names(values.without);
  const unknown = [...wanted, ...without].find((name) => !cases.some((each) => each.name === name));
  if (unknown !== undefined) return usage(`no case is called ${unknown}`);
  if (values.help) return usage("");
  const members = Number(values.members);
  const chosen = cases.filter(
    ({ name, alone }) =>
      (wanted.length === 0 || wanted.includes(name)) && !without.includes(name) && !(alone && members > 1),
  );
  const sizes: Sizes = {
    keys: Number(values.keys),
    largeMib: Number(values["large-mib"]),
    leases: Number(values.leases),
    watches: Number(values.watches),
    handshakes: Number(values.handshakes),
    seconds: Number(values.seconds),
  };
  const programs: Record<Side, Program> = {
    ours: values.ours === undefined ? ourEtcd() : { file: values.ours, args: [] },
    stock: values.stock === undefined ? stockEtcd() : { file: values.stock, args: [] },
  };
  const sides = names(values.sides) as Side[];
  const scratchDir = mkdtempSync(join(values.dir, "kvorum-stalls-"));
  process.on("exit", () => rmSync(scratchDir, { recursive: true, force: true }));
  const results: CaseResult[] = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const side of sides) {
      const options: LoadOptions = { side, program: programs[side], members, sizes, scratchDir };
      results.push(...(await runAll(chosen, Number(values.attempts), options)));
    }
  }
  writeFileSync(values.json, `${JSON.stringify({ machine: machine(), settings: values, results }, undefined, 2)}\n`);
  process.stdout.write(`${table(results, sides)}\n`);
}

/** Cases with the same data share a member, until one changes the data. */
async function runAll(chosen: readonly Case[], attemptsMax: number, options: LoadOptions): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for (const data of new Set(chosen.map((each) => each.data))) {
    let loaded: Loaded | undefined;
    for (const each of chosen.filter((one) => one.data === data)) {
      process.stderr.write(`${each.name}, ${options.side}\n`);
      const attempts: CaseResult[] = [];
      do {
        loaded ??= await load(data, options);
        const result = await attempt(each, loaded, options);
        if (result !== undefined) attempts.push(result);
        if (result !== undefined && result.error === undefined && !each.spoils) continue;
        await loaded.cluster.close();
        loaded = undefined;
      } while (attempts.length > 0 && isDisturbed(attempts.at(-1)!) && attempts.length < attemptsMax);
      if (attempts.length > 0) results.push(leastDisturbed(attempts));
    }
    await loaded?.cluster.close();
  }
  return results;
}

/** Undefined when it could not be measured. */
async function attempt(each: Case, loaded: Loaded, { side, sizes }: LoadOptions): Promise<CaseResult | undefined> {
  try {
    const result = await measure(each, side, loaded, sizes);
    process.stderr.write(`${table([result], [side]).split("\n").at(-1)}\n`);
    return result;
  } catch (error) {
    process.stderr.write(`${each.name} on ${side} failed: ${(error as Error).stack}\n`);
    process.stderr.write(`${loaded.leader.logTail()}\n`);
    return undefined;
  }
}

/** The honest client itself did not run for so long: waits of that length say nothing about the member. */
const isDisturbed = ({ honest }: CaseResult): boolean => honest.lateMs > LATE_MS;

const leastDisturbed = (attempts: readonly CaseResult[]): CaseResult =>
  attempts.reduce((best, each) => (each.honest.lateMs < best.honest.lateMs ? each : best));

function usage(problem: string): void {
  const list = cases.map(({ name, what }) => `  ${name.padEnd(15)} ${what}`).join("\n");
  const options = Object.entries(OPTIONS).map(
    ([name, option]) => `--${name} ${"default" in option ? option.default : ""}`,
  );
  process.stderr.write(`${problem}\nusage: npm run bench -- stalls [options]\n${options.join(" ")}\ncases:\n${list}\n`);
  process.exitCode = problem === "" ? 0 : 1;
}
