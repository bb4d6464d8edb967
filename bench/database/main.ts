/**
 * What a large database costs a member, ours beside stock: its restart, a backup, defragmentation, random reads, and a
 * member that joins by a snapshot.
 *
 *   npm run bench -- database [step …] [--gib 1] [--keys 1000000] [--dir PATH] [--rounds 1] [--sides ours,stock]
 *
 * The steps: fill, restart, backup, reads, defrag, join; all when none is named. `fill` makes the database once, in
 * PATH/base; each other step runs on a copy of it, so that steps can be repeated one by one.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { ourEtcd, type Program, run, stockEtcd } from "../../test/harness/programs.ts";
import { freePorts, ServerProcess, startServer } from "../../test/harness/server.ts";
import { waitFor } from "../../test/harness/wait.ts";
import { generate } from "../generator.ts";

const GIB = 2 ** 30;
const QUOTA = ["--quota-backend-bytes", String(64 * GIB)];
const OPS_PER_TXN = 100;
const SAMPLE_MS = 20;

interface Setup {
  readonly dir: string;
  readonly keys: number;
  readonly valueSize: number;
}

type Figures = Record<string, number>;

export async function database(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      gib: { type: "string", default: "1" },
      keys: { type: "string", default: "1000000" },
      dir: { type: "string", default: "/tmp/kvorum-database" },
      rounds: { type: "string", default: "1" },
      sides: { type: "string", default: "ours,stock" },
    },
  });
  const keys = Number(values.keys);
  // A row has about 130 bytes beside its value: two revisions' worth of keys, KeyValue's fields, the page's share.
  const setup = { dir: values.dir, keys, valueSize: Math.max(16, Math.floor((Number(values.gib) * GIB) / keys) - 130) };
  mkdirSync(setup.dir, { recursive: true });
  if (!existsSync(base(setup)) || positionals.includes("fill")) await fill(setup);
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [name, step] of Object.entries(steps)) {
      if (positionals.length > 0 && !positionals.includes(name)) continue;
      for (const side of values.sides.split(",")) {
        const figures = await step(setup, side === "ours" ? ourEtcd() : stockEtcd());
        const cells = Object.entries(figures).map(([what, value]) => `${what} ${value.toFixed(value < 10 ? 2 : 0)}`);
        process.stdout.write(`${name.padEnd(8)} ${side.padEnd(6)} ${cells.join(", ")}\n`);
      }
    }
  }
}

const base = ({ dir }: Setup): string => join(dir, "base");

async function fill(setup: Setup): Promise<void> {
  rmSync(base(setup), { recursive: true, force: true });
  const server = await startServer(ourEtcd(), { args: [...QUOTA, "--snapshot-count", "1000"], tempDir: setup.dir });
  const port = Number(server.endpoint.split(":")[1]);
  const shape = { port, connections: 4, concurrency: 2, opsPerTxn: OPS_PER_TXN, valueSize: setup.valueSize };
  const result = await generate({ kind: "fill", ...shape, count: setup.keys / OPS_PER_TXN }, 1200);
  // A snapshot of the log behind them: a start reads the database, not the log of the fill.
  await generate({ kind: "put", port, connections: 1, concurrency: 10, count: 3000, keys: 100, valueSize: 16 }, 60);
  await server.kill("SIGTERM");
  cpSync(server.dataDir, base(setup), { recursive: true });
  await server.close();
  const mib = statSync(join(base(setup), "member", "snap", "db")).size / 2 ** 20;
  process.stdout.write(`filled ${setup.keys} keys, ${mib.toFixed(0)} MiB, in ${result.seconds.toFixed(1)} s\n`);
}

/** Runs a step on a member whose directory is a copy of the base, in the page cache. */
async function onCopy(
  setup: Setup,
  program: Program,
  step: (server: ServerProcess, startedMs: number) => Promise<Figures>,
): Promise<Figures> {
  const dataDir = join(setup.dir, "copy");
  rmSync(dataDir, { recursive: true, force: true });
  cpSync(base(setup), dataDir, { recursive: true });
  await run("sync", []);
  const [clientPort, peerPort] = await freePorts(2);
  const options = { dataDir, args: QUOTA, tempDir: setup.dir, startTimeoutMs: 120_000 };
  const server = new ServerProcess(program, options, clientPort!, peerPort!);
  try {
    return await step(server, await server.start());
  } finally {
    await server.close();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

const steps: Record<string, (setup: Setup, program: Program) => Promise<Figures>> = {
  restart: (setup, program) =>
    onCopy(setup, program, async (server, startedMs) => ({ ms: startedMs, ...memory(server.pid) })),

  backup: (setup, program) =>
    onCopy(setup, program, async (server) => {
      const target = join(setup.dir, "backup.db");
      const seconds = await observed(server.pid, async () => {
        await etcdctl(server.endpoint, ["snapshot", "save", target]);
      });
      const bytes = statSync(target).size;
      rmSync(target);
      return { ...seconds, "backup MiB": bytes / 2 ** 20 };
    }),

  reads: (setup, program) =>
    onCopy(setup, program, async (server) => {
      const port = Number(server.endpoint.split(":")[1]);
      const shape = { port, connections: 10, concurrency: 10, seconds: 12, warmUpSeconds: 4, keys: setup.keys };
      const gets = await generate({ kind: "get", ...shape, serializable: true }, 120);
      return { "per second": gets.perSecond, "p50 ms": gets.p50Ms, "p99 ms": gets.p99Ms, ...memory(server.pid) };
    }),

  defrag: (setup, program) =>
    onCopy(setup, program, async (server) => {
      const figures = await observed(server.pid, async () => {
        await etcdctl(server.endpoint, ["defrag", "--command-timeout", "600s"]);
      });
      return figures;
    }),

  join: (setup, program) =>
    onCopy(setup, program, async (leader) => {
      const [clientPort, peerPort] = await freePorts(2);
      const options = { name: "second", args: QUOTA, tempDir: setup.dir, startTimeoutMs: 300_000 };
      const second = new ServerProcess(program, options, clientPort!, peerPort!);
      const members = await etcdctl(leader.endpoint, ["member", "list"]);
      await etcdctl(leader.endpoint, ["member", "update", members.split(",")[0]!, "--peer-urls", leader.peerUrl]);
      await etcdctl(leader.endpoint, ["member", "add", second.name, "--peer-urls", second.peerUrl, "--learner"]);
      second.clusterArgs = [
        "--initial-cluster",
        `default=${leader.peerUrl},second=${second.peerUrl}`,
        "--initial-cluster-state",
        "existing",
      ];
      try {
        const startMs = performance.now();
        const figures = await observed(leader.pid, async () => {
          second.spawn();
          await waitFor("the second member has everything", () => hasAll(leader, second), 300_000);
        });
        return { ...figures, "joined after s": (performance.now() - startMs) / 1000, ...memory(second.pid) };
      } finally {
        await second.close();
      }
    }),
};

async function hasAll(leader: ServerProcess, second: ServerProcess): Promise<boolean> {
  try {
    const [first, other] = await Promise.all(
      [leader, second].map((member) => member.client.unary(MaintenanceService.Status, {})),
    );
    return (
      other!.raftAppliedIndex >= first!.raftAppliedIndex && (other!.header?.revision ?? 0) >= first!.header!.revision
    );
  } catch {
    return false;
  }
}

async function etcdctl(endpoint: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run(
    process.env["KVORUM_STOCK_ETCDCTL"] ?? "etcdctl",
    ["--endpoints", endpoint, ...args],
    {
      timeoutMs: 600_000,
      env: { ETCDCTL_API: "3" },
    },
  );
  if (code !== 0) throw new Error(`etcdctl ${args.join(" ")}: ${stderr}`);
  return stdout.toString();
}

/** How long an action takes, and the member's memory at most meanwhile. */
async function observed(pid: number, action: () => Promise<void>): Promise<Figures> {
  let most = 0;
  const sample = (): void => {
    most = Math.max(most, memory(pid)["RssAnon MiB"]!);
  };
  sample();
  const before = most;
  // Resets VmHWM.
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
  const timer = setInterval(sample, SAMPLE_MS);
  const startMs = performance.now();
  try {
    await action();
  } finally {
    clearInterval(timer);
  }
  const seconds = (performance.now() - startMs) / 1000;
  return { seconds, "RssAnon before MiB": before, "RssAnon peak MiB": most, "VmHWM MiB": field(pid, "VmHWM") };
}

const memory = (pid: number): Figures => ({
  "VmRSS MiB": field(pid, "VmRSS"),
  "RssAnon MiB": field(pid, "RssAnon"),
});

function field(pid: number, name: string): number {
  return Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}
