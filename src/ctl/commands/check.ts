/** `etcdctl check`: whether a cluster is fast enough, and how much memory the data takes. */
import { quote } from "../../base/quote.ts";
import { KVService, MaintenanceService } from "../../proto/etcdserverpb.ts";
import type { Cluster } from "../connection.ts";
import type { Ctl, CtlCommand } from "../ctl.ts";
import { describeError, EXIT, ExitError } from "../exit.ts";
import { showProgress } from "../progress.ts";
import { rangeOf } from "./get.ts";

interface PerfLoad {
  readonly writesPerSecond: number;
  readonly clients: number;
}

const PERF_LOADS: Readonly<Record<string, PerfLoad>> = {
  s: { writesPerSecond: 150, clients: 50 },
  m: { writesPerSecond: 1000, clients: 200 },
  l: { writesPerSecond: 8000, clients: 500 },
  xl: { writesPerSecond: 15000, clients: 1000 },
};
const DATASCALE_LOADS: Readonly<Record<string, { readonly keys: number; readonly clients: number }>> = {
  s: { keys: 10_000, clients: 50 },
  m: { keys: 100_000, clients: 200 },
  l: { keys: 1_000_000, clients: 500 },
  xl: { keys: 3_000_000, clients: 1000 },
};
const LOAD_NAMES: Readonly<Record<string, string>> = { small: "s", medium: "m", large: "l", xLarge: "xl" };

const PERF_MS = 60_000;
const PACE_MS = 5;
const CLEANUP_MS = 30_000;

const LOAD_FLAG = { name: "load", kind: "string", value: "s", usage: "size of the load: s, m, l or xl" } as const;
const AFTER_FLAGS = [
  { name: "auto-compact", kind: "bool", value: false, usage: "compact when the test is over" },
  { name: "auto-defrag", kind: "bool", value: false, usage: "defragment when the test is over" },
] as const;

const perf: CtlCommand = {
  name: "perf",
  usage: "[options]",
  short: "Writes for a minute and judges throughput and latency",
  flags: [
    LOAD_FLAG,
    { name: "prefix", kind: "string", value: "/etcdctl-check-perf/", usage: "prefix of the keys that it writes" },
    ...AFTER_FLAGS,
  ],
  async run(ctl) {
    const load = loadOf(ctl, PERF_LOADS);
    const prefix = ctl.flags.string("prefix");
    const cluster = await ctl.cluster();
    await requireEmpty(cluster, prefix);
    const { clock } = ctl.io;
    const startMs = clock.nowMs();
    let stopped = false;
    ctl.io.interrupted().then(() => (stopped = true));
    const due = () => {
      const elapsedMs = clock.nowMs() - startMs;
      if (stopped || elapsedMs >= PERF_MS) return undefined;
      return Math.floor((elapsedMs / 1000) * load.writesPerSecond);
    };
    const endProgress = showProgress(ctl.io, () => (clock.nowMs() - startMs) / PERF_MS);
    const result = await writeKeys(ctl, cluster, load.clients, 256, 1024, prefix, due).finally(endProgress);
    const seconds = (clock.nowMs() - startMs) / 1000;
    await cleanUp(ctl, cluster, prefix);
    judge(ctl, load, result, seconds);
  },
};

