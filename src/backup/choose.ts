/** From what a user asks for (a revision, a time, the newest) to a database file with that state. */
import type { Flag, FlagSet } from "../base/flags.ts";
import type { Identity } from "./age/keys.ts";
import { plainForm } from "./coding.ts";
import { deltaRecords } from "./format/delta.ts";
import { type History, historiesOf, type Target, targetBefore, targetFor } from "./histories.ts";
import { type Contents, readRepository } from "./repository.ts";
import { usage } from "./settings.ts";
import type { Store } from "./store/store.ts";

export const WHEN_FLAGS: readonly Flag[] = [
  { name: "revision", kind: "uint", value: 0, usage: "the state of this revision; the newest if neither is given" },
  { name: "time", kind: "string", value: "", usage: "the state of this time, as 2026-12-01T15:04:05Z" },
  { name: "full", kind: "uint", value: 0, usage: "begin with the full snapshot of this number" },
];

export interface Wanted {
  readonly revision: number | undefined;
  readonly wallMs: number | undefined;
  readonly full: number | undefined;
}

/** Throws BackupError. */
export function wantedBy(flags: FlagSet): Wanted {
  const revision = flags.number("revision");
  const time = flags.string("time");
  const full = flags.number("full");
  if (flags.changed("revision") && time !== "") throw usage("give --revision or --time, not both");
  if (flags.changed("revision") && revision === 0) throw usage("revisions begin at 1");
  const wallMs = time === "" ? undefined : Date.parse(time);
  if (wallMs !== undefined && !/^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.test(time)) {
    throw usage(`--time ${time} is no time with its zone: write it as 2026-12-01T15:04:05Z`);
  }
  if (Number.isNaN(wallMs)) throw usage(`--time ${time} is no time: write it as 2026-12-01T15:04:05Z`);
  return { revision: revision === 0 ? undefined : revision, wallMs, full: full === 0 ? undefined : full };
}

export interface Choice {
  readonly contents: Contents;
  readonly histories: readonly History[];
  readonly target: Target;
  /** When the target's last change was received, in milliseconds since 1970. */
  readonly atMs: number;
  /** The newest that is stored, of all histories. */
  readonly newest: { readonly revision: number; readonly atMs: number };
}

/** Throws BackupError. */
export async function choose(store: Store, identities: readonly Identity[], wanted: Wanted): Promise<Choice> {
  const contents = await readRepository(store);
  const histories = historiesOf(contents.objects.map(({ manifest }) => manifest));
  const revision =
    wanted.wallMs === undefined ? wanted.revision : await revisionAt(store, identities, histories, wanted.wallMs);
  const target = targetFor(histories, revision, wanted.full);
  const last = histories.at(-1);
  return {
    contents,
    histories,
    target,
    atMs: await timeOf(store, identities, target),
    newest: { revision: last?.to ?? target.revision, atMs: last?.endedMs ?? 0 },
  };
}

/** The newest revision that had been received at a time. */
async function revisionAt(
  store: Store,
  identities: readonly Identity[],
  histories: readonly History[],
  wallMs: number,
): Promise<number> {
  const { delta, full } = targetBefore(histories, wallMs);
  if (delta?.data === undefined) return full.to;
  let revision = delta.from;
  for await (const record of deltaRecords(delta.data.name, plainForm(store, delta.data, identities))) {
    if (record.kind === "mark" && record.wallMs <= wallMs) revision = Math.max(revision, record.revision);
  }
  return revision;
}

async function timeOf(store: Store, identities: readonly Identity[], target: Target): Promise<number> {
  const delta = target.deltas.at(-1);
  if (delta?.data === undefined) return target.full.endedMs;
  let atMs = delta.startedMs;
  for await (const record of deltaRecords(delta.data.name, plainForm(store, delta.data, identities))) {
    if (record.kind !== "mark") continue;
    atMs = record.wallMs;
    if (record.revision >= target.revision) break;
  }
  return atMs;
}
