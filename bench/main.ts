/**
 * Compares this server with stock etcd: same machine, same load, both with a synced write-ahead log, in alternating
 * rounds with a fresh data directory each, so that a machine that slows down slows both.
 *
 *   npm run bench -- stalls [options]   see bench/stalls/main.ts
 *   npm run bench -- database [options] see bench/database/main.ts
 *   npm run bench -- client [options]   see bench/client/main.ts
 *   npm run bench -- [suite …] [--seconds N] [--rounds N] [--stock PATH] [--ours PATH] [--dir PATH] [--json PATH]
 *
 * Prints a table of ratios and writes all numbers as JSON. Every load is bounded in time or count.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MaintenanceService } from "../src/proto/etcdserverpb.ts";
import { startCluster } from "../test/harness/cluster.ts";
import { findProgram, ourEtcd, type Program, stockEtcd } from "../test/harness/programs.ts";
import { type Server, startServer } from "../test/harness/server.ts";
import { clients } from "./client/main.ts";
import { database } from "./database/main.ts";
import { machine, Report, type Side } from "./report.ts";
import { stalls } from "./stalls/main.ts";
import type { Settings, Suite } from "./suite.ts";
import { cluster, clusterTls, failover, idle, idleTls } from "./suites/cluster.ts";
import { keys, lease, txn, watch } from "./suites/keys.ts";
import { large, list, put, range } from "./suites/kv.ts";
import { scale } from "./suites/scale.ts";

const suites: readonly Suite[] = [
  put,
  range,
  keys,
  txn,
  list,
  large,
  watch,
  lease,
  scale,
  cluster,
  clusterTls,
  idle,
  idleTls,
  failover,
];

if (process.argv[2] === "stalls") {
  // It has its own options and table.
  await stalls(process.argv.slice(3));
  process.exit();
}
if (process.argv[2] === "database") {
  await database(process.argv.slice(3));
  process.exit();
}
if (process.argv[2] === "client") {
  await clients(process.argv.slice(3));
  process.exit();
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "5" },
    "warm-up": { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    keys: { type: "string", default: "1000000" },
    stock: { type: "string" },
    ours: { type: "string" },
    dir: { type: "string", default: tmpdir() },
    json: { type: "string", default: "bench-results.json" },
    help: { type: "boolean", default: false },
  },
});

function usage(problem: string): never {
  const names = suites.map(({ name, what }) => `  ${name.padEnd(11)} ${what}`).join("\n");
  process.stderr.write(
    `${problem}
usage: npm run bench -- [suite …] [--seconds 5] [--warm-up 2] [--rounds 3] [--keys 1000000]
                        [--stock PATH] [--ours PATH] [--dir PATH] [--json bench-results.json]
suites, all when none is named:
${names}
`,
  );
  process.exit(problem === "" ? 0 : 1);
}

const chosen = positionals.length === 0 ? suites : suites.filter(({ name }) => positionals.includes(name));
for (const name of positionals) if (!suites.some((suite) => suite.name === name)) usage(`no suite is called ${name}`);
if (values.help) usage("");
for (const name of ["seconds", "warm-up", "rounds", "keys"] as const) {
  if (!(Number(values[name]) > 0)) usage(`--${name} needs a number above 0, not ${values[name]}`);
}
if (findProgram("h2load") === undefined) usage("h2load is not on PATH: install nghttp2-client");

const sides: Record<Side, Program> = {
  ours: values.ours === undefined ? ourEtcd() : { file: values.ours, args: [] },
  stock: values.stock === undefined ? stockEtcd() : { file: values.stock, args: [] },
};
const scratchDir = mkdtempSync(join(values.dir, "kvorum-bench-"));
process.on("exit", () => rmSync(scratchDir, { recursive: true, force: true }));
const settings: Settings = {
  seconds: Number(values.seconds),
  warmUpSeconds: Number(values["warm-up"]),
  keys: Number(values.keys),
  scratchDir,
};

const report = new Report();
const versions: Partial<Record<Side, string>> = {};

async function measure(suite: Suite, side: Side): Promise<void> {
  const options = { args: suite.serverArgs, tempDir: scratchDir };
  if ("run" in suite) {
    const server = await startServer(sides[side], { ...options, startTimeoutMs: 60_000 });
    try {
      await version(side, server);
      report.add(suite.name, side, await suite.run(server, settings));
    } finally {
      await server.close();
    }
    return;
  }
  const member = { kind: side, program: sides[side] };
  // h2load has no client certificate; only the members authenticate each other.
  const tls = suite.tls && { clientCertificates: false };
  const cluster = await startCluster({ ...options, members: [member, member, member], tls });
  try {
    await version(side, cluster.all[0]!);
    report.add(suite.name, side, await suite.runCluster(cluster, settings));
  } finally {
    await cluster.close();
  }
}

async function version(side: Side, server: Server): Promise<void> {
  versions[side] ??= (await server.client.unary(MaintenanceService.Status, {})).version;
}

for (const suite of chosen) {
  for (let round = 1; round <= Number(values.rounds); round++) {
    for (const side of ["ours", "stock"] as const) {
      process.stderr.write(`${suite.name}: round ${round} of ${values.rounds}, ${side}\n`);
      await measure(suite, side);
    }
  }
}
report.write(values.json, { at: new Date().toISOString(), machine: machine(), settings: values, versions });
process.stdout.write(`${report.table()}\n`);
process.exit(0);
