/** What each member's own answers say: alarms, space, versions, disk, clock, certificate. Pure. */
import { compareVersions, minorVersion, parseVersion } from "../base/semver.ts";
import { humanBytes } from "../base/table.ts";
import { formatId } from "../membership/member.ts";
import { examineDates } from "./certificate-dates.ts";
import type { Finding } from "./finding.ts";
import { nameOf, type Patient } from "./membership.ts";
import { boundOf, histogramOf } from "./metrics-page.ts";

const QUOTA_DEFAULT_BYTES = 2 * 1024 ** 3;
const QUOTA_SHARE = 0.8;
const FRAGMENTED_SHARE = 0.5;
const FRAGMENTED_BYTES_MIN = 100 * 1024 * 1024;
/** etcd's own advice for the 99th percentile. Source: etcd's FAQ. */
const WAL_SYNC_S = 0.01;
const COMMIT_S = 0.025;
/** Below that many observations a single hiccup is a percentile. */
const OBSERVATIONS_MIN = 100;
const SKEW_MS = 1_000;

export function examineMembers(patients: readonly Patient[], nowMs: number): Finding[] {
  const up = patients.filter(({ answer }) => answer?.status !== undefined);
  return [
    ...examineAlarms(up),
    ...up.flatMap(examineSpace),
    ...examineVersions(up),
    ...up.flatMap(examineDisk),
    ...examineClocks(up, nowMs),
    ...up.flatMap((patient) => examineCertificate(patient, nowMs)),
  ];
}

/** Status names alarms as `memberID:1 alarm:NOSPACE`; asking for the list would need a quorum. */
function examineAlarms(up: readonly Patient[]): Finding[] {
  const raised = new Map<string, { readonly id: bigint; readonly alarm: string }>();
  for (const { answer } of up) {
    for (const error of answer!.status!.errors) {
      const [, id, alarm] = /memberID:(\d+)\s+alarm:(\w+)/.exec(error) ?? [];
      if (id !== undefined) raised.set(`${id} ${alarm}`, { id: BigInt(id), alarm: alarm! });
    }
  }
  return [...raised.values()].map(({ id, alarm }) => {
    const patient = up.find((one) => one.id === id) ?? { id, name: "" };
    return alarm === "CORRUPT" ? corrupt(patient) : noSpace(patient, alarm);
  });
}

const noSpace = (patient: Pick<Patient, "id" | "name">, alarm: string): Finding => ({
  severity: "problem",
  code: alarm === "NOSPACE" ? "alarm-nospace" : "alarm",
  subject: "alarms",
  text: `${alarm} is raised by ${nameOf(patient)}: its database has reached its quota, and the whole cluster refuses writes`,
  next: [
    "rev=$(etcdctl endpoint status -w json | grep -o '\"revision\":[0-9]*' | head -1 | cut -d: -f2); etcdctl compaction $rev",
    "etcdctl defrag, on one endpoint after the other",
    "or a larger --quota-backend-bytes on all members, up to 8 GiB",
    "then etcdctl alarm disarm",
  ],
});

const corrupt = (patient: Pick<Patient, "id" | "name">): Finding => ({
  severity: "problem",
  code: "alarm-corrupt",
  subject: "alarms",
  text: `CORRUPT is raised by ${nameOf(patient)}: its data differs from the others', or cannot be read`,
  lost: "nothing, while the others agree",
  next: [
    "find the one that differs: see hashes, or etcdctl endpoint hashkv --cluster",
    `replace it: etcdctl member remove ${formatId(patient.id)} and etcdctl member add (docs/recovery.md, A quorum survives)`,
    "then etcdctl alarm disarm",
  ],
});

function examineSpace(patient: Patient): Finding[] {
  const { dbSize, dbSizeInUse, dbSizeQuota } = patient.answer!.status!;
  const quota = dbSizeQuota > 0 ? dbSizeQuota : QUOTA_DEFAULT_BYTES;
  const free = dbSize - dbSizeInUse;
  const sizes = `${humanBytes(dbSize)}, of which ${humanBytes(dbSizeInUse)} are in use`;
  const defrag = `etcdctl defrag --endpoints=${patient.answer!.endpoint} gives ${humanBytes(free)} back`;
  if (dbSize >= quota * QUOTA_SHARE) {
    const text = `the database of ${nameOf(patient)} has ${sizes}, and its quota is ${humanBytes(quota)}: at the quota, writes are refused`;
    const next = [
      "etcdctl compaction frees history, or --auto-compaction-retention does it regularly",
      defrag,
      "a larger --quota-backend-bytes, up to 8 GiB",
    ];
    return [{ severity: "warning", code: "quota-near", subject: "space", text, next }];
  }
  if (free < FRAGMENTED_BYTES_MIN || free < dbSize * FRAGMENTED_SHARE) return [];
  const text = `the database of ${nameOf(patient)} has ${sizes}: the rest is used by later writes`;
  return [{ severity: "note", code: "fragmented", subject: "space", text, next: [defrag] }];
}

