/** `kvorum backup run` and `once`: from a cluster into stores. */
import type { Flag } from "../../base/flags.ts";
import type { Client } from "../../client/client.ts";
import type { Recipient } from "../age/keys.ts";
import { resumeAfter } from "../histories.ts";
import { BackupMetrics, serveMetrics } from "../metrics.ts";
import { Recorder } from "../recorder.ts";
import { RepositoryEnd, readRepository } from "../repository.ts";
import { prune, pruningOf, type Retention } from "../retention.ts";
import {
  absolute,
  CLUSTER_FLAGS,
  clientOf,
  progressOf,
  recipientsFrom,
  SCRATCH_FLAGS,
  STORE_FLAGS,
  scratchDirOf,
  storesOf,
  usage,
  WRITE_KEY_FLAGS,
} from "../settings.ts";
import { Source } from "../source.ts";
import type { Store } from "../store/store.ts";
import { lastVerification } from "../verify.ts";
import { type BackupCommand, type BackupContext, noArguments } from "./context.ts";

const DAY_MS = 86_400_000;
const MEBIBYTE = 1024 * 1024;

const RETENTION_FLAGS: readonly Flag[] = [
  {
    name: "keep-full",
    kind: "uint",
    value: 0,
    usage: "remove what is older than this many full snapshots; 0 keeps all",
  },
  {
    name: "keep-days",
    kind: "uint",
    value: 0,
    usage: "with or without it, keep what the states of this many days need",
  },
  {
    name: "lock-days",
    kind: "uint",
    value: 0,
    usage: "ask the store to refuse deletion and replacement for this long (S3 object lock)",
  },
];

const COMMON: readonly Flag[] = [
  ...STORE_FLAGS,
  ...WRITE_KEY_FLAGS,
  ...RETENTION_FLAGS,
  ...SCRATCH_FLAGS,
  ...CLUSTER_FLAGS,
];

export const run: BackupCommand = {
  name: "run",
  short: "Records a cluster until it is stopped: full snapshots, and all changes between them",
  long: `Records a cluster until it is stopped. After an interruption it goes on where it was; when the cluster has compacted
what is missing, it says so, notes the hole, and begins again with a full snapshot. Several stores are written independently.`,
  example: `kvorum backup run --store /backup/etcd --endpoints 10.0.0.1:2379,10.0.0.2:2379
kvorum backup run --store s3://backups/etcd?endpoint=https://s3.example.com --recipient age1… --keep-full 7 --keep-days 14`,
  flags: [
    ...COMMON,
    { name: "full-every", kind: "duration", value: DAY_MS, usage: "time between full snapshots" },
    {
      name: "delta-every",
      kind: "duration",
      value: 10_000,
      usage: "time after which changes are stored at the latest",
    },
    {
      name: "hash-every",
      kind: "duration",
      value: 3_600_000,
      usage: "time between hashes that a restore is compared with",
    },
    { name: "verify-every", kind: "duration", value: 0, usage: "time between verifications by restoring; 0 for none" },
    { name: "identity", kind: "string", value: "", usage: "file with the secret keys, for --verify-every" },
    { name: "listen-metrics", kind: "string", value: "", usage: "serve Prometheus metrics at this host:port" },
    {
      name: "metrics-file",
      kind: "string",
      value: "",
      usage: "write the same into this file, for a textfile collector",
    },
  ],
  async run(context) {
    noArguments(context);
    const { io, flags } = context;
    const stores = storesOf(flags, io);
    const recipients = recipientsFrom(flags, io);
    const metrics = new BackupMetrics(io.clock);
    const stop = new AbortController();
    void io.interrupted().then(() => stop.abort(new Error("stopped")));
    const server = await serveMetrics(metrics, flags.string("listen-metrics"));
    if (server !== undefined) io.err(`metrics at http://${server.address}/metrics\n`);
    const file = flags.string("metrics-file");
    const writing = file === "" ? undefined : metrics.writeEvery(absolute(file), io.disk, io.clock);
    try {
      await Promise.all(
        stores.map(async (store) => {
          try {
            await record({ context, store, recipients, metrics, signal: stop.signal });
          } catch (error) {
            // One that cannot go on ends all, so that the supervisor of the process sees it.
            stop.abort(error);
            throw error;
          }
        }),
      );
    } finally {
      writing?.cancel();
      server?.close();
    }
  },
};

export const once: BackupCommand = {
  name: "once",
  short: "Takes one full snapshot into each store",
  example: "kvorum backup once --store /backup/etcd --endpoints 10.0.0.1:2379",
  flags: COMMON,
  async run(context) {
    noArguments(context);
    const { io, flags } = context;
    const recipients = recipientsFrom(flags, io);
    for (const store of storesOf(flags, io)) {
      const client = clientOf(flags, io);
      try {
        const signal = new AbortController().signal;
        const { recorder, end } = await recorderFor({ context, store, recipients, client, signal });
        await recorder.once();
        await retain(context, store, end);
      } finally {
        client.close();
      }
    }
  },
};

