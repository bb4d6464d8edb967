/**
 * Our etcdctl against our own server: its output and exit codes are compared with expected.json, so that they are
 * tested without stock etcd too. KVORUM_REWRITE_EXPECTED=1 writes the current output; review the difference before
 * keeping it, and run stock.test.ts with stock etcd.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { ourEtcd } from "../harness/programs.ts";
import { ctl } from "./helpers.ts";
import { environmentOf, names, type Outcome, plain, STEPS, startWithLongIds } from "./steps.ts";

const path = new URL("expected.json", import.meta.url);

test("etcdctl prints the expected output, and exits with the expected code", async (t) => {
  const server = await startWithLongIds(t, ourEtcd());
  const known = await names(server);
  const outcomes: [command: string, outcome: Outcome][] = [];
  for (const step of STEPS) {
    const input = step.input === undefined ? {} : { input: step.input };
    const outcome = await ctl(["--endpoints", server.endpoint, ...step.args], { ...input, env: environmentOf(step) });
    outcomes.push([step.args.join(" "), plain(outcome, known, step)]);
  }
  if (process.env["KVORUM_REWRITE_EXPECTED"] === "1") writeFileSync(path, `${JSON.stringify(outcomes, null, 1)}\n`);
  const expected = JSON.parse(readFileSync(path, "utf8")) as typeof outcomes;
  for (const [i, outcome] of outcomes.entries()) assert.deepEqual(outcome, expected[i]);
  assert.equal(outcomes.length, expected.length);
});
