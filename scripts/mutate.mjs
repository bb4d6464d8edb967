// Mutates the sources, one change at a time, and runs the tests that cover the changed line: a change that no test
// detects is a survivor. It works on a copy of the repository in the temporary directory.
//
// Usage: node scripts/mutate.mjs [--sample N] [--total N] [--seed N] [--tests N] [--minutes N] [--out FILE] PATH_PART …
//   PATH_PART   sources whose path contains one of the parts, such as src/config/ or api/http/health
//   --sample    mutants of one file, chosen by the seed; 10 when absent, 0 for all
//   --total     of these, so many of all files together, in an order chosen by the seed; all when absent
//   --tests     how many test files that cover the line are tried, the nearest first; all when absent
//   --minutes   no further mutant is started after this time
//   --out       appends one line of JSON for each mutant
//
// Which lines a test file covers is determined when it is first needed: it runs alone under c8. Only files that mirror
// the folder are asked. Survivors are compiled, because a mutant that does not compile needs no test.
import { spawn } from "node:child_process";
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { mutantsOf } from "./mutants.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    sample: { type: "string", default: "10" },
    total: { type: "string", default: "0" },
    seed: { type: "string", default: "1" },
    tests: { type: "string", default: "0" },
    minutes: { type: "string", default: "60" },
    out: { type: "string" },
  },
});
if (positionals.length === 0) {
  console.error("say which sources to break, such as: node scripts/mutate.mjs src/config/");
  process.exit(2);
}

const startedMs = performance.now();
const until = startedMs + Number(values.minutes) * 60_000;
const copy = mkdtempSync(join(tmpdir(), "kvorum-mutation-"));
const left = ["node_modules", "dist", ".git"];
for (const name of readdirSync(root).filter((each) => !left.includes(each))) {
  cpSync(join(root, name), join(copy, name), { recursive: true });
}
symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));

const counts = { caught: 0, survived: 0, uncovered: 0, invalid: 0 };
try {
  await main();
} finally {
  rmSync(copy, { recursive: true, force: true });
}

async function main() {
  if (!(await build())) throw new Error("the sources do not build");
  if (!(await compiles())) throw new Error("the sources do not compile");
  const sources = filesUnder("src", ".ts").filter((file) => positionals.some((part) => file.includes(part)));
  if (sources.length === 0) throw new Error(`no source matches: ${positionals.join(" ")}`);
  const coverage = new Map();
  const pick = random(Number(values.seed));
  const chosen = sources.flatMap((source) => {
    const text = readFileSync(join(copy, source), "utf8");
    return sample(mutantsOf(text), Number(values.sample), pick).map((mutant) => ({ source, text, mutant }));
  });
  for (const { source, text, mutant } of sample(chosen, Number(values.total), pick)) {
    if (performance.now() > until) return console.log("the time is up");
    const broken = text.slice(0, mutant.start) + mutant.replacement + text.slice(mutant.end);
    const outcome = await judge(source, mutant.line, coverage, {
      breakIt: () => writeFileSync(join(copy, source), broken),
      mend: () => writeFileSync(join(copy, source), text),
    });
    counts[outcome.result]++;
    const { line, what } = mutant;
    if (values.out) appendFileSync(values.out, `${JSON.stringify({ source, line, what, ...outcome })}\n`);
    if (outcome.result === "survived" || outcome.result === "uncovered") {
      console.log(`${outcome.result}: ${source}:${line} ${what}\n    ${text.split("\n")[line - 1].trim()}`);
    }
  }
}

process.on("exit", () => {
  const { caught, survived, uncovered, invalid } = counts;
  const all = caught + survived + uncovered;
  const share = all === 0 ? 0 : Math.round((100 * caught) / all);
  console.log(
    `${caught} of ${all} caught (${share} %), ${survived} survived, ${uncovered} on lines that no test of the folder runs, ${invalid} did not compile`,
  );
});

/** The test files that may execute a line of a source, the nearest first. */
function nearestTests(source) {
  return mirrors(source)
    .map((test) => ({ test, near: nearness(test, source) }))
    .sort((a, b) => b.near - a.near)
    .map(({ test }) => test);
}