interface Recording {
  readonly context: BackupContext;
  readonly store: Store;
  readonly recipients: readonly Recipient[];
  readonly signal: AbortSignal;
  readonly metrics?: BackupMetrics;
}

async function record(recording: Recording & { readonly metrics: BackupMetrics }): Promise<void> {
  const { context, store, metrics, signal } = recording;
  const { io, flags } = context;
  const client = clientOf(flags, io);
  const verifications = verifyEvery(recording);
  try {
    const verified = await lastVerification(store);
    if (verified !== undefined) metrics.verified(store.url, verified);
    const { recorder } = await recorderFor({ ...recording, client });
    await recorder.run();
  } finally {
    verifications?.cancel();
    client.close();
    if (signal.aborted) io.err(`${store.url}: stopped\n`);
  }
}

async function recorderFor({ context, store, recipients, client, signal, metrics }: Recording & { client: Client }) {
  const { io, flags } = context;
  const { clock, random, disk } = io;
  const say = (text: string): void => io.err(`${new Date(clock.wallMs()).toISOString()} ${store.url}: ${text}\n`);
  const lockDays = flags.number("lock-days");
  const keepMs = lockDays > 0 ? lockDays * DAY_MS : undefined;
  const contents = await readRepository(store);
  for (const problem of contents.problems) say(`PROBLEM: ${problem}`);
  const end = await RepositoryEnd.open({ store, clock, random, recipients, keepMs });
  const manifests = contents.objects.map(({ manifest }) => manifest);
  const isOnce = context.invocation.command.name === "once";
  const recorder = new Recorder({
    source: new Source(client, disk),
    end,
    resume: resumeAfter(manifests, end.trouble),
    clock,
    random,
    scratchDir: scratchDirOf(flags),
    settings: {
      fullEveryMs: isOnce ? Number.POSITIVE_INFINITY : flags.number("full-every"),
      deltaEveryMs: isOnce ? 0 : flags.number("delta-every"),
      hashEveryMs: isOnce ? 0 : flags.number("hash-every"),
      deltaBytesMax: 16 * MEBIBYTE,
    },
    signal,
    progress: progressOf(io),
    say,
    stored: (manifest) => {
      metrics?.stored(store.url, manifest);
      if (manifest.kind === "full" && !isOnce)
        void retain(context, store, end).catch((error: unknown) => say(`retention: ${String(error)}`));
    },
    failed: () => metrics?.failed(store.url),
  });
  return { recorder, end };
}

/** Removes what the flags no longer want. */
async function retain({ io, flags }: BackupContext, store: Store, end: RepositoryEnd): Promise<void> {
  const retention = retentionOf(flags.number("keep-full"), flags.number("keep-days"));
  if (retention === undefined) return;
  const contents = await readRepository(store);
  // What is damaged is looked at by a person before anything goes.
  if (contents.problems.length > 0) {
    io.err(`${store.url}: nothing old is removed while there are problems: ${contents.problems.join("; ")}\n`);
    return;
  }
  const pruning = pruningOf(contents, retention, io.clock.wallMs());
  await prune(store, contents, pruning, (first) => end.keepFrom(first));
  if (pruning.names.length > 0) io.err(`${store.url}: removed ${pruning.names.length} old objects\n`);
}

export function retentionOf(keepFull: number, keepDays: number): Retention | undefined {
  return keepFull === 0 && keepDays === 0 ? undefined : { keepFull: Math.max(1, keepFull), keepDays };
}

/** Verifies in a process of its own: reading a whole database would hold up the recording. */
function verifyEvery({ context, store, metrics }: Recording & { readonly metrics: BackupMetrics }) {
  const { io, flags } = context;
  const everyMs = flags.number("verify-every");
  if (everyMs === 0) return undefined;
  if (everyMs < 60_000) throw usage("--verify-every is at least 1m");
  let isBusy = false;
  return io.clock.every(everyMs, () => {
    if (isBusy) return;
    isBusy = true;
    const passed = ["identity", "passphrase-file", "scratch-dir"].flatMap((name) =>
      flags.string(name) === "" ? [] : [`--${name}`, flags.string(name)],
    );
    const args = ["backup", "verify", "--store", store.url, ...passed];
    void io
      .runProgram(process.execPath, [...process.execArgv, process.argv[1]!, ...args], {})
      .then(async (code) => {
        metrics.verificationEnded(store.url, code === 0);
        const verified = await lastVerification(store);
        if (verified !== undefined) metrics.verified(store.url, verified);
      })
      .catch(() => metrics.failed(store.url))
      .finally(() => {
        isBusy = false;
      });
  });
}
