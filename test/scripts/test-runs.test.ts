import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Result, repositoryRoot, run } from "../harness/programs.ts";

/** `npm test` in a repository whose tests have these texts. */
async function testRun(t: TestContext, tests: Readonly<Record<string, string>>): Promise<Result & { text: string }> {
  const root = mkdtempSync(join(tmpdir(), "kvorum-runs-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  cpSync(join(repositoryRoot, "scripts"), join(root, "scripts"), { recursive: true });
  // A folder of its own, in which the bundles of the tests lie too.
  mkdirSync(join(root, "node_modules"));
  symlinkSync(join(repositoryRoot, "node_modules", "esbuild"), join(root, "node_modules", "esbuild"));
  mkdirSync(join(root, "test"));
  for (const [name, text] of Object.entries(tests)) {
    const path = join(root, "test", `${name}.test.ts`);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `import { test } from "node:test";\n${text}`);
  }
  // Inside a test, a runner that inherited this variable would run nothing.
  const env = { NODE_TEST_CONTEXT: undefined };
  const result = await run(process.execPath, ["scripts/test.mjs"], { cwd: root, env, timeoutMs: 60_000 });
  return { ...result, text: result.stdout.toString() };
}

const PROCESSES = 'import "node:child_process";\nimport { existsSync, writeFileSync } from "node:fs";\n';
const FAILS_ONCE = `${PROCESSES}
  test("once", () => {
    if (existsSync("flag")) return;
    writeFileSync("flag", "");
    throw new Error("not yet");
  });
  test("always", () => {});`;

test("a file that fails by chance runs again, alone, is named as unstable, and counts as passed", async (t) => {
  const { code, text } = await testRun(t, { chance: FAILS_ONCE, sound: 'test("holds", () => {});' });
  assert.equal(code, 0, text);
  assert.match(text, /^# - test\/chance\.test\.ts > once\n# {5}not yet$/m);
  assert.match(
    text,
    /^# UNSTABLE, failed above and passed alone: test\/chance\.test\.ts\n# tests 3\n# suites 0\n# pass 3\n# fail 0\n/m,
  );
});

test("a file whose process ends in the middle runs again too", async (t) => {
  const { code, text } = await testRun(t, {
    ends: FAILS_ONCE.replace('throw new Error("not yet")', "process.exit(3)"),
  });
  assert.equal(code, 0, text);
  assert.match(text, /^# UNSTABLE, failed above and passed alone: test\/ends\.test\.ts$/m);
});

test("what fails twice fails the run", async (t) => {
  const { code, text } = await testRun(t, { broken: `${PROCESSES}test("never", () => { throw new Error("no"); });` });
  assert.equal(code, 1);
  assert.equal(text.match(/^not ok 1 - never$/gm)?.length, 2);
  assert.match(text, /# fail 1\n[\s\S]*# fail 1\n/);
});

test("a test that does the same in each run is not given a second one", async (t) => {
  const { code, text } = await testRun(t, { "raft/pure": FAILS_ONCE });
  assert.equal(code, 1);
  assert.equal(text.match(/^not ok 1 - once$/gm)?.length, 1);
});

test("many failing files are no chance", async (t) => {
  const names = ["a", "b", "c", "d", "e", "f"];
  const failing = `${PROCESSES}test("never", () => { throw new Error("no"); });`;
  const { code, text } = await testRun(t, Object.fromEntries(names.map((name) => [name, failing])));
  assert.equal(code, 1);
  assert.equal(text.match(/^not ok \d - never$/gm)?.length, names.length);
});
