/** `kvorum doctor`: reports what is wrong with a data directory, in plain words, and repairs it safely on request. */
import { resolve } from "node:path";
import { systemClock } from "../base/clock.ts";
import { systemDisk } from "../base/disk.ts";
import { type Flag, FlagError, FlagSet } from "../base/flags.ts";
import { systemText } from "../base/system-error.ts";
import { examineDirectory } from "./directory.ts";
import { describe, exitCodeOf, type Finding, toJson } from "./finding.ts";

export interface DoctorIo {
  out(text: string): void;
  err(text: string): void;
}

/** The doctor itself could not work: an invalid command line, or an unreadable directory. */
const FAILED = 3;

const FLAGS: readonly Flag[] = [
  { name: "help", shorthand: "h", kind: "bool", value: false, usage: "help for doctor" },
  { name: "repair", kind: "bool", value: false, usage: "do what is safe, after saying what it changes" },
  { name: "wal-dir", kind: "string", value: "", usage: "where the log is, when it has a place of its own" },
  { name: "write-out", shorthand: "w", kind: "string", value: "simple", usage: "simple or json" },
];

const HELP = `Says what is wrong with a member's data directory, what is lost if anything, and what to do next. Changes nothing
unless --repair is given.

Usage:
  kvorum doctor DATA-DIR [flags]

Flags:
  -h, --help              help for doctor
      --repair            do what is safe, after saying what it changes
      --wal-dir string    where the log is, when it has a place of its own
  -w, --write-out string  simple or json (default "simple")

Exit codes: 0 healthy, 1 warnings, 2 problems, 3 the doctor could not look.
`;

export function main(args: readonly string[], io: DoctorIo): number {
  const flags = new FlagSet(FLAGS);
  try {
    const { args: rest } = flags.parse(args);
    if (flags.bool("help")) {
      io.out(HELP);
      return 0;
    }
    const [dataDir, ...more] = rest;
    const format = flags.string("write-out");
    if (dataDir === undefined || more.length > 0) throw new FlagError("doctor takes one data directory");
    if (format !== "simple" && format !== "json") throw new FlagError(`doctor prints simple or json, not ${format}`);
    const walDir = flags.string("wal-dir");
    const look = (): Finding[] =>
      examineDirectory({
        disk: systemDisk,
        clock: systemClock,
        dataDir: resolve(dataDir),
        walDir: walDir === "" ? undefined : resolve(walDir),
      });
    let findings = look();
    if (flags.bool("repair") && repair(findings, io)) findings = look();
    io.out(format === "json" ? `${toJson(findings)}\n` : describe(findings));
    return exitCodeOf(findings);
  } catch (error) {
    io.err(`Error: ${systemText(error)}\n${error instanceof FlagError ? `\n${HELP}` : ""}`);
    return FAILED;
  }
}

/** True when something was repaired. */
function repair(findings: readonly Finding[], io: DoctorIo): boolean {
  const repairs = findings.flatMap((finding) => finding.repair ?? []);
  if (repairs.length === 0) io.err("there is nothing that can be repaired safely\n");
  for (const { description, run } of repairs) {
    io.err(`repairing: ${description}\n`);
    io.err(`done: ${run()}\n`);
  }
  return repairs.length > 0;
}
