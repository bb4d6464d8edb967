// Runs the test files under test/ with Node's own runner, in parallel.
//
//   npm test [-- PATH_PART …]            only files whose path contains one of the parts
//   npm run test:fast [-- PATH_PART …]   only the fast ones of these
//   … --list                             only their names
//   … --times                            and, at the end, the files that took longest
//
// A test file is fast unless it starts a process, directly or through its imports from test/, or its first line marks
// it as slow: `// Slow: what takes its time`. So the fast tests need only the packages, and no build. Of a fast file,
// single tests may be left out, and rounds (test/harness/fast.ts). All are bundled first, because a short test spends
// most of its time loading code; the fast ones also share processes.
//
// Processes, sockets and clocks depend on what else the machine does. Where tests fail in a few files, these files run a
// second time, alone, and both outcomes stand in the output: what fails again fails the run. The tests of raft and of the
// simulator are not run again: chance has no part in them.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { bundleTests, groupBundles } from "./bundle-tests.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values, positionals: parts } = parseArgs({
  allowPositionals: true,
  options: { fast: { type: "boolean" }, list: { type: "boolean" }, times: { type: "boolean" } },
});

function testFiles(dir) {
  return readdirSync(dir, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(dir, entry.name);
      if (entry.isDirectory()) return testFiles(path);
      return entry.name.endsWith(".test.ts") ? [relative(root, path)] : [];
    })
    .sort();
}

function fast(file) {
  if (readFileSync(join(root, file), "utf8").startsWith("// Slow: ")) return false;
  const seen = new Set([join(root, file)]);
  for (const path of seen) {
    for (const [, specifier] of readFileSync(path, "utf8").matchAll(
      /^(?:import|export) (?!type )(?:[^;"]* from )?"([^"]+)"/gm,
    )) {
      if (specifier === "node:child_process") return false;
      const target = resolve(dirname(path), specifier);
      if (specifier.startsWith(".") && relative(root, target).startsWith("test") && existsSync(target))
        seen.add(target);
    }
  }
  return true;
}

const files = testFiles(join(root, "test"))
  .filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)))
  .filter((file) => !values.fast || fast(file));
if (files.length === 0) {
  console.error(`no ${values.fast ? "fast " : ""}test file matches: ${parts.join(" ")}`);
  process.exit(1);
}
if (values.list) {
  console.log(files.join("\n"));
  process.exit();
}

/** As many fast test files share a process, which is the shorter the more, and the worse shared between processors. */
const GROUP_SIZE_MAX = 8;

/** Under node_modules/, where packages are found from it. */
const bundle = await bundleTests(root, files);
process.on("exit", () => rmSync(bundle.folder, { recursive: true, force: true }));

const toTerminal = process.stdout.isTTY;
const script = (name) => pathToFileURL(join(root, "scripts", name)).href;
const notes = mkdtempSync(join(tmpdir(), "kvorum-tests-"));
process.on("exit", () => rmSync(notes, { recursive: true, force: true }));

/** Runs test files. Resolves with the exit code, the files in which a test failed, and the counts if they were held back. */
function run(files, { concurrency, holdCounts }) {
  const failures = join(notes, "failures");
  const args = [
    "--enable-source-maps",
    "--test",
    // Node ends a terminal's output with the failures too; scripts/test-report.mjs does so in a log.
    `--test-reporter=${values.fast || toTerminal ? "spec" : script("test-report.mjs")}`,
    "--test-reporter-destination=stdout",
    `--test-reporter=${script("failed-files.mjs")}`,
    `--test-reporter-destination=${failures}`,
    ...(values.times ? [`--test-reporter=${script("slowest-files.mjs")}`, "--test-reporter-destination=stderr"] : []),
    `--test-concurrency=${concurrency}`,
    // A hanging test fails, and a file that leaves something open still ends.
    "--test-timeout=300000",
    "--test-force-exit",
    ...(values.fast ? groupBundles(root, bundle, GROUP_SIZE_MAX) : files.map((file) => bundle.files.get(file))),
  ];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: values.fast ? { ...process.env, KVORUM_FAST: "1" } : process.env,
    stdio: ["inherit", holdCounts ? "pipe" : "inherit", "inherit"],
  });
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
  const held = holdCounts ? passOn(child.stdout) : () => "";
  return new Promise((done) => {
    child.on("close", (code, signal) => {
      const failed = existsSync(failures) ? readFileSync(failures, "utf8").split("\n").filter(Boolean) : [];
      done({
        code: signal ? 1 : (code ?? 1),
        signal,
        failed,
        counts: held(),
      });
    });
  });
}

/** Writes a stream on, but for the counts at its end. Returns how to get these. */
function passOn(stream) {
  let tail = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk) => {
    tail += chunk;
    const counts = tail.search(/^# tests \d+$/m);
    const end = counts === -1 ? tail.lastIndexOf("\n") + 1 : counts;
    process.stdout.write(tail.slice(0, end));
    tail = tail.slice(end);
  });
  return () => tail;
}

/** The counts, with what failed at first among what passed. */
function mended(counts) {
  const count = (name) => Number(new RegExp(`^# ${name} (\\d+)$`, "m").exec(counts)?.[1] ?? 0);
  const failed = count("fail") + count("cancelled");
  return counts
    .replace(/^# pass \d+$/m, `# pass ${count("pass") + failed}`)
    .replace(/^# (fail|cancelled) \d+$/gm, "# $1 0");
}

/** More files than this do not fail by chance. */
const SECOND_CHANCES_MAX = 5;
/** Each run of these does the same. */
const DETERMINISTIC = /^test\/(raft|sim)\//;

// Many fast tests wait for a timer now and then.
const concurrency = Math.max(2, availableParallelism()) * (values.fast ? 2 : 1);
const first = await run(files, { concurrency, holdCounts: !values.fast && !toTerminal });
let { code, counts } = first;
const { failed } = first;
const isChance =
  failed.length > 0 && failed.length <= SECOND_CHANCES_MAX && !failed.some((file) => DETERMINISTIC.test(file));
if (code !== 0 && !first.signal && !values.fast && isChance) {
  console.log(
    `# run again, alone, because processes and sockets depend on what else the machine does: ${failed.join(" ")}`,
  );
  const second = await run(failed, { concurrency: 1, holdCounts: false });
  code = second.code;
  if (code === 0) {
    console.log(`# UNSTABLE, failed above and passed alone: ${failed.join(" ")}`);
    counts = mended(counts);
  }
}
process.stdout.write(counts);
process.exitCode = code;
