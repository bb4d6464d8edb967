import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pathToFileURL } from "node:url";
import { repositoryRoot, run } from "../harness/programs.ts";

const REPORTER = pathToFileURL(join(repositoryRoot, "scripts", "test-report.mjs")).href;

/** Lines that Node's runner prints with our reporter for test files of these texts. */
async function report(t: TestContext, files: Readonly<Record<string, string>>): Promise<string[]> {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-report-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const imports = 'import assert from "node:assert/strict";\nimport { describe, test } from "node:test";\n';
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), imports + text);
  // Inside a test, a runner that inherited this variable would run nothing.
  const env = { NODE_TEST_CONTEXT: undefined };
  const args = ["--test", "--test-force-exit", `--test-reporter=${REPORTER}`, ...Object.keys(files)];
  const { stdout } = await run(process.execPath, args, { cwd: dir, env, timeoutMs: 60_000 });
  return stdout.toString().trimEnd().split("\n");
}

/** The lines between the last result and the counts, without the plan. */
function listIn(lines: readonly string[]): readonly string[] {
  const counts = lines.findIndex((line) => /^# tests \d+$/.test(line));
  const plan = lines.findLastIndex((line) => /^1\.\.\d+$/.test(line));
  assert.ok(plan !== -1 && counts > plan, lines.join("\n"));
  return lines.slice(plan + 1, counts);
}

test("failed tests are listed with file, suite, name and message before the counts, which stay last", async (t) => {
  const lines = await report(t, {
    "a.test.mjs": 'test("holds", () => {});\ntest("adds", () => assert.fail("one and one"));\n',
    "b.test.mjs": `
      describe("inside", () => {
        test("holds", () => {});
        test("throws", () => { throw new TypeError("two\\nlines"); });
      });
      test("may fail", { todo: true }, () => assert.fail("not yet"));
    `,
    "c.test.mjs": "process.exit(3);\n",
  });
  assert.deepEqual(listIn(lines), [
    "# 3 failed:",
    "# - a.test.mjs > adds",
    "#     one and one",
    "# - b.test.mjs > inside > throws",
    "#     two",
    "#     lines",
    "# - c.test.mjs",
    "#     test failed",
  ]);
  assert.ok(lines.includes("# fail 3") || lines.includes("# fail 4"), lines.join("\n"));
  assert.match(lines.at(-1) ?? "", /^# (todo|duration_ms) /);
  assert.equal(lines.filter((line) => line.trim().startsWith("not ok ")).length, 5, "with the suite, and as before");
});

test("a long message is cut, and nothing is listed when all tests hold", async (t) => {
  const [many, none] = await Promise.all([
    report(t, { "a.test.mjs": 'test("long", () => { throw new Error("x".repeat(5000) + "\\ny".repeat(40)); });\n' }),
    report(t, { "a.test.mjs": 'test("holds", () => {});\n' }),
  ]);
  const list = listIn(many);
  assert.equal(list.length, 2 + 12 + 1);
  assert.equal(list.at(-1), "#     … 29 lines more");
  assert.ok(list.every((line) => line.length < 400));
  assert.deepEqual(listIn(none), []);
});
