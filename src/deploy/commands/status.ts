/** A cluster in one table, and below it what needs attention, each with the command for it. */
import { X509Certificate } from "node:crypto";
import { humanBytes, renderTable } from "../../base/table.ts";
import { readText } from "../common/files.ts";
import type { Look } from "../common/look.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { firstCertificate } from "../pki/authority.ts";
import { daysLeft } from "../pki/inspect.ts";
import { peerPair, serverPair, sharedPair } from "../pki/layout.ts";

export interface Row {
  readonly name: string;
  readonly endpoint: string;
  readonly id: string;
  readonly version: string;
  /** Bytes of the database, and of these in use. */
  readonly size: number;
  readonly inUse: number;
  readonly isLeader: boolean;
  readonly isLearner: boolean;
  readonly term: number;
  readonly index: number;
  /** Entries that it has still to apply, compared with the member that is furthest. */
  readonly lag: number;
  readonly revision: number;
  /** Of a linearizable read, in milliseconds; undefined when it fails. */
  readonly tookMs: number | undefined;
  /** Until the first of its certificates ends; undefined when they are not here. */
  readonly certificateDays: number | undefined;
  readonly errors: readonly string[];
}

const WARN_DAYS = 30;
const LAG_MAX = 5_000;
const FREE_PART = 0.5;
const FREE_BYTES_MIN = 100 * 2 ** 20;
const QUOTA_PART = 0.8;
const QUOTA_DEFAULT_BYTES = 2 ** 31;

export function rowsOf(inventory: Inventory, looks: readonly Look[], nowMs: number): Row[] {
  const furthest = Math.max(0, ...looks.map(({ status }) => Number(status?.raftAppliedIndex ?? 0)));
  return looks.map(({ endpoint, status, tookMs, trouble }, i) => {
    const applied = Number(status?.raftAppliedIndex ?? 0);
    return {
      name: inventory.members[i]!.name,
      endpoint,
      id: status?.header?.memberId.toString(16) ?? "",
      version: status?.version ?? "",
      size: Number(status?.dbSize ?? 0),
      inUse: Number(status?.dbSizeInUse ?? 0),
      isLeader: status !== undefined && status.leader === status.header?.memberId,
      isLearner: status?.isLearner ?? false,
      term: Number(status?.raftTerm ?? 0),
      index: Number(status?.raftIndex ?? 0),
      lag: status === undefined ? 0 : furthest - applied,
      revision: Number(status?.header?.revision ?? 0),
      tookMs,
      certificateDays: certificateDays(inventory, inventory.members[i]!, nowMs),
      errors: [...(status?.errors ?? []), ...(tookMs === undefined && trouble !== undefined ? [trouble] : [])],
    };
  });
}

function certificateDays({ certificates: { dir, isShared } }: Inventory, { name }: Member, nowMs: number) {
  const pairs = isShared ? [sharedPair(dir)] : [serverPair(dir, name), peerPair(dir, name)];
  const days = pairs.flatMap(({ cert }) => {
    const text = readText(cert);
    return text === undefined ? [] : [daysLeft(new X509Certificate(firstCertificate(text, cert)), nowMs)];
  });
  return days.length === 0 ? undefined : Math.min(...days);
}

export function statusText(rows: readonly Row[], quotaBytes = QUOTA_DEFAULT_BYTES): string {
  const cells = rows.map((row) => {
    const isThere = row.version !== "";
    const shown = (text: string | number | boolean) => (isThere ? `${text}` : "");
    return [
      row.name,
      row.endpoint,
      row.id,
      row.version,
      shown(humanBytes(row.size)),
      shown(humanBytes(row.inUse)),
      shown(row.isLeader),
      shown(row.isLearner),
      shown(row.term),
      shown(row.index),
      shown(row.lag),
      row.tookMs === undefined ? "" : `${row.tookMs.toFixed(1)} ms`,
      row.certificateDays === undefined ? "" : `${row.certificateDays}`,
      row.errors.join(", "),
    ];
  });
  const table = renderTable(
    [
      ...["name", "endpoint", "id", "version", "db size", "in use", "is leader", "is learner"],
      ...["raft term", "raft index", "lag", "took", "cert days", "errors"],
    ],
    cells,
  );
  return (
    table +
    attention(rows, quotaBytes)
      .map((line) => `${line}\n`)
      .join("")
  );
}

function attention(rows: readonly Row[], quotaBytes: number): string[] {
  const found: string[] = [];
  const named = (condition: (row: Row) => boolean) => rows.filter(condition).map(({ name }) => name);
  const say = (names: readonly string[], what: string) => {
    if (names.length > 0) found.push(`${names.join(", ")}: ${what}`);
  };
  const answering = rows.filter(({ tookMs, isLearner }) => tookMs !== undefined && !isLearner).length;
  const ill = named(({ tookMs }) => tookMs === undefined);
  if (answering === 0)
    found.push("no majority: bring its members back; when they are lost for good, kvorum cluster recover");
  else
    say(
      ill,
      "not healthy. Look at its log (journalctl -u on its host); then start it (kvorum cluster apply), give it its data again (kvorum cluster repair NAME), or another host (kvorum cluster replace NAME --address ADDRESS)",
    );
  const hasAlarm = (alarm: string) => named(({ errors }) => errors.some((error) => error.includes(alarm)));
  say(
    hasAlarm("NOSPACE"),
    "its database has reached the quota, and writes are refused. Compact, then kvorum cluster defrag, then etcdctl alarm disarm; or kvorum cluster set quota-backend-bytes=BYTES",
  );
  say(hasAlarm("CORRUPT"), "its data differs from the others': kvorum cluster repair NAME");
  say(
    named((row) => row.size > quotaBytes * QUOTA_PART),
    "its database is near the quota: compact and kvorum cluster defrag, or kvorum cluster set quota-backend-bytes=BYTES",
  );
  say(
    named(({ size, inUse }) => size >= FREE_BYTES_MIN && inUse < size * FREE_PART),
    "most of its database is free space: kvorum cluster defrag",
  );
  say(
    named(({ isLearner }) => isLearner),
    "a learner still: repeat the command that added it",
  );
  say(
    named(({ lag }) => lag > LAG_MAX),
    "far behind the others: it may be catching up; if that does not end, look at its disk and network",
  );
  say(
    named(({ certificateDays: days }) => days !== undefined && days < WARN_DAYS),
    `its certificates end within ${WARN_DAYS} days: kvorum cluster rotate-certs`,
  );
  const versions = new Set(rows.flatMap(({ version }) => (version === "" ? [] : [version])));
  if (versions.size > 1)
    found.push(`members run ${[...versions].join(" and ")}: finish the upgrade or downgrade, by its command again`);
  return found;
}
