/**
 * What is wrong with a member's data directory, and what to do. Changes nothing, except that it writes and removes one
 * file to measure the disk.
 */
import { statfsSync } from "node:fs";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { lockHolderOf } from "../base/file-locks.ts";
import { systemText } from "../base/system-error.ts";
import { humanBytes } from "../base/table.ts";
import { formatId } from "../membership/member.ts";
import { type DatabaseState, examineDatabase } from "./database.ts";
import type { Finding } from "./finding.ts";
import { examineLog, type LogState } from "./log.ts";
import { WAYS_BACK } from "./ways-back.ts";

export interface DirectoryOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly dataDir: string;
  /** The log's directory, if it is elsewhere. */
  readonly walDir: string | undefined;
  /** Of the member's configuration; etcd's defaults when absent. */
  readonly timing?: Timing;
}

/** The times that a member's disk has to keep up with. */
export interface Timing {
  readonly tickMs: number;
  readonly electionMs: number;
}

const TIMING_DEFAULT: Timing = { tickMs: 100, electionMs: 1_000 };

const FREE_BYTES_MIN = 512 * 1024 * 1024;
const SYNCS = 20;
/** Of the heartbeat: with a disk that takes longer, heartbeats come late, and leaders lose their leadership. */
const SLOW_SYNC_SHARE = 0.5;

/** What was found, and what log and database hold, where they can be read. */
export interface DirectoryReport {
  readonly findings: Finding[];
  readonly log?: LogState | undefined;
  readonly database?: DatabaseState | undefined;
}

export function examineDirectory(options: DirectoryOptions): DirectoryReport {
  const { disk, clock, dataDir, walDir: dedicated, timing = TIMING_DEFAULT } = options;
  const findings: Finding[] = [];
  const member = `${dataDir}/member`;
  if (!disk.exists(dataDir) || !disk.exists(member)) {
    findings.push(noMember(disk, dataDir));
    return { findings };
  }
  const walDir = dedicated ?? `${member}/wal`;
  const dbPath = `${member}/snap/db`;
  const isInUse = examineUse(disk, dataDir, dbPath, findings);
  const log = examineLog(disk, walDir, `${member}/snap`, isInUse, findings);
  // Pages that change while they are read look damaged.
  const database = isInUse ? undefined : examineDatabase(disk, dbPath, findings);
  if (log !== undefined && database !== undefined) compare(log, database, findings);
  examineSpace(dataDir, findings);
  examineSpeed(disk, clock, disk.exists(walDir) ? walDir : member, timing, findings);
  return { findings, log, database };
}

function noMember(disk: Disk, dataDir: string): Finding {
  const exists = disk.exists(dataDir);
  const names = exists ? disk.readDir(dataDir) : [];
  const what = !exists
    ? "does not exist"
    : names.length === 0
      ? "is empty"
      : `holds ${names.join(", ")}, but no data of a member`;
  return {
    severity: "problem",
    code: "directory-empty",
    subject: "directory",
    text: `${dataDir} ${what}`,
    lost: "nothing, if no member ever ran on it; else everything that only it has acknowledged",
    next: [
      "if the data lies elsewhere, or its disk is not mounted: mount it, or name its place",
      "if a new member is to run here: start it with --initial-cluster-state=new in a new cluster, or after etcdctl member add with existing",
      ...WAYS_BACK.slice(1),
    ],
  };
}

/** Whether a member runs on it. */
function examineUse(disk: Disk, dataDir: string, dbPath: string, findings: Finding[]): boolean {
  const mode = disk.modeOf(dataDir) ?? 0;
  if ((mode & 0o077) !== 0) {
    findings.push({
      severity: "warning",
      code: "directory-open",
      subject: "directory",
      text: `others than its owner may look into ${dataDir} (mode ${mode.toString(8)}): it holds all that clients store`,
      next: [`chmod 700 ${dataDir}`],
    });
  }
  const holder = disk.exists(dbPath) ? lockHolderOf(dbPath) : undefined;
  if (holder !== undefined) {
    findings.push({
      severity: "note",
      code: "directory-in-use",
      subject: "directory",
      text: `a member runs on it (the database is locked by process ${holder}): the database is not examined, since it changes while it is read`,
      next: ["examine the running member: kvorum doctor --endpoints=…", "or stop it, and run the doctor again"],
    });
  }
  return holder !== undefined;
}