/** Prints the results and fails below etcd's limits. */
function judge(ctl: Ctl, load: PerfLoad, { latenciesS, errors }: WriteResult, seconds: number): void {
  const { io } = ctl;
  let passed = printErrors(ctl, errors);
  const rate = latenciesS.length / seconds;
  const mean = latenciesS.reduce((sum, value) => sum + value, 0) / Math.max(1, latenciesS.length);
  const variance = latenciesS.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, latenciesS.length);
  const slowest = latenciesS.reduce((most, value) => Math.max(most, value), 0);
  const deviation = Math.sqrt(variance);
  const verdict = (good: boolean, pass: string, fail: string) => {
    io.out(`${good ? pass : fail}\n`);
    passed &&= good;
  };
  const writes = `${Math.floor(rate) + 1} writes/s`;
  verdict(rate / load.writesPerSecond > 0.9, `PASS: Throughput is ${writes}`, `FAIL: Throughput too low: ${writes}`);
  const slow = `${slowest.toFixed(6)}s`;
  verdict(slowest <= 0.5, `PASS: Slowest request took ${slow}`, `Slowest request took too long: ${slow}`);
  const spread = `${deviation.toFixed(6)}s`;
  verdict(deviation <= 0.1, `PASS: Stddev is ${spread}`, `Stddev too high: ${spread}`);
  io.out(passed ? "PASS\n" : "FAIL\n");
  if (!passed) throw new ExitError(EXIT.error, "");
}

const datascale: CtlCommand = {
  name: "datascale",
  usage: "[options]",
  short: "Writes data and tells how much memory the member needs for it",
  long: "Writes data to the first endpoint and tells how much memory that member needs for it, by its own metrics.",
  flags: [
    LOAD_FLAG,
    { name: "prefix", kind: "string", value: "/etcdctl-check-datascale/", usage: "prefix of the keys that it writes" },
    ...AFTER_FLAGS,
  ],
  async run(ctl) {
    const load = loadOf(ctl, DATASCALE_LOADS);
    const prefix = ctl.flags.string("prefix");
    const cluster = await ctl.cluster();
    await requireEmpty(cluster, prefix);
    const before = await memoryOf(ctl, cluster, "before");
    ctl.io.out(
      `Start data scale check for work load [${load.keys} key-value pairs, 1024 bytes per key-value, ` +
        `${load.clients} concurrent clients].\n`,
    );
    let started = false;
    const due = () => {
      if (started) return undefined;
      started = true;
      return load.keys;
    };
    let written = 0;
    const endProgress = showProgress(ctl.io, () => written / load.keys);
    const onWritten = (): void => void written++;
    const work = writeKeys(ctl, cluster, load.clients, 512, 512, prefix, due, onWritten);
    const { errors } = await work.finally(endProgress);
    const after = await memoryOf(ctl, cluster, "after");
    await cleanUp(ctl, cluster, prefix);
    if (!printErrors(ctl, errors)) throw new ExitError(EXIT.error, "");
    const used = ((after - before) / 2 ** 20).toFixed(2);
    ctl.io.out(`PASS: Approximate system memory used : ${used} MB.\n`);
  },
};

export const check: CtlCommand = {
  name: "check",
  short: "Tests the speed and the memory of a cluster",
  commands: [perf, datascale],
};

function loadOf<T>(ctl: Ctl, loads: Readonly<Record<string, T>>): T {
  const given = ctl.flags.string("load");
  const name = Object.hasOwn(LOAD_NAMES, given) ? LOAD_NAMES[given]! : given;
  const load = Object.hasOwn(loads, name) ? loads[name] : undefined;
  if (load === undefined) throw new ExitError(EXIT.badFeature, `unknown load option ${given}`);
  return load;
}

async function requireEmpty(cluster: Cluster, prefix: string): Promise<void> {
  const { kvs } = await cluster.call(KVService.Range, { ...rangeOf(prefix, undefined, true, false), limit: 1 });
  if (kvs.length === 0) return;
  const advice = `Delete with 'etcdctl del --prefix ${prefix}' first`;
  throw new ExitError(EXIT.invalidInput, `prefix ${quote(prefix)} has keys. ${advice}`);
}

interface WriteResult {
  readonly latenciesS: readonly number[];
  /** Number of occurrences of each error. */
  readonly errors: ReadonlyMap<string, number>;
}

