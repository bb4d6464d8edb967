/**
 * Removes old objects: always from the oldest on and only up to a full snapshot, so that what remains needs nothing that is
 * gone. The head names the new first object before anything is removed.
 */
import { nameOfManifest } from "./format/manifest.ts";
import type { Contents } from "./repository.ts";
import type { Store } from "./store/store.ts";

export interface Retention {
  /** Full snapshots that are kept at least. */
  readonly keepFull: number;
  /** Days back to which a state can be brought back. */
  readonly keepDays: number;
}

export interface Pruning {
  /** The new first object. */
  readonly first: number;
  readonly names: readonly string[];
  readonly bytes: number;
}

const DAY_MS = 86_400_000;
/** What no manifest names may belong to a write that is in progress. */
const STRAY_MS = DAY_MS;

/** What can go. Pure. Both limits must allow it. */
export function pruningOf(contents: Contents, { keepFull, keepDays }: Retention, nowMs: number): Pruning {
  const manifests = contents.objects.map(({ manifest }) => manifest);
  const fulls = manifests.filter(({ kind }) => kind === "full");
  const oldest = nowMs - keepDays * DAY_MS;
  // The state of that day needs the newest full snapshot before it.
  const byAge = fulls.findLastIndex(({ endedMs }) => endedMs <= oldest);
  const at = Math.min(byAge, fulls.length - keepFull);
  const first = at > 0 ? fulls[at]!.number : (contents.head?.first ?? manifests[0]?.number ?? 1);
  const gone = manifests.filter(({ number }) => number < first);
  const names = gone.flatMap(({ number, data }) => [
    nameOfManifest(number),
    ...(data === undefined ? [] : [data.name]),
  ]);
  const strays = contents.strays.filter(({ modifiedMs, name }) => modifiedMs < nowMs - STRAY_MS && isOurs(name));
  const bytes = gone.reduce((sum, { data }) => sum + (data?.sizeBytes ?? 0), 0);
  return { first, names: [...names, ...strays.map(({ name }) => name)], bytes };
}

/** Files that somebody else keeps there are left alone. */
const isOurs = (name: string): boolean => /^\d{10}(-[0-9a-f]{8}\.(full\.db|delta)\.gz(\.age)?|\.json)$/.test(name);

/** `putHead` writes the head with another first object, in turn with other writers of this process. */
export async function prune(
  store: Store,
  contents: Contents,
  pruning: Pruning,
  putFirst: (first: number) => Promise<void>,
): Promise<void> {
  if (pruning.names.length === 0) return;
  if (pruning.first !== contents.head?.first) await putFirst(pruning.first);
  for (const name of pruning.names) await store.remove(name);
}
