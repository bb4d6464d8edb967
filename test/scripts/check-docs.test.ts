import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { repositoryRoot, run } from "../harness/programs.ts";

const CONTRIBUTING = `# Contributing

\`npm run build\` writes \`bin/\`.

| variable | what it does |
| --- | --- |
| \`KVORUM_SEED\` | another seed |
`;

/** A small tree with everything that the documents name. */
const TREE: Readonly<Record<string, string>> = {
  "package.json": '{ "scripts": { "build": "…", "sim": "…" } }',
  "README.md": "`src/wal/wal.ts`, `wal/`, `wal.ts`, [more](CONTRIBUTING.md)\n\n```sh\nbin/etcd --data-dir x\n```\n",
  "CONTRIBUTING.md": `${CONTRIBUTING}\n\`npm run sim -- --seed 1\`, \`npm test -- test/wal/wal\`\n`,
  "bin/etcd": "",
  "src/config/settings/member.ts": 'const names = ["data-dir"];\n',
  "src/wal/wal.ts": "/** The log; test/wal/wal.test.ts tries it, CONTRIBUTING.md says how. */\n",
  "test/sim/main.ts": 'const seed = option("seed");\n',
  "test/wal/wal.test.ts": 'const seed = process.env["KVORUM_SEED"];\n',
};

/** The check's output for the tree with some files changed, one violation per line. */
async function complaints(t: TestContext, changes: Readonly<Record<string, string>>): Promise<string[]> {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-docs-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  for (const [path, text] of Object.entries({ ...TREE, ...changes })) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), text);
  }
  const { code, stderr } = await run(process.execPath, [join(repositoryRoot, "scripts", "check-docs.mjs"), dir]);
  const lines = stderr.split("\n").filter((line) => line !== "");
  assert.equal(code, lines.length === 0 ? 0 : 1, stderr);
  return lines;
}

test("documents that name existing things pass", async (t) => {
  assert.deepEqual(await complaints(t, {}), []);
});

const WRONG: readonly (readonly [string, string, string, RegExp])[] = [
  ["a path that is not there", "README.md", "`src/wal/gone.ts`", /^README\.md: src\/wal\/gone\.ts is not there$/],
  ["a room that is not there", "README.md", "`wal/attic/`", /^README\.md: wal\/attic\/ is not there$/],
  ["a file that is not there, by its name", "README.md", "`gone.ts`", /^README\.md: gone\.ts is not there$/],
  ["a link that leads nowhere", "README.md", "[x](docs/gone.md)", /^README\.md: no file docs\/gone\.md$/],
  ["a table that a blank line cuts", "README.md", "| a |\n| - |\n\n| b |\n| c |\n", /without its head: \| b \|$/],
  ["a script that there is not", "README.md", "`npm run gone`", /^README\.md: package\.json has no script gone$/],
  [
    "a flag that the server has not",
    "README.md",
    "`bin/etcd --seed 1`",
    /^README\.md: nobody knows the option --seed /,
  ],
  ["an option that a script has not", "README.md", "`npm run sim -- --data-dir 1`", /knows the option --data-dir /],
  ["a comment's file that is not there", "src/wal/b.ts", "// See wal/gone.ts.\n", /a comment names wal\/gone\.ts/],
  [
    "a metric that the server has not",
    "README.md",
    "`kvorum_gone_total`",
    /the server has no metric kvorum_gone_total$/,
  ],
  [
    "a comment's script",
    "src/wal/b.ts",
    "// Use npm run gone.\n",
    /^src\/wal\/b\.ts: package\.json has no script gone$/,
  ],
  [
    "a variable that is told of nowhere",
    "src/wal/b.ts",
    `process.env["${"KVORUM"}_NEW"];\n`,
    /variables lacks KVORUM_NEW$/,
  ],
];

for (const [what, file, text, expected] of WRONG) {
  test(`${what} is found`, async (t) => {
    const lines = await complaints(t, { [file]: text });
    assert.equal(lines.length, 1, lines.join("\n"));
    assert.match(lines[0]!, expected);
  });
}

test("an unused variable, and an undocumented script, are found", async (t) => {
  const lines = await complaints(t, { "CONTRIBUTING.md": `${CONTRIBUTING.trim()}\n| \`KVORUM_GONE\` | |\n` });
  assert.deepEqual(lines, [
    'CONTRIBUTING.md: does not name "npm run sim"',
    "CONTRIBUTING.md: nothing reads KVORUM_GONE",
  ]);
});