/** Log and database must fit together: each continues where the other ends. */
function compare(log: LogState, database: DatabaseState, findings: Finding[]): void {
  if (database.index > log.last) {
    findings.push({
      severity: "problem",
      code: "log-behind",
      subject: "log",
      text: `it ends at entry ${log.last}, but the database holds entry ${database.index} already: an older log was put here, or the newer part is gone`,
      lost: `this member's word for the entries ${log.last + 1} to ${database.index} and later: it must not vote as if it had them`,
      next: WAYS_BACK,
    });
  } else if (database.index + 1 < log.first) {
    findings.push({
      severity: "problem",
      code: "database-behind",
      subject: "database",
      text: `it holds the log up to entry ${database.index}, but the log begins at ${log.first}: an older database was put here`,
      next: ["put the database back that belongs to the log, if there is a copy", ...WAYS_BACK],
    });
  }
  const id = formatId(log.memberId);
  if (database.removed.includes(id)) {
    findings.push({
      severity: "problem",
      code: "member-removed",
      subject: "membership",
      text: `this member, ${id}, was removed from its cluster for good`,
      next: ["move the directory away; to bring the host back, etcdctl member add makes a new member of it"],
    });
  } else if (database.members.length > 0 && !database.members.some((member) => member.id === log.memberId)) {
    findings.push({
      severity: "problem",
      code: "log-of-another",
      subject: "membership",
      text: `the log is of member ${id}, whom the database does not know: log and database are of different members`,
      next: ["put the two together that belong together", ...WAYS_BACK],
    });
  }
}

export function examineSpace(dataDir: string, findings: Finding[]): void {
  const { bavail, blocks, bsize } = statfsSync(dataDir);
  const free = bavail * bsize;
  const text = `${humanBytes(free)} of ${humanBytes(blocks * bsize)} are free`;
  if (free >= FREE_BYTES_MIN) findings.push({ severity: "ok", code: "space", subject: "space", text });
  else {
    findings.push({
      severity: "warning",
      code: "space-low",
      subject: "space",
      text: `only ${text}: the member stops when its log cannot grow`,
      next: ["free some, or give the disk more room, before that happens"],
    });
  }
}

export function examineSpeed(
  disk: Disk,
  clock: Clock,
  dir: string,
  { tickMs, electionMs }: Timing,
  findings: Finding[],
): void {
  let times: number[];
  try {
    times = syncTimes(disk, clock, `${dir}/.doctor.tmp`);
  } catch (error) {
    findings.push({
      severity: "problem",
      code: "disk-unwritable",
      subject: "disk",
      text: `nothing can be written in ${dir}: ${systemText(error)}`,
      next: ["give the directory to the user who runs the member, make room, or check the disk"],
    });
    return;
  }
  const median = times[SYNCS >> 1]!;
  const longest = times.at(-1)!;
  const text = `a durable write takes ${median.toFixed(1)} ms, at most ${longest.toFixed(1)} ms (${SYNCS} of one page, write and fdatasync)`;
  const needed = `a heartbeat of ${tickMs} ms and an election time-out of ${electionMs} ms`;
  if (longest < tickMs * SLOW_SYNC_SHARE) {
    findings.push({ severity: "ok", code: "disk", subject: "disk", text: `${text}: fast enough for ${needed}` });
    return;
  }
  const heartbeat = Math.ceil(longest / SLOW_SYNC_SHARE / 50) * 50;
  findings.push({
    severity: "warning",
    code: "disk-slow",
    subject: "disk",
    text: `${text}: too slow for ${needed}`,
    next: [
      "run the doctor again: another program may have kept the disk busy",
      "give the log a faster disk (--wal-dir), without other writers",
      `or, on all members alike, --heartbeat-interval=${heartbeat} --election-timeout=${10 * heartbeat}`,
    ],
  });
}

/** Milliseconds of durable writes of one page each, as the log makes them; ascending. */
function syncTimes(disk: Disk, clock: Clock, path: string): number[] {
  const times: number[] = [];
  const page = Buffer.alloc(4096, 1);
  const file = disk.open(path, "w", 0o600);
  try {
    for (let i = 0; i < SYNCS; i++) {
      const startMs = clock.nowMs();
      file.write(page, i * page.length);
      file.dataSync();
      times.push(clock.nowMs() - startMs);
    }
  } finally {
    file.close();
    disk.remove(path);
  }
  return times.sort((a, b) => a - b);
}
