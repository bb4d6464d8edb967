/**
 * `kvorum doctor`: reports what is wrong with a data directory, a member's configuration or a running cluster, in plain
 * words, and repairs a directory safely on request.
 */
import { resolve } from "node:path";
import { describeFlags, type Flag, FlagError, FlagSet } from "../base/flags.ts";
import { systemText } from "../base/system-error.ts";
import { Cluster } from "../ctl/connection.ts";
import { ExitError } from "../ctl/exit.ts";
import { applyEnvironment, GLOBAL_FLAGS } from "../ctl/global-flags.ts";
import type { Io } from "../ctl/io.ts";
import { clusterOptions } from "../ctl/settings.ts";
import { examineCluster } from "./cluster.ts";
import { examineConfiguration } from "./configuration.ts";
import { examineDirectory } from "./directory.ts";
import { describe, exitCodeOf, type Finding, toJson } from "./finding.ts";

/** The doctor itself could not work: an invalid command line, or an unreadable directory. */
const FAILED = 3;

const OWN_FLAGS: readonly Flag[] = [
  { name: "config-file", kind: "string", value: "", usage: "etcd's configuration file of the member" },
  { name: "help", shorthand: "h", kind: "bool", value: false, usage: "help for doctor" },
  { name: "repair", kind: "bool", value: false, usage: "do what is safe, after saying what it changes" },
  { name: "wal-dir", kind: "string", value: "", usage: "where the log is, when it has a place of its own" },
  { name: "write-out", shorthand: "w", kind: "string", value: "simple", usage: "simple or json" },
];

const OWN = new Set(OWN_FLAGS.map(({ name }) => name));
/** Those of etcdctl that say how to reach a cluster. */
const CLUSTER_FLAGS = GLOBAL_FLAGS.filter(({ name }) => !OWN.has(name) && name !== "hex" && name !== "debug");

const HELP = `Says what is wrong with a member or a cluster, what is lost if anything, and what to do next. Changes nothing unless
--repair is given.

Usage:
  kvorum doctor DATA-DIR [flags]                        a data directory alone
  kvorum doctor [DATA-DIR] --config-file FILE [flags]   a member's configuration, directory and machine
  kvorum doctor [DATA-DIR] [flags] -- ETCD-FLAGS        the same, with etcd's flags
  kvorum doctor --endpoints LIST [flags]                a running cluster: all its members

Flags:
${describeFlags(OWN_FLAGS)}
Flags for a running cluster, with the meaning and the variables that they have for etcdctl:
${describeFlags(CLUSTER_FLAGS)}
Exit codes: 0 healthy, 1 warnings, 2 problems, 3 the doctor could not look.
`;

/** Resolves with the exit code. */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const flags = new FlagSet([...OWN_FLAGS, ...CLUSTER_FLAGS]);
  try {
    const { args: words, dash = Number.POSITIVE_INFINITY } = flags.parse(args);
    if (flags.bool("help")) {
      io.out(HELP);
      return 0;
    }
    const format = flags.string("write-out");
    if (format !== "simple" && format !== "json") throw new FlagError(`doctor prints simple or json, not ${format}`);
    const look = lookerFor(
      flags,
      words.slice(0, dash),
      dash < Number.POSITIVE_INFINITY ? words.slice(dash) : undefined,
      io,
    );
    let findings = await look();
    if (flags.bool("repair") && repair(findings, io)) findings = await look();
    io.out(format === "json" ? `${toJson(findings)}\n` : describe(findings));
    return exitCodeOf(findings);
  } catch (error) {
    if (error instanceof ExitError && error.message === "") return FAILED;
    io.err(`Error: ${systemText(error)}\n${error instanceof FlagError ? `\n${HELP}` : ""}`);
    return FAILED;
  }
}

/** What the command line asks to examine. Throws FlagError. */
function lookerFor(
  flags: FlagSet,
  words: readonly string[],
  etcdFlags: readonly string[] | undefined,
  io: Io,
): () => Promise<Finding[]> {
  const [dir, ...more] = words;
  const file = flags.string("config-file");
  const hasConfiguration = file !== "" || etcdFlags !== undefined;
  const hasCluster = CLUSTER_FLAGS.some(({ name }) => flags.changed(name));
  if (more.length > 0) throw new FlagError("doctor takes one data directory");
  if (hasCluster && (dir !== undefined || hasConfiguration)) {
    throw new FlagError("doctor examines a directory or a running cluster, not both in one run");
  }
  if (file !== "" && etcdFlags !== undefined)
    throw new FlagError("give --config-file or etcd's flags, as etcd reads only one");
  const { disk, clock } = io;
  const dataDir = dir === undefined ? undefined : resolve(dir);
  const walDir = flags.string("wal-dir") === "" ? undefined : resolve(flags.string("wal-dir"));
  if (hasConfiguration) {
    const argv = etcdFlags ?? ["--config-file", file];
    return () => examineConfiguration({ argv, env: io.env, dataDir, walDir, disk, clock });
  }
  if (dataDir !== undefined) return async () => examineDirectory({ disk, clock, dataDir, walDir }).findings;
  if (!hasCluster && !io.env["ETCDCTL_ENDPOINTS"]) {
    throw new FlagError("doctor needs a data directory, --config-file, or --endpoints");
  }
  return () => lookAtCluster(flags, io);
}

async function lookAtCluster(flags: FlagSet, io: Io): Promise<Finding[]> {
  applyEnvironment(
    flags,
    CLUSTER_FLAGS.map(({ name }) => name),
    io,
    false,
  );
  const cluster = new Cluster(await clusterOptions(flags, io));
  try {
    return await examineCluster({ cluster, clock: io.clock, timeoutMs: flags.number("command-timeout") });
  } finally {
    await cluster.close();
  }
}

/** True when something was repaired. */
function repair(findings: readonly Finding[], io: Io): boolean {
  const repairs = findings.flatMap((finding) => finding.repair ?? []);
  if (repairs.length === 0) io.err("there is nothing that can be repaired safely\n");
  for (const { description, run } of repairs) {
    io.err(`repairing: ${description}\n`);
    io.err(`done: ${run()}\n`);
  }
  return repairs.length > 0;
}
