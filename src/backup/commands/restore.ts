/** `kvorum restore`: a data directory, a snapshot file, or one prefix of a running cluster, as of a revision or a time. */
import { dirname } from "node:path";
import { lockFile } from "../../base/file-locks.ts";
import { createLogger } from "../../base/log-logger.ts";
import { humanBytes } from "../../base/table.ts";
import { BoltReader } from "../../bolt/reader.ts";
import { verifySnapshotFile } from "../../bolt/snapshot-file.ts";
import { readLine } from "../../ctl/io.ts";
import { NEW_CLUSTER_FLAGS, readCluster } from "../../utl/commands/snapshot.ts";
import { databaseOf } from "../../utl/database.ts";
import { restoreSnapshot } from "../../utl/restore.ts";
import { choose, WHEN_FLAGS, wantedBy } from "../choose.ts";
import { rangeOfFile } from "../database.ts";
import { instant } from "../histories.ts";
import { applyPrefix, planPrefix } from "../prefix.ts";
import { cutSnapshot, rebuild } from "../rebuild.ts";
import { type Scratch, scratchIn } from "../scratch.ts";
import {
  absolute,
  CLUSTER_FLAGS,
  clientOf,
  identitiesFrom,
  progressOf,
  READ_KEY_FLAGS,
  SCRATCH_FLAGS,
  STORE_FLAGS,
  scratchDirOf,
  storeOf,
  usage,
} from "../settings.ts";
import { type BackupCommand, type BackupContext, noArguments } from "./context.ts";

/** What etcd's documentation recommends: more than a cluster changes in the time of a backup. */
const BUMP = 1_000_000_000;

export const restore: BackupCommand = {
  name: "restore",
  short: "Brings back a cluster, or one prefix of it, as it was at a revision or a time",
  long: `Brings back the state of a revision or a time, from a store of \`kvorum backup\` or from a snapshot file. It says first what it
will do, what is lost, and what clients will see. Without --yes it asks; with --dry-run it stops there.

With --data-dir it makes the directory of a member of a new cluster: run it for every member, each with its --name, and start
them. What is in the way is renamed, never removed. With --output it writes a snapshot file instead, and with --prefix it
puts the keys of one prefix back into the running cluster at --endpoints.`,
  example: `kvorum restore --store /backup/etcd --time 2026-12-01T12:00:00Z --data-dir /var/lib/etcd
kvorum restore --store /backup/etcd --revision 8041 --data-dir /var/lib/etcd --name m1 \\
  --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380 --initial-advertise-peer-urls http://10.0.0.1:2380
kvorum restore --snapshot backup.db --prefix /registry/secrets/ --endpoints 10.0.0.1:2379`,
  flags: [
    ...STORE_FLAGS,
    { name: "snapshot", kind: "string", value: "", usage: "a snapshot file of etcdctl, instead of a store" },
    ...WHEN_FLAGS,
    { name: "data-dir", kind: "string", value: "", usage: "make this data directory" },
    { name: "output", kind: "string", value: "", usage: "make this snapshot file" },
    { name: "prefix", kind: "string", value: "", usage: "put the keys that begin so back into a running cluster" },
    { name: "wal-dir", kind: "string", value: "", usage: "make the log there, not below the data directory" },
    {
      name: "bump-revision",
      kind: "uint",
      value: BUMP,
      usage:
        "how far revisions go beyond all that clients may have seen, with all before marked compacted; 0 for not at all",
    },
    ...NEW_CLUSTER_FLAGS,
    ...READ_KEY_FLAGS,
    ...SCRATCH_FLAGS,
    ...CLUSTER_FLAGS,
    { name: "dry-run", kind: "bool", value: false, usage: "say what would be done, and do nothing" },
    { name: "yes", shorthand: "y", kind: "bool", value: false, usage: "do it without asking" },
  ],
  async run(context) {
    noArguments(context);
    const { io, flags } = context;
    const places = ["data-dir", "output", "prefix"].filter((name) => flags.changed(name));
    if (places.length !== 1) throw usage("give one of --data-dir, --output and --prefix: where the state is to go");
    const [place] = places;
    const source = await sourceOf(context);
    io.out(source.text);
    if (place === "prefix") return restorePrefix(context, source);
    if (place === "output") return restoreFile(context, source);
    return restoreDirectory(context, source);
  },
};

