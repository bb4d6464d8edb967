/** Examines a member's database without changing it. */
import type { Disk } from "../base/disk.ts";
import { humanBytes } from "../base/table.ts";
import { checkBolt } from "../bolt/check.ts";
import { BoltError } from "../bolt/format.ts";
import { BoltReader } from "../bolt/reader.ts";
import { decodeMember, formatId, type Member } from "../membership/member.ts";
import { metaKeys } from "../mvcc/backend/backend.ts";
import { mainOf } from "../mvcc/model/revision.ts";
import type { Finding } from "./finding.ts";
import { WAYS_BACK } from "./ways-back.ts";

export interface DatabaseState {
  /** Of the last log entry in the database. */
  readonly index: number;
  readonly members: readonly Member[];
  readonly removed: readonly string[];
}

const PROBLEMS_SHOWN = 5;

/** Undefined when there is no readable database. */
export function examineDatabase(disk: Disk, path: string, findings: Finding[]): DatabaseState | undefined {
  if (!disk.exists(path)) {
    findings.push({
      severity: "note",
      code: "database-missing",
      subject: "database",
      text: `there is none at ${path}: the member rebuilds it from its log, if that begins with the first entry`,
    });
    return undefined;
  }
  let reader: BoltReader;
  try {
    reader = new BoltReader({ disk, path });
  } catch (error) {
    if (!(error instanceof BoltError)) throw error;
    findings.push(unreadable(error));
    return undefined;
  }
  try {
    return examinePages(reader, findings);
  } finally {
    reader.close();
  }
}

function unreadable(error: BoltError): Finding {
  if (error.code === "not-bolt") {
    return {
      severity: "problem",
      code: "database-foreign",
      subject: "database",
      text: `${error.file} is not in bbolt's format: no server opens it. Its first pages are damaged, or another program wrote it`,
      lost: LOST,
      next: [
        "if an earlier version of kvorum wrote it: save a snapshot with that version, and restore it",
        ...WAYS_BACK,
      ],
    };
  }
  return {
    severity: "problem",
    code: "database-damaged",
    subject: "database",
    text: error.message,
    lost: LOST,
    next: WAYS_BACK,
  };
}

const LOST = "what is on the damaged pages, unless other members or a backup have it";

function examinePages(reader: BoltReader, findings: Finding[]): DatabaseState | undefined {
  const problems = [...checkBolt(reader)];
  if (problems.length > 0) {
    const more = problems.length - PROBLEMS_SHOWN;
    const text = [...problems.slice(0, PROBLEMS_SHOWN), ...(more > 0 ? [`and ${more} more`] : [])].join("; ");
    findings.push({
      severity: "problem",
      code: "database-damaged",
      subject: "database",
      text,
      lost: LOST,
      next: WAYS_BACK,
    });
    return undefined;
  }
  const bucket = (name: string) => reader.bucket(Buffer.from(name));
  const meta = (key: Uint8Array): Buffer | undefined => bucket("meta")?.get(key);
  const index = uint64(meta(metaKeys.consistentIndex));
  const last = bucket("key")?.last();
  const members = [...(bucket("members")?.entries() ?? [])].map(({ key, value }) =>
    decodeMember(BigInt(`0x${Buffer.from(key).toString()}`), Buffer.from(value).toString()),
  );
  const removed = [...(bucket("members_removed")?.entries() ?? [])].map(({ key }) => Buffer.from(key).toString());
  const version = meta(metaKeys.storageVersion)?.toString() ?? "3.5 or older";
  findings.push({
    severity: "ok",
    code: "database",
    subject: "database",
    text:
      `${humanBytes(reader.sizeBytes)}, every page in order; revision ${last === undefined ? 1 : mainOf(last.key)}, holds the log ` +
      `up to entry ${index}, storage version ${version}, members ${members.map(({ id, name }) => `${formatId(id)} (${name || "not started"})`).join(", ") || "none"}`,
  });
  examineAlarms([...(bucket("alarm")?.entries() ?? [])].length, findings);
  return { index, members, removed };
}

function examineAlarms(count: number, findings: Finding[]): void {
  if (count === 0) return;
  findings.push({
    severity: "warning",
    code: "alarms-stored",
    subject: "alarms",
    text: `${count} are raised: the cluster refuses writes, or says that members differ`,
    next: [
      "etcdctl alarm list tells which",
      "NOSPACE: etcdctl compaction, etcdctl defrag, or a larger --quota-backend-bytes; then etcdctl alarm disarm",
      "CORRUPT: replace the member whose etcdctl endpoint hashkv differs; then etcdctl alarm disarm",
    ],
  });
}

const uint64 = (bytes: Buffer | undefined): number => (bytes === undefined ? 0 : Number(bytes.readBigUInt64BE(0)));
