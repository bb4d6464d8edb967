/** `kvorum backup list`, `status`, `verify`, `prune`: what a store has, and whether it is good. */
import { goDuration } from "../../base/duration.ts";
import { humanBytes, renderTable } from "../../base/table.ts";
import type { Manifest } from "../format/manifest.ts";
import { historiesOf, instant } from "../histories.ts";
import { type Contents, RepositoryEnd, readRepository } from "../repository.ts";
import { pruningOf, prune as removeOld } from "../retention.ts";
import {
  identitiesFrom,
  progressOf,
  READ_KEY_FLAGS,
  SCRATCH_FLAGS,
  STORE_FLAGS,
  scratchDirOf,
  storeOf,
  usage,
} from "../settings.ts";
import { lastVerification, verify as verifyStore } from "../verify.ts";
import { type BackupCommand, FORMAT_FLAG, noArguments, wantsJson } from "./context.ts";
import { retentionOf } from "./record.ts";

/** Lines of a listing in which deltas that follow each other are one line. */
interface Line {
  readonly first: Manifest;
  readonly last: Manifest;
  readonly sizeBytes: number;
}

export const list: BackupCommand = {
  name: "list",
  short: "Lists what a store has: full snapshots, changes, holes",
  flags: [
    ...STORE_FLAGS,
    FORMAT_FLAG,
    { name: "all", kind: "bool", value: false, usage: "each delta in a line of its own" },
  ],
  async run(context) {
    noArguments(context);
    const { io, flags } = context;
    const isJson = wantsJson(flags);
    const contents = await readRepository(storeOf(flags, io));
    const manifests = contents.objects.map(({ manifest }) => manifest);
    if (isJson) {
      const { problems, strays } = contents;
      io.out(`${JSON.stringify({ objects: manifests, problems, strays: strays.map(({ name }) => name) })}\n`);
    } else {
      const rows = linesOf(manifests, flags.bool("all")).map(rowOf);
      io.out(renderTable(["object", "kind", "history", "revisions", "from", "to", "size"], rows));
      tellProblems(contents, (text) => io.out(text));
    }
    if (contents.problems.length > 0) context.exitCode = 1;
  },
};

function linesOf(manifests: readonly Manifest[], all: boolean): Line[] {
  const lines: Line[] = [];
  for (const manifest of manifests) {
    const before = lines.at(-1);
    const sizeBytes = manifest.data?.sizeBytes ?? 0;
    const joins = !all && manifest.kind === "delta" && before?.last.kind === "delta";
    if (joins && before.last.number === manifest.number - 1 && before.last.history === manifest.history) {
      lines[lines.length - 1] = { first: before.first, last: manifest, sizeBytes: before.sizeBytes + sizeBytes };
    } else lines.push({ first: manifest, last: manifest, sizeBytes });
  }
  return lines;
}

function rowOf({ first, last, sizeBytes }: Line): string[] {
  const revisions = first.kind === "full" ? `${first.to}` : `${first.from + 1}-${last.to}`;
  const numbers = first === last ? `${first.number}` : `${first.number}-${last.number}`;
  const times = [instant(first.startedMs), instant(last.endedMs)];
  return [numbers, first.kind, `${first.history}`, revisions, ...times, humanBytes(sizeBytes)];
}

export const status: BackupCommand = {
  name: "status",
  short: "Says in a few lines how old, how large and how good a backup is",
  flags: [...STORE_FLAGS, FORMAT_FLAG],
  async run(context) {
    noArguments(context);
    const { io, flags } = context;
    const isJson = wantsJson(flags);
    const store = storeOf(flags, io);
    const contents = await readRepository(store);
    const verified = await lastVerification(store);
    const manifests = contents.objects.map(({ manifest }) => manifest);
    const newest = historiesOf(manifests).at(-1);
    const full = manifests.findLast(({ kind }) => kind === "full");
    const nowMs = io.clock.wallMs();
    const seenMs = Math.max(contents.head?.seenMs ?? 0, newest?.endedMs ?? 0);
    const { problems } = contents;
    const state = {
      store: store.url,
      revision: newest?.to ?? 0,
      time: seenMs === 0 ? null : instant(seenMs),
      ageSeconds: seenMs === 0 ? null : Math.max(0, Math.round((nowMs - seenMs) / 1000)),
      fullSnapshots: manifests.filter(({ kind }) => kind === "full").length,
      newestFull: full === undefined ? null : { object: full.number, revision: full.to, time: instant(full.startedMs) },
      holes: manifests.filter(({ kind }) => kind === "hole").length,
      objects: manifests.length,
      sizeBytes: manifests.reduce((sum, { data }) => sum + (data?.sizeBytes ?? 0), 0),
      verified: verified === undefined ? null : { time: instant(verified.atMs), revision: verified.revision },
      problems,
    };
    if (isJson) io.out(`${JSON.stringify(state)}\n`);
    else {
      const ago = (text: string | undefined | null): string =>
        text
          ? `${text}, ${goDuration(Math.max(0, Math.round((nowMs - Date.parse(text)) / 1000) * 1000))} ago`
          : "never";
      io.out(`store      ${state.store}
newest     ${state.revision === 0 ? "nothing" : `revision ${state.revision}, ${ago(state.time)}`}
full       ${full === undefined ? "none" : `${state.fullSnapshots}, the newest of revision ${full.to}, ${ago(state.newestFull?.time)}`}
size       ${humanBytes(state.sizeBytes)} in ${state.objects} objects
holes      ${state.holes}
verified   ${verified === undefined ? "never" : `up to revision ${verified.revision}, ${ago(state.verified?.time)}`}
`);
      tellProblems(contents, (text) => io.out(text));
    }
    if (problems.length > 0) context.exitCode = 1;
  },
};