/** The state that is brought back, before anything is downloaded. */
interface StateSource {
  readonly revision: number;
  /** The newest revision that clients may have seen, as far as is known. */
  readonly newest: number;
  readonly text: string;
  /** Makes the snapshot file. */
  make(scratch: Scratch, path: string): Promise<{ readonly unknownLeases: number }>;
}

async function sourceOf(context: BackupContext): Promise<StateSource> {
  const { io, flags } = context;
  const { disk } = io;
  const file = flags.string("snapshot");
  if (file !== "") return snapshotSource(context, absolute(file));
  const store = storeOf(flags, io);
  const identities = identitiesFrom(flags, io);
  const { target, atMs, newest, contents } = await choose(store, identities, wantedBy(flags));
  const { full, deltas, revision } = target;
  const lost =
    newest.revision > revision || target.history.endedMs < newest.atMs
      ? `LOST: every change after it, up to revision ${newest.revision} of ${instant(newest.atMs)}, which is stored, and any later one`
      : "lost: every change after it that had not reached the store";
  const bytes = [full, ...deltas].reduce((sum, { data }) => sum + (data?.sizeBytes ?? 0), 0);
  const problems = contents.problems.map((problem) => `PROBLEM of the store: ${problem}\n`).join("");
  return {
    revision,
    newest: newest.revision,
    text: `${problems}from    ${store.url}: full snapshot ${full.number} of revision ${full.to}, ${deltas.length} deltas, ${humanBytes(bytes)}
state   revision ${revision} of ${instant(atMs)}
${lost}
`,
    make: (scratch, path) =>
      rebuild({ disk, store, identities, target, scratch: scratch.path, path, progress: progressOf(io) }),
  };
}

function snapshotSource({ io, flags }: BackupContext, file: string): StateSource {
  const { disk } = io;
  const { revision: wanted, wallMs, full } = wantedBy(flags);
  if (flags.strings("store").length > 0) throw usage("give --store or --snapshot, not both");
  if (wallMs !== undefined || full !== undefined) throw usage("a snapshot file knows no times: give --revision");
  verifySnapshotFile(disk, file);
  const has = rangeOfFile(disk, file);
  const revision = wanted ?? has.revision;
  return {
    revision,
    newest: has.revision,
    text: `from    ${file}, which has revisions ${Math.max(1, has.compactRevision)} to ${has.revision}
state   revision ${revision}
LOST: every change after it
`,
    make: async (_, path) => cutSnapshot({ disk, path, progress: progressOf(io) }, file, revision),
  };
}

async function restoreFile(context: BackupContext, source: StateSource): Promise<void> {
  const { io, flags } = context;
  const path = absolute(flags.string("output"));
  if (io.disk.exists(path)) throw usage(`${path} exists: give another name`);
  io.out(`to      ${path}, a snapshot file as etcdctl writes it\n`);
  if (!(await goesOn(context))) return;
  await withScratch(context, dirname(path), async (scratch) => {
    const made = scratch.path("state.db");
    tellLeases(context, await source.make(scratch, made));
    io.disk.rename(made, path);
    io.disk.syncDir(dirname(path));
  });
  io.out(`done: ${path}\n`);
}

