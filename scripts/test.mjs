// Runs the test files under test/ with Node's own runner, in parallel.
//
//   npm test [-- PATH_PART …]            only files whose path contains one of the parts
//   npm run test:fast [-- PATH_PART …]   only the fast ones of these
//   … --list                             only their names
//
// A test file is fast unless it starts a process, directly or through its imports from test/, or its first line marks
// it as slow: `// Slow: what takes its time`. So the fast tests need only the packages, and no build. They are bundled
// first, because a short test spends most of its time loading code.
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values, positionals: parts } = parseArgs({
  allowPositionals: true,
  options: { fast: { type: "boolean" }, list: { type: "boolean" } },
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

/** Under node_modules/, where packages are found from it. */
let bundle;
if (values.fast) {
  const { bundleTests } = await import("./bundle-tests.mjs");
  bundle = await bundleTests(root, files);
  process.on("exit", () => rmSync(bundle.folder, { recursive: true, force: true }));
}
const args = [
  ...(bundle === undefined ? ["--import", "tsx"] : ["--enable-source-maps"]),
  "--test",
  // Node ends a terminal's output with the failures too; scripts/test-report.mjs does so in a log.
  `--test-reporter=${values.fast || process.stdout.isTTY ? "spec" : pathToFileURL(join(root, "scripts/test-report.mjs"))}`,
  // Many fast tests wait for a timer now and then.
  `--test-concurrency=${Math.max(2, availableParallelism()) * (values.fast ? 2 : 1)}`,
  // A hanging test fails, and a file that leaves something open still ends.
  "--test-timeout=300000",
  "--test-force-exit",
  ...(bundle?.files ?? files),
];
const child = spawn(process.execPath, args, { cwd: root, stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
