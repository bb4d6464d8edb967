/**
 * What the objects of a repository add up to: from where a recording resumes, and which of them bring a cluster back to a
 * revision. Pure.
 */
import { BackupError } from "./error.ts";
import type { Manifest, RecordedHash } from "./format/manifest.ts";

/** Where a recording goes on. */
export interface Resume {
  readonly history: number;
  readonly clusterId: string;
  /** The last revision that is stored without a gap; undefined when a full snapshot must come first. */
  readonly to: number | undefined;
  /** When the newest full snapshot of this history was taken. */
  readonly lastFullMs: number;
  /** Why a new history must begin. */
  readonly reason?: string;
}

/** One uninterrupted run of revisions, ascending by number. */
export interface History {
  readonly number: number;
  readonly objects: readonly Manifest[];
  readonly fulls: readonly Manifest[];
  readonly deltas: readonly Manifest[];
  /** The last revision that it reaches. */
  readonly to: number;
  /** When the last of it was received. */
  readonly endedMs: number;
}

/** What is read, in order, to bring back one revision. */
export interface Target {
  readonly full: Manifest;
  readonly deltas: readonly Manifest[];
  readonly revision: number;
  readonly history: History;
}

export function historiesOf(manifests: readonly Manifest[]): readonly History[] {
  const numbers = [...new Set(manifests.map(({ history }) => history))].sort((a, b) => a - b);
  return numbers.map((number) => {
    const objects = manifests.filter(({ history, kind }) => history === number && kind !== "hole");
    const fulls = objects.filter(({ kind }) => kind === "full");
    const deltas = objects.filter(({ kind }) => kind === "delta");
    const endedMs = Math.max(0, ...objects.map((object) => object.endedMs));
    return { number, objects, fulls, deltas, to: reached(fulls, deltas), endedMs };
  });
}

/** As far as the deltas go without a gap, or else the newest full snapshot. */
function reached(fulls: readonly Manifest[], deltas: readonly Manifest[]): number {
  return Math.max(0, ...fulls.map(({ to }) => to), ...deltas.map(({ to }) => to));
}

/** Where to go on after these objects, of which the last is the end of the repository. */
export function resumeAfter(manifests: readonly Manifest[], trouble: string | undefined): Resume {
  const last = manifests.at(-1);
  const none = { history: last?.history ?? 0, clusterId: last?.clusterId ?? "", to: undefined };
  const lastFullMs = Number.NEGATIVE_INFINITY;
  if (last === undefined) return { ...none, lastFullMs };
  const reason = trouble ?? (last.kind === "hole" ? last.reason : undefined);
  const history = historiesOf(manifests).at(-1);
  const [first] = history?.fulls ?? [];
  if (reason !== undefined || history === undefined || first === undefined) {
    return { ...none, lastFullMs, ...(reason === undefined ? {} : { reason }) };
  }
  // A full snapshot may be newer than the last delta: the changes up to it are still to be stored.
  const to = Math.max(...history.deltas.map((delta) => delta.to), history.deltas.length === 0 ? first.to : 0);
  return { ...none, to, lastFullMs: Math.max(...history.fulls.map(({ startedMs }) => startedMs)) };
}

/** What brings back `revision`; the newest that is stored when undefined. Throws BackupError. */
export function targetFor(
  histories: readonly History[],
  revision: number | undefined,
  fullNumber?: number | undefined,
): Target {
  const newestFirst = histories.toReversed().filter(({ fulls }) => fulls.length > 0);
  const problems: string[] = [];
  for (const history of newestFirst) {
    const wanted = revision ?? history.to;
    for (const full of fullsFor(history, wanted)) {
      if (fullNumber !== undefined && full.number !== fullNumber) continue;
      const deltas = deltasFrom(history, full, wanted);
      if (deltas !== undefined) return { full, deltas, revision: wanted, history };
      problems.push(`full snapshot ${full.number} is of revision ${full.to}, and a delta after it is missing`);
    }
    if (revision === undefined && problems.length > 0) break;
  }
  const ranges = newestFirst.map(
    ({ fulls, to }) => `${Math.min(...fulls.map(({ from }) => Math.max(1, from)))} to ${to}`,
  );
  const what = revision === undefined ? "no state can be brought back" : `revision ${revision} cannot be brought back`;
  const stored = ranges.length === 0 ? "no full snapshot is stored" : `stored are revisions ${ranges.join(", ")}`;
  throw new BackupError("ERR_BACKUP_NOT_COVERED", [`${what}: ${stored}`, ...problems].join("; "));
}

/** Best first: the newest before it, then one that contains it among its past. */
function fullsFor({ fulls }: History, revision: number): readonly Manifest[] {
  const before = fulls.filter(({ to }) => to <= revision).toReversed();
  const after = fulls.filter(({ from, to }) => from <= revision && revision < to);
  return [...before, ...after];
}

/** The deltas that lead from a full snapshot to a revision; undefined when one is missing. */
function deltasFrom({ deltas }: History, full: Manifest, revision: number): readonly Manifest[] | undefined {
  const needed = deltas.filter(({ from, to }) => to > full.to && from < revision);
  let reached = full.to;
  for (const { from, to } of needed) {
    if (from > reached) return undefined;
    reached = to;
  }
  return reached >= revision ? needed : undefined;
}

/** The newest hash of the cluster that a target can be compared with, of at most its revision. */
export function hashesFor({ full, deltas, revision }: Target): readonly RecordedHash[] {
  return [full, ...deltas].flatMap(({ hash }) => (hash !== undefined && hash.revision <= revision ? [hash] : []));
}

/** Which objects are the state of a time, in milliseconds since 1970; the last delta's marks say the revision. */
export function targetBefore(
  histories: readonly History[],
  wallMs: number,
): { readonly history: History; readonly delta: Manifest | undefined; readonly full: Manifest } {
  for (const history of histories.toReversed()) {
    const [full] = history.fulls;
    if (full === undefined || full.endedMs > wallMs) continue;
    const delta = history.deltas.findLast(({ startedMs }) => startedMs <= wallMs);
    return { history, delta, full };
  }
  const first = histories.find(({ fulls }) => fulls.length > 0)?.fulls[0];
  const since = first === undefined ? "no full snapshot is stored" : `the first is of ${instant(first.endedMs)}`;
  throw new BackupError("ERR_BACKUP_NOT_COVERED", `nothing is stored of ${instant(wallMs)}: ${since}`);
}

export const instant = (wallMs: number): string => new Date(wallMs).toISOString();