/** Writes until `due` returns undefined; until then it returns how many writes may have started. */
async function writeKeys(
  ctl: Ctl,
  cluster: Cluster,
  clients: number,
  keyBytes: number,
  valueBytes: number,
  prefix: string,
  due: () => number | undefined,
  onWritten: () => void = () => {},
): Promise<WriteResult> {
  const { clock, random } = ctl.io;
  const latenciesS: number[] = [];
  const errors = new Map<string, number>();
  const value = Buffer.alloc(valueBytes);
  let allowed = 0;
  let started = 0;
  let over = false;
  const advance = () => {
    const now = due();
    if (now === undefined) over = true;
    else allowed = now;
  };
  const work = async (connection: Cluster) => {
    for (;;) {
      if (started >= allowed && !over) advance();
      if (started < allowed) {
        started++;
        const key = Buffer.alloc(prefix.length + keyBytes);
        key.write(prefix);
        key.writeBigUInt64BE(random.uint64(), prefix.length);
        const startMs = clock.nowMs();
        try {
          await connection.call(KVService.Put, { key, value });
        } catch (error) {
          const text = describeError(error);
          errors.set(text, (errors.get(text) ?? 0) + 1);
        }
        latenciesS.push((clock.nowMs() - startMs) / 1000);
        onWritten();
      } else if (over) return;
      else await new Promise<void>((resolve) => clock.after(PACE_MS, resolve));
    }
  };
  const connections = Array.from({ length: clients }, () => cluster.another());
  await Promise.all(connections.map(work));
  await Promise.all(connections.map((connection) => connection.close()));
  return { latenciesS, errors };
}

function printErrors(ctl: Ctl, errors: ReadonlyMap<string, number>): boolean {
  if (errors.size === 0) return true;
  ctl.io.out("FAIL: too many errors\n");
  for (const [text, count] of errors) ctl.io.out(`FAIL: ERROR(${text}) -> ${count}\n`);
  return false;
}

async function cleanUp(ctl: Ctl, cluster: Cluster, prefix: string): Promise<void> {
  const limits = { timeoutMs: CLEANUP_MS };
  try {
    const range = rangeOf(prefix, undefined, true, false);
    const { header } = await cluster.call(KVService.DeleteRange, range, limits);
    const revision = header?.revision ?? 0;
    if (ctl.flags.bool("auto-compact")) {
      ctl.io.out(`Compacting with revision ${revision}\n`);
      await cluster.call(KVService.Compact, { revision, physical: true }, limits);
      ctl.io.out(`Compacted with revision ${revision}\n`);
    }
  } catch (error) {
    ctl.io.out(`FAIL: Cleanup failed during key deletion: ERROR(${describeError(error)})\n`);
    return;
  }
  if (!ctl.flags.bool("auto-defrag")) return;
  for (const endpoint of cluster.endpoints) {
    ctl.io.out(`Defragmenting ${quote(endpoint)}\n`);
    const member = cluster.only(endpoint);
    await member.call(MaintenanceService.Defragment, {}, limits);
    await member.close();
    ctl.io.out(`Defragmented ${quote(endpoint)}\n`);
  }
}

/** Resident memory of the first endpoint's process in bytes. Throws ExitError. */
async function memoryOf(ctl: Ctl, cluster: Cluster, when: string): Promise<number> {
  const endpoint = cluster.endpoints[0]!;
  const url = /^https?:/.test(endpoint) ? endpoint : `http://${endpoint}`;
  try {
    const text = await ctl.io.fetchText(`${url}/metrics`, cluster.tls);
    const match = /^process_resident_memory_bytes (\S+)$/m.exec(text);
    if (match !== null && Number(match[1]) > 0) return Number(match[1]);
    ctl.io.out("could not find: process_resident_memory_bytes\n");
  } catch (error) {
    ctl.io.out(`fetch error: ${describeError(error)}\n`);
  }
  ctl.io.out(`FAIL: Could not read process_resident_memory_bytes ${when} the put operations.\n`);
  throw new ExitError(EXIT.error, "");
}
