// Runs the test files under test/ with Node's own runner, in parallel.
// Usage: npm test [-- PATH_PART …]   only files whose path contains one of the parts
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const parts = process.argv.slice(2);

function testFiles(dir) {
  return readdirSync(dir, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(dir, entry.name);
      if (entry.isDirectory()) return testFiles(path);
      return entry.name.endsWith(".test.ts") ? [relative(root, path)] : [];
    })
    .sort();
}

const files = testFiles(join(root, "test")).filter((f) => parts.length === 0 || parts.some((p) => f.includes(p)));
if (files.length === 0) {
  console.error(`no test file matches: ${parts.join(" ")}`);
  process.exit(1);
}
const args = [
  "--import",
  "tsx",
  "--test",
  `--test-concurrency=${Math.max(2, availableParallelism())}`,
  // A hanging test fails, and a file that leaves something open still ends.
  "--test-timeout=300000",
  "--test-force-exit",
  ...files,
];
const child = spawn(process.execPath, args, { cwd: root, stdio: "inherit" });
child.on("exit", (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
