/** `kvorum backup cat` and `diff`: what a backup has inside, at a revision or between two. */
import type { Flag } from "../../base/flags.ts";
import { BoltReader } from "../../bolt/reader.ts";
import { type Choice, choose, type Wanted, WHEN_FLAGS, wantedBy } from "../choose.ts";
import { rebuild } from "../rebuild.ts";
import { scratchIn } from "../scratch.ts";
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
import { changesBetween, keysAt, pairAt } from "../view.ts";
import { type BackupCommand, type BackupContext, FORMAT_FLAG, noArguments, wantsJson } from "./context.ts";

const PREFIX_FLAG: Flag = { name: "prefix", kind: "string", value: "", usage: "only keys that begin so" };

export const cat: BackupCommand = {
  name: "cat",
  usage: "[KEY]",
  short: "Prints the keys and values of a backup at a revision or time",
  example: `kvorum backup cat --store /backup/etcd --prefix /registry/configmaps/ --keys-only
kvorum backup cat --store /backup/etcd --time 2026-12-01T12:00:00Z /registry/secrets/default/token`,
  flags: [
    ...STORE_FLAGS,
    ...WHEN_FLAGS,
    PREFIX_FLAG,
    ...READ_KEY_FLAGS,
    ...SCRATCH_FLAGS,
    FORMAT_FLAG,
    { name: "keys-only", kind: "bool", value: false, usage: "leave out the values" },
  ],
  async run(context) {
    const { io, flags, args } = context;
    const isJson = wantsJson(flags);
    if (args.length > 1) throw usage("cat takes one key, or --prefix");
    const [key] = args.map(latin1);
    await withDatabase(context, wantedBy(flags), async (reader, { target }) => {
      const rows = keysAt(reader, target.revision, key ?? latin1(flags.string("prefix")));
      for (const [name, row] of rows) {
        if (key !== undefined && name !== key) continue;
        const pair = pairAt(reader, row);
        const bytes = Buffer.from(name, "latin1");
        if (isJson) {
          const { createRevision, modRevision, version } = pair;
          const value = flags.bool("keys-only") ? undefined : Buffer.from(pair.value).toString("base64");
          const lease = pair.lease === 0n ? undefined : pair.lease.toString(16);
          const line = { key: bytes.toString("base64"), createRevision, modRevision, version, value, lease };
          io.out(`${JSON.stringify(line)}\n`);
        } else {
          io.out(bytes);
          io.out("\n");
          if (!flags.bool("keys-only")) {
            io.out(pair.value);
            io.out("\n");
          }
        }
        await io.drained();
      }
      if (key !== undefined && !rows.has(key)) {
        io.err(`there is no such key at revision ${target.revision}\n`);
        context.exitCode = 1;
      }
    });
  },
};

export const diff: BackupCommand = {
  name: "diff",
  short: "Prints which keys differ between two revisions of a backup: + created, ~ changed, - deleted",
  example: "kvorum backup diff --store /backup/etcd --from-revision 1200 --revision 1300 --prefix /registry/",
  flags: [
    ...STORE_FLAGS,
    { name: "from-revision", kind: "uint", value: 0, usage: "the earlier revision" },
    ...WHEN_FLAGS,
    PREFIX_FLAG,
    ...READ_KEY_FLAGS,
    ...SCRATCH_FLAGS,
    FORMAT_FLAG,
  ],
  required: ["from-revision"],
  async run(context) {
    noArguments(context);
    const { io, flags } = context;
    const isJson = wantsJson(flags);
    const from = flags.number("from-revision");
    const later = await choose(storeOf(flags, io), identitiesFrom(flags, io), wantedBy(flags));
    const { revision, history } = later.target;
    if (from > revision) throw usage(`--from-revision ${from} is after revision ${revision}`);
    // Both states must be in one database: begin with a full snapshot that reaches back to the earlier one.
    const full = history.fulls.findLast(({ from: oldest }) => oldest <= from)?.number;
    const wanted: Wanted = { revision, wallMs: undefined, full };
    await withDatabase(context, wanted, async (reader) => {
      for (const { key, change, revision: at, changes } of changesBetween(
        reader,
        from,
        revision,
        latin1(flags.string("prefix")),
      )) {
        const bytes = Buffer.from(key, "latin1");
        if (isJson) io.out(`${JSON.stringify({ key: bytes.toString("base64"), change, revision: at, changes })}\n`);
        else {
          io.out({ created: "+ ", changed: "~ ", deleted: "- " }[change]);
          io.out(bytes);
          io.out(`  (revision ${at}${changes > 1 ? `, ${changes} changes` : ""})\n`);
        }
        await io.drained();
      }
    });
  },
};

/** Keys of a command line, as the bytes they are in the store. */
const latin1 = (text: string): string => Buffer.from(text, "utf8").toString("latin1");

async function withDatabase(
  { io, flags }: BackupContext,
  wanted: Wanted,
  work: (reader: BoltReader, choice: Choice) => Promise<void>,
): Promise<void> {
  const { disk } = io;
  const store = storeOf(flags, io);
  const identities = identitiesFrom(flags, io);
  const choice = await choose(store, identities, wanted);
  const scratch = await scratchIn(scratchDirOf(flags), io.random);
  try {
    const path = scratch.path("state.db");
    const { target } = choice;
    await rebuild({ disk, store, identities, target, scratch: scratch.path, path, progress: progressOf(io) });
    const reader = new BoltReader({ disk, path });
    try {
      await work(reader, choice);
    } finally {
      reader.close();
    }
  } finally {
    await scratch.remove();
  }
}