async function restoreDirectory(context: BackupContext, source: StateSource): Promise<void> {
  const { io, flags } = context;
  const { disk, clock } = io;
  const dataDir = absolute(flags.string("data-dir"));
  const walDir = flags.string("wal-dir") === "" ? undefined : absolute(flags.string("wal-dir"));
  const sink = { write: (line: string) => io.err(line), sync() {}, close() {} };
  const logger = createLogger({ level: "warn", format: "console", sinks: [sink], clock, callers: false });
  const utlIo = { ...io, args: [] };
  const { members, local } = await readCluster({ flags, io: utlIo, logger });
  const beyond = flags.number("bump-revision");
  const bumpRevision = beyond === 0 ? 0 : beyond + Math.max(0, source.newest - source.revision);
  const stamp = instant(clock.wallMs()).replace(/[-:]|\.\d+/g, "");
  const aside = [dataDir, ...(walDir === undefined ? [] : [walDir])]
    .filter((dir) => disk.exists(dir) && disk.readDir(dir).length > 0)
    .map((dir) => ({ dir, to: `${dir}.before-${stamp}` }));
  checkUnused(context, dataDir);
  const sight =
    bumpRevision > 0
      ? `the store begins at revision ${source.revision + bumpRevision}, and all before counts as compacted: watches that resume are
        cancelled, so that their owners read everything again`
      : "REVISIONS GO BACK: watches and caches that have seen later ones do not notice, unless all clients are restarted";
  io.out(`to      ${dataDir}: member ${local.name} of ${members.length}, a new cluster
clients ${sight}
leases  have all of their time again
${aside.map(({ dir, to }) => `aside   ${dir} becomes ${to}\n`).join("")}`);
  if (!(await goesOn(context))) return;
  await withScratch(context, dirname(dataDir), async (scratch) => {
    const made = scratch.path("state.db");
    tellLeases(context, await source.make(scratch, made));
    checkUnused(context, dataDir);
    for (const { dir, to } of aside) disk.rename(dir, to);
    const to = { io: utlIo, logger, snapshotPath: made, dataDir, walDir, members, local };
    restoreSnapshot({ ...to, skipHashCheck: false, bumpRevision });
  });
  io.out(`done: start the member on ${dataDir}, with the same name and initial cluster\n`);
}

/** Throws FileLockedError when a member runs on the directory. */
function checkUnused({ io }: BackupContext, dataDir: string): void {
  const database = databaseOf(dataDir);
  if (io.disk.exists(database)) lockFile(database).release();
}

async function restorePrefix(context: BackupContext, source: StateSource): Promise<void> {
  const { io, flags } = context;
  const { disk } = io;
  const client = clientOf(flags, io);
  try {
    await withScratch(context, undefined, async (scratch) => {
      const path = scratch.path("state.db");
      await source.make(scratch, path);
      const reader = new BoltReader({ disk, path });
      try {
        const plan = await planPrefix(client, reader, source.revision, Buffer.from(flags.string("prefix")));
        const { created, changed, deleted, same, leaseGone } = plan;
        io.out(`to      the cluster at ${client.endpoints.join(",")}, keys with the prefix ${flags.string("prefix")}
changes ${created} keys created, ${changed} changed, ${deleted} DELETED, ${same} are the same
leases  ${leaseGone.length} keys are left as they are, for their leases are gone
clients see these as ordinary changes of now, in transactions of up to 100 keys
`);
        if (!(await goesOn(context))) return;
        const writing = progressOf(io)("writing keys", plan.steps.length);
        const conflicts = await applyPrefix(client, reader, plan, (keys) => writing.add(keys));
        writing.end();
        for (const key of conflicts) io.out(`left as it is, for it was changed meanwhile: ${key.toString()}\n`);
        if (conflicts.length > 0) context.exitCode = 1;
        io.out(`done: ${plan.steps.length - conflicts.length} keys\n`);
      } finally {
        reader.close();
      }
    });
  } finally {
    client.close();
  }
}

function tellLeases({ io }: BackupContext, { unknownLeases }: { readonly unknownLeases: number }): void {
  if (unknownLeases > 0) io.out(`leases  ${unknownLeases} of unknown time to live have 60 s\n`);
}

async function withScratch(
  { io, flags }: BackupContext,
  usual: string | undefined,
  work: (scratch: Scratch) => Promise<void>,
): Promise<void> {
  const parent = flags.changed("scratch-dir") || usual === undefined ? scratchDirOf(flags) : usual;
  const scratch = await scratchIn(parent, io.random);
  try {
    await work(scratch);
  } finally {
    await scratch.remove();
  }
}

/** Whether the plan is to be carried out. Throws BackupError when there is nobody to ask. */
async function goesOn({ io, flags }: BackupContext): Promise<boolean> {
  if (flags.bool("dry-run")) {
    io.out("nothing was done: --dry-run\n");
    return false;
  }
  if (flags.bool("yes")) return true;
  if (!io.stdinIsTerminal) throw usage("nothing was done: there is no terminal to ask at; give --yes");
  io.err("Go on? Type yes: ");
  const answer = (await readLine(io.stdin)).toString().trim();
  if (answer === "yes") return true;
  io.out("nothing was done\n");
  return false;
}
