import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { flagSpecs } from "../../src/config/settings/flags.ts";
import { legacyFlags } from "../../src/config/sources/legacy-flags.ts";
import { repositoryRoot } from "../harness/programs.ts";
import { flagRow } from "./documentation.ts";

const document = readFileSync(join(repositoryRoot, "docs", "configuration.md"), "utf8");

test("docs/configuration.md has a row for every flag, as the code has it", () => {
  for (const spec of flagSpecs) assert.ok(document.includes(`\n${flagRow(spec)}\n`), flagRow(spec));
});

test("docs/configuration.md names every flag of older versions", () => {
  for (const [name, { state }] of legacyFlags) {
    if (state !== "ignored") assert.ok(document.includes(`\`--${name}\``), name);
  }
});