function tellProblems({ problems, strays }: Contents, out: (text: string) => void): void {
  for (const problem of problems) out(`PROBLEM: ${problem}\n`);
  for (const { name } of strays) out(`note: no manifest names ${name}: a write was interrupted, or it is foreign\n`);
}

export const verify: BackupCommand = {
  name: "verify",
  short: "Checks a backup: every digest, and by restoring it and comparing hashes with the cluster's",
  flags: [
    ...STORE_FLAGS,
    ...READ_KEY_FLAGS,
    ...SCRATCH_FLAGS,
    FORMAT_FLAG,
    { name: "quick", kind: "bool", value: false, usage: "manifests and lengths only" },
    { name: "all", kind: "bool", value: false, usage: "restore every full snapshot, not only the newest" },
  ],
  async run(context) {
    noArguments(context);
    const { io, flags } = context;
    const { disk, clock, random } = io;
    const isJson = wantsJson(flags);
    const report = await verifyStore({
      ...{ disk, clock, random, store: storeOf(flags, io), identities: identitiesFrom(flags, io) },
      scratchDir: scratchDirOf(flags),
      isQuick: flags.bool("quick"),
      all: flags.bool("all"),
      progress: progressOf(io),
    });
    if (isJson) io.out(`${JSON.stringify(report)}\n`);
    else {
      for (const problem of report.problems) io.out(`PROBLEM: ${problem}\n`);
      for (const stray of report.strays) io.out(`note: no manifest names ${stray}\n`);
      for (const { full, revision, compared } of report.restored) {
        const hashes =
          compared.length === 0 ? "no hash to compare" : `HashKV agrees at revision ${compared.join(", ")}`;
        io.out(`full snapshot ${full} restored with its deltas up to revision ${revision}: ${hashes}\n`);
      }
      io.out(`${report.objects} objects, ${report.problems.length} problems\n`);
    }
    if (report.problems.length > 0) context.exitCode = 1;
  },
};

/** A head that is newer was written by a backup that runs. */
const RUNNING_MS = 180_000;

export const prune: BackupCommand = {
  name: "prune",
  short: "Removes old full snapshots and the changes that only they need",
  flags: [
    ...STORE_FLAGS,
    { name: "keep-full", kind: "uint", value: 0, usage: "full snapshots that are kept at least" },
    { name: "keep-days", kind: "uint", value: 0, usage: "days back to which a state can be restored" },
    { name: "dry-run", kind: "bool", value: false, usage: "only say what would go" },
  ],
  async run(context) {
    noArguments(context);
    const { io, flags } = context;
    const { clock, random } = io;
    const store = storeOf(flags, io);
    const retention = retentionOf(flags.number("keep-full"), flags.number("keep-days"));
    if (retention === undefined) throw usage("give --keep-full, --keep-days, or both");
    const contents = await readRepository(store);
    if (contents.problems.length > 0) {
      throw usage(`nothing is removed while there are problems: ${contents.problems.join("; ")}`);
    }
    const pruning = pruningOf(contents, retention, clock.wallMs());
    if (flags.bool("dry-run")) {
      io.out(pruning.names.map((name) => `${name}\n`).join(""));
      return;
    }
    if (clock.wallMs() - (contents.head?.seenMs ?? 0) < RUNNING_MS && pruning.names.length > 0) {
      throw usage("a backup wrote there a moment ago: give --keep-full and --keep-days to `kvorum backup run` instead");
    }
    const end = await RepositoryEnd.open({ store, clock, random, recipients: [] });
    await removeOld(store, contents, pruning, (first) => end.keepFrom(first));
    io.out(`removed ${pruning.names.length} objects, ${humanBytes(pruning.bytes)}\n`);
  },
};
