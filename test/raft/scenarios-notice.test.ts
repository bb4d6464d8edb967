// Slow: all scenarios again for each mistake planted in the core.
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { COVERED_BY } from "./coverage.ts";
import { type Core, coreWith } from "./harness/mutants.ts";
import { missingScenarios, ownScenarios, sharedScenarios } from "./harness/scenario.ts";
import { MUTANTS } from "./mutants.ts";

const filesOf = (root: string, folder: string): string[] =>
  readdirSync(join(root, folder))
    .filter((file) => file.endsWith(".txt"))
    .map((file) => `${folder}/${file.slice(0, -".txt".length)}`);

const ours = ["group", "confchange", "quorum"].flatMap((folder) => filesOf(ownScenarios, folder));

/** Our scenarios that a core fails. */
function noticing({ handlers, runScenario }: Core): string[] {
  return ours.filter((name) => {
    try {
      runScenario(join(ownScenarios, `${name}.txt`), handlers[name.split("/")[0]!]!());
      return false;
    } catch {
      return true;
    }
  });
}

test("each bug in the core is detected by a scenario, and each scenario detects one", async () => {
  assert.deepEqual(noticing(await coreWith(undefined)), [], "without a mistake there is nothing to notice");
  const silent = new Set(ours);
  for (const mutant of MUTANTS) {
    const noticed = noticing(await coreWith(mutant));
    assert.ok(noticed.length > 0, `nothing notices that ${mutant.about}`);
    for (const name of noticed) silent.delete(name);
  }
  assert.deepEqual([...silent], [], "these notice nothing");
});

test("each situation of etcd's own scenarios is in one of ours", () => {
  for (const [theirs, names] of Object.entries(COVERED_BY)) {
    assert.ok(names.length > 0, theirs);
    for (const name of names) assert.ok(ours.includes(name), `${name}, which is to cover ${theirs}`);
  }
  if (!existsSync(sharedScenarios)) return;
  const theirs = ["interaction", "confchange", "quorum"].flatMap((folder) => filesOf(sharedScenarios, folder));
  assert.deepEqual(theirs.sort(), Object.keys(COVERED_BY).sort());
});

test("missing scenarios fail where nothing may be missing, unless declared", () => {
  const { isFault, message } = missingScenarios("/nowhere/interaction", { KVORUM_REQUIRE_ALL: "1" });
  assert.ok(isFault);
  for (const part of [
    "/nowhere/interaction",
    "etcd-io/raft",
    "KVORUM_RAFT_SCENARIOS",
    "KVORUM_WITHOUT_RAFT_SCENARIOS=1",
  ]) {
    assert.ok(message.includes(part), part);
  }
  const env = { KVORUM_REQUIRE_ALL: "1", KVORUM_WITHOUT_RAFT_SCENARIOS: "1" };
  assert.deepEqual(missingScenarios("/nowhere", env), { isFault: false, message: "the folder /nowhere is missing" });
  assert.ok(!missingScenarios("/nowhere", {}).isFault);
});
