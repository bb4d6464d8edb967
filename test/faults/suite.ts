/** Runs a fault as a test: three members, a few seconds, no findings allowed. */
import assert from "node:assert/strict";
import { hostRequirement } from "../harness/programs.ts";
import { FAULTS } from "./faults.ts";
import { hostsMissing } from "./hosts.ts";
import { type Fault, type Report, runFault } from "./run.ts";

export function faultNamed(name: string): Fault {
  const fault = FAULTS.find((each) => each.name === name);
  if (fault === undefined) throw new Error(`no fault is called ${name}`);
  return fault;
}

/** Skip reason of node:test, as requireProgram returns it. */
export function requireFault(name: string): string | false {
  const fault = faultNamed(name);
  const reason = fault.missing?.() ?? (fault.hosts === true ? hostsMissing() : undefined);
  return hostRequirement(reason === undefined, reason ?? "");
}

/** Causes it once or for `seconds`; fails with all findings. */
export async function survives(name: string, seconds = 1): Promise<Report> {
  const fault = faultNamed(name);
  const report = await runFault(fault, { members: 3, hosts: fault.hosts === true, seconds, kind: "ours" });
  assert.deepEqual(report.findings, []);
  assert.ok(report.times > 0, "the fault was inflicted");
  assert.ok(report.revisions > 0, "writes were acknowledged");
  return report;
}
