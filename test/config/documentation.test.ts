import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { allSettings } from "../../src/config/settings/definitions.ts";
import { repositoryRoot, run } from "../harness/programs.ts";

const document = readFileSync(join(repositoryRoot, "docs", "configuration.md"), "utf8");

test("the tables of docs/configuration.md are those generated from the definitions", async () => {
  const script = join(repositoryRoot, "scripts", "gen-docs.ts");
  const { code, stderr } = await run(process.execPath, ["--import", "tsx", script, "--check"], { cwd: repositoryRoot });
  assert.equal(code, 0, stderr);
});

test("docs/configuration.md names every setting, as a flag or as a key of the file", () => {
  for (const { name, flag } of allSettings) {
    const text = flag === false ? `\`${name}\`` : `\`--${name}\``;
    assert.ok(document.includes(`\n| ${text} |`), name);
  }
});