function examineVersions(up: readonly Patient[]): Finding[] {
  const versions = up.flatMap(({ answer }) => parseVersion(answer!.status!.version) ?? []).map(minorVersion);
  const sorted = [...versions].sort(compareVersions);
  const [lowest, highest] = [sorted[0], sorted.at(-1)];
  if (lowest === undefined || highest === undefined || compareVersions(lowest, highest) === 0) return [];
  const list = up.map((patient) => `${nameOf(patient)} ${patient.answer!.status!.version}`).join(", ");
  const isFar = lowest.major !== highest.major || highest.minor - lowest.minor > 1;
  const target = up.map(({ answer }) => answer!.status!.downgradeInfo).find((info) => info?.enabled)?.targetVersion;
  const text = `members run different minor versions: ${list}${target === undefined ? "" : `; a downgrade to ${target} is going on`}`;
  return [
    {
      severity: isFar ? "warning" : "note",
      code: "versions-differ",
      subject: "versions",
      text,
      next: isFar
        ? ["upgrade one minor version at a time: etcd supports no cluster whose members are further apart"]
        : ["finish the upgrade or downgrade: until then the cluster has the features of the lower version"],
    },
  ];
}

function examineDisk(patient: Patient): Finding[] {
  const page = patient.answer!.metrics;
  if (page === undefined) return [];
  const slow = [
    { what: "syncs of the log", name: "etcd_disk_wal_fsync_duration_seconds", limitS: WAL_SYNC_S },
    { what: "commits of the database", name: "etcd_disk_backend_commit_duration_seconds", limitS: COMMIT_S },
  ].flatMap(({ what, name, limitS }) => {
    const histogram = histogramOf(page, name);
    if (histogram === undefined || histogram.count < OBSERVATIONS_MIN) return [];
    const boundS = boundOf(histogram, 0.99);
    if (boundS <= limitS * 1.6) return [];
    const limit = Number.isFinite(boundS) ? `up to ${boundS * 1000} ms` : "longer than the histogram has buckets for";
    return [`1 % of its ${histogram.count} ${what} took ${limit} (${limitS * 1000} ms are good)`];
  });
  if (slow.length === 0) return [];
  const text = `the disk of ${nameOf(patient)} is slow: ${slow.join("; ")}`;
  const next = [
    "kvorum doctor DATA-DIR on its host measures the disk now",
    "give the log a disk of its own (--wal-dir), an SSD, without other writers",
    "a disk that stays slow needs a longer --heartbeat-interval and --election-timeout, on all members alike",
  ];
  return [{ severity: "warning", code: "disk-slow", subject: "disk", text, next }];
}

/**
 * A member's clock minus this machine's, between two bounds: it wrote its Date header, in whole seconds, after the
 * request was sent and before the answer came.
 */
function clockOffset({ answer }: Patient): { readonly leastMs: number; readonly mostMs: number } | undefined {
  const { dateMs, sentMs, receivedMs } = answer?.http ?? {};
  if (dateMs === undefined) return undefined;
  return { leastMs: dateMs - receivedMs!, mostMs: dateMs + 1_000 - sentMs! };
}

function examineClocks(up: readonly Patient[], nowMs: number): Finding[] {
  const known = up.flatMap((patient) => {
    const offset = clockOffset(patient);
    return offset === undefined ? [] : [{ patient, ...offset }];
  });
  if (known.length === 0) return [];
  const latest = known.reduce((a, b) => (b.leastMs > a.leastMs ? b : a));
  const earliest = known.reduce((a, b) => (b.mostMs < a.mostMs ? b : a));
  const apartMs = latest.leastMs - earliest.mostMs;
  const method = "measured by the header Date of their answers, which has whole seconds";
  const found: Finding[] = [];
  if (apartMs >= SKEW_MS) {
    const text = `the clock of ${nameOf(latest.patient)} is at least ${(apartMs / 1000).toFixed(1)} s ahead of ${nameOf(earliest.patient)}'s (${method})`;
    const next = [
      "synchronise the clocks (chrony, ntp): certificates and signed tokens are judged by them. Leases and raft do not depend on them",
    ];
    found.push({ severity: "warning", code: "clock-skew", subject: "clocks", text, next });
  } else if (earliest.leastMs > SKEW_MS || latest.mostMs < -SKEW_MS) {
    const way = earliest.leastMs > 0 ? "behind" : "ahead of";
    const text = `this machine's clock, ${new Date(nowMs).toISOString()}, is ${way} all members' (${method})`;
    found.push({
      severity: "note",
      code: "own-clock",
      subject: "clocks",
      text,
      next: ["synchronise it: what the doctor says of certificates depends on it"],
    });
  }
  return found;
}

function examineCertificate(patient: Patient, nowMs: number): Finding[] {
  const validity = patient.answer!.http?.certificate;
  if (validity === undefined) return [];
  const what = `the certificate of ${nameOf(patient)} at ${patient.answer!.endpoint}`;
  return examineDates(what, "clients that verify it do not connect", validity, nowMs);
}
