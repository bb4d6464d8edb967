/**
 * Analyses the space of a database: by bucket, by key prefix, by Kubernetes resource and namespace, by history and free
 * pages. Reads every entry once. Memory: about 150 bytes per key.
 */
import type { BoltReader } from "../bolt/reader.ts";
import { headerKey, kvHeader, readKvHeader } from "../mvcc/model/kv-header.ts";
import { isTombstone, mainOf } from "../mvcc/model/revision.ts";

/** Rows are entries of the file: each revision of a key is one. Bytes are those of their keys and values. */
export interface Usage {
  rows: number;
  bytes: number;
}

export interface Named extends Usage {
  readonly name: string;
}

export interface PrefixUsage extends Named {
  /** Existing keys. */
  keys: number;
  /** Bytes of the latest revision of each; the rest is history. */
  liveBytes: number;
}

export interface Analysis {
  readonly sizeBytes: number;
  /** Bytes of free pages, which writes use before the file grows; undefined when the file has no free list. */
  readonly freeBytes: number | undefined;
  readonly revision: number;
  readonly keys: number;
  /** Revisions of deleted keys, and superseded revisions: what a compaction can remove. */
  readonly history: Usage;
  readonly buckets: readonly Named[];
  readonly prefixes: readonly PrefixUsage[];
  /** Empty when there are no keys under /registry/. */
  readonly resources: readonly PrefixUsage[];
  readonly namespaces: readonly PrefixUsage[];
  /** Keys with the most revisions. */
  readonly busiest: readonly Named[];
  readonly largest: readonly Named[];
}

const KEYS_SHOWN = 10;
const REGISTRY = "/registry/";

interface KeyUsage extends Usage {
  liveBytes: number;
}

/** @param depth number of key parts, between slashes, in a prefix. Throws BoltError. */
export function analyzeDatabase(reader: BoltReader, depth: number): Analysis {
  const buckets: Named[] = [];
  const keys = new Map<string, KeyUsage>();
  let revision = 0;
  for (const { name, bucket } of reader.root.buckets()) {
    const usage = { name: Buffer.from(name).toString(), rows: 0, bytes: 0 };
    for (const { key, value } of bucket.entries()) {
      usage.rows++;
      usage.bytes += key.length + value.length;
      if (usage.name !== "key") continue;
      revision = mainOf(key);
      addRevision(keys, key, value);
    }
    buckets.push(usage);
  }
  const freelist = reader.freelist();
  const { pageSize } = reader.meta;
  const all = [...keys].map(([name, usage]) => ({ name: fromLatin1(name), usage }));
  const live = all.filter(({ usage }) => usage.liveBytes > 0);
  const key = buckets.find(({ name }) => name === "key") ?? { rows: 0, bytes: 0 };
  const registry = all.filter(({ name }) => name.startsWith(REGISTRY));
  return {
    sizeBytes: reader.sizeBytes,
    freeBytes: freelist === undefined ? undefined : freelist.ids.length * pageSize,
    revision,
    keys: live.length,
    history: { rows: key.rows - live.length, bytes: key.bytes - sum(live.map(({ usage }) => usage.liveBytes)) },
    buckets: byBytes(buckets),
    prefixes: grouped(all, (name) => prefixOf(name, depth)),
    resources: grouped(registry, resourceOf),
    namespaces: grouped(registry, namespaceOf),
    busiest: top(all, (usage) => usage.rows).filter(({ rows }) => rows > 1),
    largest: top(all, (usage) => usage.bytes),
  };
}

const header = kvHeader();

function addRevision(keys: Map<string, KeyUsage>, key: Uint8Array, value: Uint8Array): void {
  readKvHeader(value, 0, value.length, header);
  const name = headerKey(value, header);
  let usage = keys.get(name);
  if (usage === undefined) keys.set(name, (usage = { rows: 0, bytes: 0, liveBytes: 0 }));
  const bytes = key.length + value.length;
  usage.rows++;
  usage.bytes += bytes;
  usage.liveBytes = isTombstone(key) ? 0 : bytes;
}

/** The first parts of a key with their slashes: "/registry/pods/" of "/registry/pods/default/web" for 2. */
function prefixOf(key: string, depth: number): string {
  let end = key.startsWith("/") ? 1 : 0;
  for (let part = 0; part < depth; part++) {
    const slash = key.indexOf("/", end);
    if (slash < 0) return part === 0 ? "(keys without a prefix)" : key.slice(0, end);
    end = slash + 1;
  }
  return key.slice(0, end);
}

/** "pods" of /registry/pods/…, "apps.example.com/widgets" of /registry/apps.example.com/widgets/…. */
function resourceOf(key: string): string {
  const [group = "", resource = ""] = key.slice(REGISTRY.length).split("/");
  return group.includes(".") ? `${group}/${resource}` : group;
}

/** The part before the name; cluster-scoped resources have none. */
function namespaceOf(key: string): string {
  const parts = key.slice(REGISTRY.length).split("/");
  const afterResource = parts.slice(parts[0]?.includes(".") ? 2 : 1);
  return afterResource.length >= 2 ? afterResource[afterResource.length - 2]! : "(none)";
}

function grouped(
  keys: readonly { readonly name: string; readonly usage: KeyUsage }[],
  groupOf: (key: string) => string,
): PrefixUsage[] {
  const groups = new Map<string, PrefixUsage>();
  for (const { name: key, usage } of keys) {
    const name = groupOf(key);
    let group = groups.get(name);
    if (group === undefined) groups.set(name, (group = { name, rows: 0, bytes: 0, keys: 0, liveBytes: 0 }));
    group.rows += usage.rows;
    group.bytes += usage.bytes;
    group.liveBytes += usage.liveBytes;
    if (usage.liveBytes > 0) group.keys++;
  }
  return byBytes([...groups.values()]);
}

function top(
  keys: readonly { readonly name: string; readonly usage: KeyUsage }[],
  by: (usage: KeyUsage) => number,
): Named[] {
  return [...keys]
    .sort((a, b) => by(b.usage) - by(a.usage))
    .slice(0, KEYS_SHOWN)
    .map(({ name, usage: { rows, bytes } }) => ({ name, rows, bytes }));
}

const byBytes = <T extends Named>(list: readonly T[]): T[] => [...list].sort((a, b) => b.bytes - a.bytes);
const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);
/** Keys are byte strings internally; most are UTF-8. */
const fromLatin1 = (key: string): string => Buffer.from(key, "latin1").toString();
