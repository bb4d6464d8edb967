/** `etcdutl analyze`, which stock etcd does not have: the space of a database or snapshot. */
import { humanBytes } from "../../base/table.ts";
import { type Analysis, analyzeDatabase, type Named, type PrefixUsage } from "../analysis.ts";
import { openDatabase } from "../database.ts";
import { badArgs, EXIT, ExitError, type Utl, type UtlCommand } from "../utl.ts";

const LINES_MAX = 20;

export const analyze: UtlCommand = {
  name: "analyze",
  usage: "<filename> [<earlier filename>]",
  short: "Tells where the space of a database or snapshot goes (kvorum)",
  long: `Tells where the space of a database or snapshot goes: by bucket, by prefix of the keys, by resource and namespace of
Kubernetes, how much of it is history that a compaction can remove, and how much is free pages that a defragmentation gives
back. With a second file, an earlier one, tells what has changed since.`,
  example: `etcdutl analyze backup.db
etcdutl analyze /var/lib/etcd/member/snap/db --depth 3
etcdutl analyze today.db yesterday.db -w json`,
  flags: [{ name: "depth", kind: "uint", value: 2, usage: "how many parts of a key, between slashes, make a prefix" }],
  async run(utl) {
    const { args, flags, io } = utl;
    const [path, earlier, ...more] = args;
    if (path === undefined || more.length > 0) throw badArgs("analyze takes one file, or two to compare");
    const format = flags.string("write-out");
    if (format !== "simple" && format !== "json") {
      throw new ExitError(EXIT.badFeature, `analyze prints in the formats simple and json, not ${format}`);
    }
    const now = await analysisOf(utl, path);
    const before = earlier === undefined ? undefined : await analysisOf(utl, earlier);
    if (format === "json") {
      io.out(`${JSON.stringify(before === undefined ? now : { now, before, change: changeOf(now, before) })}\n`);
    } else io.out(before === undefined ? describe(now) : describeChange(now, before));
  },
};

async function analysisOf(utl: Utl, path: string): Promise<Analysis> {
  const reader = await openDatabase(utl, path);
  try {
    return analyzeDatabase(reader, utl.flags.number("depth"));
  } finally {
    reader.close();
  }
}

function describe(analysis: Analysis): string {
  const { sizeBytes, freeBytes, revision, keys, history } = analysis;
  const free = freeBytes === undefined ? "unknown (the file does not list its free pages)" : humanBytes(freeBytes);
  return [
    `Size: ${humanBytes(sizeBytes)}, of which free pages: ${free}`,
    `Revision: ${revision}, keys: ${keys}`,
    `History that a compaction can remove: ${history.rows} revisions, ${humanBytes(history.bytes)}`,
    "",
    section("Buckets", analysis.buckets, ({ rows, bytes }) => [`${rows} rows`, humanBytes(bytes)]),
    section("Prefixes", analysis.prefixes, usageColumns),
    section("Kubernetes resources", analysis.resources, usageColumns),
    section("Kubernetes namespaces", analysis.namespaces, usageColumns),
    section("Keys with the most revisions", analysis.busiest, ({ rows, bytes }) => [
      `${rows} revisions`,
      humanBytes(bytes),
    ]),
    section("Largest keys, with their history", analysis.largest, ({ rows, bytes }) => [
      humanBytes(bytes),
      `${rows} revisions`,
    ]),
  ]
    .join("\n")
    .replace(/\n+$/, "\n");
}

const usageColumns = ({ keys, rows, bytes, liveBytes }: PrefixUsage): string[] => [
  `${keys} keys`,
  `${rows} revisions`,
  humanBytes(bytes),
  `${humanBytes(bytes - liveBytes)} history`,
];

/** A heading and aligned lines; empty without entries. */
function section<T extends Named>(title: string, entries: readonly T[], columns: (entry: T) => string[]): string {
  if (entries.length === 0) return "";
  const rows = entries.slice(0, LINES_MAX).map((entry) => [...columns(entry), entry.name]);
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const lines = rows.map(
    (row) => `  ${row.map((cell, i) => (i === row.length - 1 ? cell : cell.padStart(widths[i]!))).join("  ")}`,
  );
  const rest = entries.length - rows.length;
  return [`${title}:`, ...lines, ...(rest > 0 ? [`  and ${rest} more`] : []), "", ""].join("\n");
}

interface Change extends Named {
  readonly isNew: boolean;
}

interface AnalysisChange {
  readonly revisions: number;
  readonly keys: number;
  readonly sizeBytes: number;
  readonly prefixes: readonly Change[];
  readonly resources: readonly Change[];
}

function changeOf(now: Analysis, before: Analysis): AnalysisChange {
  return {
    revisions: now.revision - before.revision,
    keys: now.keys - before.keys,
    sizeBytes: now.sizeBytes - before.sizeBytes,
    prefixes: changes(now.prefixes, before.prefixes),
    resources: changes(now.resources, before.resources),
  };
}

/** Differences from an earlier file, the largest first. */
function changes(now: readonly Named[], before: readonly Named[]): Change[] {
  const old = new Map(before.map((each) => [each.name, each]));
  const all = [...now, ...before.filter(({ name }) => !now.some((each) => each.name === name))];
  return all
    .map(({ name }) => {
      const [a, b] = [old.get(name), now.find((each) => each.name === name)];
      return {
        name,
        rows: (b?.rows ?? 0) - (a?.rows ?? 0),
        bytes: (b?.bytes ?? 0) - (a?.bytes ?? 0),
        isNew: a === undefined,
      };
    })
    .filter(({ rows, bytes }) => rows !== 0 || bytes !== 0)
    .sort((a, b) => Math.abs(b.bytes) - Math.abs(a.bytes));
}

function describeChange(now: Analysis, before: Analysis): string {
  const change = changeOf(now, before);
  const columns = ({ rows, bytes, isNew }: Change): string[] => [
    `${signed(rows)} revisions`,
    signedBytes(bytes),
    isNew ? "new" : "",
  ];
  return [
    `Size: ${signedBytes(change.sizeBytes)}, revisions made: ${change.revisions}, keys: ${signed(change.keys)}`,
    "",
    section("Prefixes", change.prefixes, columns),
    section("Kubernetes resources", change.resources, columns),
  ]
    .join("\n")
    .replace(/\n+$/, "\n");
}

const signed = (number: number): string => (number > 0 ? `+${number}` : String(number));
const signedBytes = (bytes: number): string => `${bytes < 0 ? "-" : "+"}${humanBytes(Math.abs(bytes))}`;
