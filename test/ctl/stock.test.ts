/**
 * Two stock etcd servers get the same commands, one from stock etcdctl and one from ours: output and exit code must be
 * the same.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { requireProgram, requireStockEtcd, run, stockEtcd } from "../harness/programs.ts";
import { ctl } from "./helpers.ts";
import { environmentOf, names, plain, STEPS, startWithLongIds } from "./steps.ts";

const STOCK_CTL = process.env["KVORUM_STOCK_ETCDCTL"] || "etcdctl";
const skip = requireStockEtcd() || requireProgram(STOCK_CTL);

test("etcdctl prints what stock etcdctl prints, and exits with the same code", { skip }, async (t) => {
  const is37 = (await run(STOCK_CTL, ["version"])).stdout.toString().includes("etcdctl version: 3.7");
  const [theirs, ours] = await Promise.all([startWithLongIds(t, stockEtcd()), startWithLongIds(t, stockEtcd())]);
  const theirNames = await names(theirs);
  const ourNames = await names(ours);
  const differences: string[] = [];
  for (const step of STEPS) {
    if (step.since37 && !is37) continue;
    const args = (endpoint: string) => ["--endpoints", endpoint, ...step.args];
    const options = { ...(step.input === undefined ? {} : { input: step.input }), env: environmentOf(step) };
    const [expected, actual] = await Promise.all([
      run(STOCK_CTL, args(theirs.endpoint), { ...options, env: { ETCDCTL_API: "3", ...options.env } }),
      ctl(args(ours.endpoint), options),
    ]);
    const want = plain(expected, theirNames, step);
    const got = plain(actual, ourNames, step);
    try {
      assert.deepEqual(got, want);
    } catch (error) {
      differences.push(`etcdctl ${step.args.join(" ")}: ${(error as Error).message}`);
    }
  }
  assert.equal(differences.length, 0, differences.join("\n"));
});