/** Runs the tests that cover the line on the broken source until one fails. Leaves the source whole, and the build too. */
async function judge(source, line, coverage, { breakIt, mend }) {
  const tried = [];
  let broken = false;
  const whole = async () => {
    mend();
    if (broken && !(await build())) throw new Error("the sources do not build any more");
    broken = false;
  };
  for (const test of nearestTests(source)) {
    if (tried.length > 0 && tried.length === Number(values.tests)) break;
    if (!coverage.has(test)) {
      await whole();
      coverage.set(test, await coveredBy(test));
    }
    const { lines, tookMs } = coverage.get(test);
    if (!lines.get(source)?.has(line)) continue;
    tried.push(test);
    if (!broken) {
      broken = true;
      breakIt();
      if (!(await build())) return await outcome({ result: "invalid" });
    }
    const { code } = await execute(["--import", "tsx", "--test-force-exit", test], 20_000 + 5 * tookMs);
    const timedOut = code === undefined ? { timedOut: true } : {};
    if (code !== 0) return await outcome({ result: "caught", by: test, ...timedOut });
  }
  breakIt();
  if (!(await compiles())) return await outcome({ result: "invalid" });
  return await outcome(tried.length === 0 ? { result: "uncovered" } : { result: "survived", tests: tried });

  async function outcome(it) {
    await whole();
    return it;
  }
}

async function build() {
  return (await execute(["scripts/build.mjs"], 120_000)).code === 0;
}

async function compiles() {
  const { code } = await execute(["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"], 300_000);
  return code === 0;
}

/** Test files of the folder that mirrors the source's first folder. */
function mirrors(source) {
  const folder = source.split("/")[1];
  return existsSync(join(copy, "test", folder)) ? filesUnder(join("test", folder), ".test.ts") : [];
}

/** Length of the common path of a test and the source; the source's own test has the longest. */
function nearness(test, source) {
  const a = test.replace(/^test\//, "").replace(/\.test\.ts$/, "");
  const b = source.replace(/^src\//, "").replace(/\.ts$/, "");
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  return i;
}

/** Lines of each source that a test file executes, and its duration; empty when it fails by itself. */
async function coveredBy(test) {
  const report = join(copy, "coverage");
  rmSync(report, { recursive: true, force: true });
  const began = performance.now();
  const args = [
    "node_modules/c8/bin/c8.js",
    "--reporter=json",
    `--reports-dir=${report}`,
    "--include=src/**",
    "--clean",
  ];
  const { code } = await execute([...args, process.execPath, "--import", "tsx", "--test-force-exit", test], 300_000);
  const lines = new Map();
  if (code !== 0) {
    console.log(`left out, since it fails without a mutant: ${test}`);
    return { lines, tookMs: 0 };
  }
  for (const [path, file] of Object.entries(JSON.parse(readFileSync(join(report, "coverage-final.json"), "utf8")))) {
    const ran = Object.keys(file.s).filter((id) => file.s[id] > 0);
    lines.set(relative(copy, path), new Set(ran.map((id) => file.statementMap[id].start.line)));
  }
  return { lines, tookMs: performance.now() - began };
}

/** Runs node in the copy; the code is undefined when it had to be stopped. */
function execute(args, timeoutMs) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd: copy, stdio: "ignore", detached: true });
    let stopped = false;
    const timer = setTimeout(() => {
      stopped = true;
      process.kill(-child.pid, "SIGKILL"); // Including servers started by the test.
    }, timeoutMs);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code: stopped ? undefined : (code ?? 1) });
    });
  });
}

function filesUnder(dir, ending) {
  return readdirSync(join(copy, dir), { recursive: true })
    .map((name) => join(dir, String(name)))
    .filter((name) => name.endsWith(ending) && !name.endsWith(".d.ts"))
    .sort();
}

function sample(all, size, pick) {
  if (size === 0 || all.length <= size) return all;
  const left = [...all];
  return Array.from({ length: size }, () => left.splice(Math.floor(pick() * left.length), 1)[0]);
}

/** mulberry32 */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
