/**
 * Runs faults on clusters of real processes and prints a verdict and the gaps for each.
 *
 *   npm run faults -- [FAULT …]   these faults; all possible ones when none is named
 *     --members 3|5               size of the cluster (3)
 *     --hosts                     each member on a host of its own: a network namespace; needs root
 *     --seconds N                 for how long each fault is inflicted (20)
 *     --ours PATH                 another build of bin/etcd
 *     --stock                     stock etcd instead: KVORUM_STOCK_ETCD, or `etcd` on PATH
 *     --list                      the faults, and what each is
 *     --errors                    also the errors of requests that were not acknowledged
 *
 * Network faults use hosts whether requested or not. Exits with 1 when anything was found.
 */
import { FAULTS } from "./faults.ts";
import type { Gap } from "./gaps.ts";
import { hostsMissing } from "./hosts.ts";
import { type Fault, type Report, runFault } from "./run.ts";

const TAKES_VALUE = ["--members", "--seconds", "--ours"];
const FLAGS = ["--hosts", "--stock", "--list", "--errors"];
const args = process.argv.slice(2);
const names: string[] = [];
const given = new Map<string, string>();
for (let i = 0; i < args.length; i++) {
  const arg = args[i]!;
  if (TAKES_VALUE.includes(arg)) given.set(arg, args[++i] ?? "");
  else if (FLAGS.includes(arg)) given.set(arg, "");
  else if (FAULTS.some(({ name }) => name === arg)) names.push(arg);
  else stop(`${arg} is neither an option nor a fault; faults are ${FAULTS.map(({ name }) => name).join(", ")}`);
}

const members = numberOf("--members", 3);
const seconds = numberOf("--seconds", 20);
if (members !== 3 && members !== 5) stop("--members is 3 or 5");
const ours = given.get("--ours");
if (ours !== undefined) process.env["KVORUM_SERVER"] = ours;

const HEADER = `| fault | members | times | verdict | acknowledged of requests | elections, snapshots | gap of the cluster | of the member hit | of the worst other | recovery |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |`;

if (given.has("--list")) for (const { name, what } of FAULTS) console.log(`${name.padEnd(20)} ${what}`);
else await runAll();

async function runAll(): Promise<void> {
  const chosen = FAULTS.filter(({ name }) => names.length === 0 || names.includes(name));
  console.log(HEADER);
  for (const fault of chosen) {
    const hosts = given.has("--hosts") || fault.hosts === true;
    const reason =
      (fault.membersMin ?? 0) > members
        ? `needs ${fault.membersMin} members`
        : (fault.missing?.() ?? (hosts ? hostsMissing() : undefined));
    if (reason !== undefined) {
      console.log(`| ${fault.name} | not run: ${reason} |`);
      if (process.env["KVORUM_REQUIRE_ALL"] === "1") process.exitCode = 1;
      continue;
    }
    await runOne(fault, hosts);
  }
}

async function runOne(fault: Fault, hosts: boolean): Promise<void> {
  try {
    const report = await runFault(fault, { members, hosts, seconds, kind: given.has("--stock") ? "stock" : "ours" });
    console.log(lineOf(report));
    for (const note of report.notes) console.log(`    ${note}`);
    for (const finding of report.findings.slice(0, 20)) console.log(`    FOUND ${finding}`);
    if (given.has("--errors")) for (const [text, count] of report.errors) console.log(`    ${count} × ${text}`);
    if (report.findings.length > 0) process.exitCode = 1;
  } catch (error) {
    process.exitCode = 1;
    console.log(`| ${fault.name} | FAILED | ${(error as Error).message}`);
  }
}

function lineOf(report: Report): string {
  const { fault, settings, times, findings, acknowledged, operations, elections, snapshots, gaps } = report;
  const where = `${settings.members} ${settings.hosts ? "hosts" : "processes"}`;
  const verdict = findings.length === 0 ? "clean" : `${findings.length} FOUND`;
  const counts = [`${acknowledged} of ${operations}`, `${elections}, ${snapshots}`];
  const recovery = gaps === undefined ? "" : `${gaps.recovery} ms`;
  const cells = [
    fault,
    where,
    times,
    verdict,
    ...counts,
    gapText(gaps?.cluster),
    gapText(gaps?.hit),
    gapText(gaps?.others),
  ];
  return `| ${[...cells, recovery].join(" | ")} |`;
}

function gapText(gap: Gap | undefined): string {
  return gap === undefined ? "" : `${gap.write} / ${gap.read} ms`;
}

function numberOf(name: string, otherwise: number): number {
  const value = Number(given.get(name) ?? otherwise);
  if (!(value > 0)) stop(`${name} needs a number above 0`);
  return value;
}

function stop(message: string): never {
  console.error(message);
  process.exit(2);
}
