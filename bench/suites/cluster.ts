/**
 * Three members: Put and linearizable Range spread over all of them and at the leader alone, with and without TLS; what
 * an idle cluster uses; how long there is no leader after the leader was killed.
 *
 * All three share the machine with the load generator, so a request costs three log writes and, at a follower, a hop.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { KVService, MaintenanceService, PutRequest, RangeRequest, RequestOp } from "../../src/proto/etcdserverpb.ts";
import type { Cluster, Member } from "../../test/harness/cluster.ts";
import { waitFor } from "../../test/harness/wait.ts";
import { h2load } from "../h2load.ts";
import type { ClusterSuite, Measurement, Settings } from "../suite.ts";

const key = Buffer.from("/bench/key");
const value = Buffer.alloc(256, "v");

const shapes = [
  [10, 10],
  [100, 10],
] as const;

const throughput = (name: string, what: string, tls: boolean): ClusterSuite => ({
  name,
  what: `three members${tls ? " with TLS" : ""}: ${what}`,
  serverArgs: [],
  tls,
  async runCluster(cluster, settings) {
    const leader = await cluster.leader();
    await leader.client.unary(KVService.Put, { key, value });
    const out: Measurement[] = [];
    for (const [where, targets] of [
      ["all members", cluster.all],
      ["leader", [leader]],
    ] as const) {
      for (const [connections, streams] of shapes) {
        const shape = { connections, streams };
        const label = `${connections}×${streams}, ${where}${tls ? ", TLS" : ""}`;
        const put = { name: `put ${label}`, method: KVService.Put, request: PutRequest.create({ key, value }) };
        out.push(...(await h2load(targets, settings, { ...put, ...shape, writes: true })));
        const range = { name: `range ${label}`, method: KVService.Range, request: RangeRequest.create({ key }) };
        out.push(...(await h2load(targets, settings, { ...range, ...shape, writes: false })));
      }
    }
    if ((await cluster.leader()) !== leader) throw new Error("the leader changed while it was measured");
    await cluster.settled();
    return out;
  },
});

const load = "Put and linearizable Range of one key, 256 bytes, h2load";
export const cluster = throughput("cluster", load, false);
export const clusterTls = throughput("cluster-tls", load, true);

const IDLE_KEYS = 100_000;
const KEYS_PER_TXN = 100;
/**
 * A new member writes its first log segments and checks versions, V8 compiles hot code, and both runtimes return memory
 * only after a while without activity.
 */
const SETTLE_MS = 180_000;
/** Long enough that one clock tick is 0.03 %. */
const IDLE_SECONDS_MIN = 30;
/** Unit of the times in /proc/PID/stat: USER_HZ, 100 on Linux whatever the kernel's tick rate. */
const TICKS_PER_SECOND = 100;

const idling = (name: string, tls: boolean): ClusterSuite => ({
  name,
  what: `three members${tls ? " with TLS" : ""} idle for three minutes, new and with ${IDLE_KEYS} keys: processor time and memory of all together`,
  serverArgs: [],
  tls,
  async runCluster(cluster, settings) {
    const label = (what: string) => `idle cluster, ${what}${tls ? ", TLS" : ""}`;
    await sleep(SETTLE_MS);
    const out = [...(await idleCpu(cluster, settings, label("new"))), ...memory(cluster, label("new"))];
    await fill(await cluster.leader());
    await cluster.settled();
    await sleep(SETTLE_MS);
    const filled = label(`${IDLE_KEYS} keys`);
    return [...out, ...(await idleCpu(cluster, settings, filled)), ...memory(cluster, filled)];
  },
});
export const idle = idling("idle", false);
export const idleTls = idling("idle-tls", true);

async function fill({ client }: Member): Promise<void> {
  for (let at = 0; at < IDLE_KEYS; at += KEYS_PER_TXN) {
    const success = Array.from({ length: KEYS_PER_TXN }, (_, i) =>
      RequestOp.create({ requestPut: PutRequest.create({ key: Buffer.from(`/idle/${at + i}`), value }) }),
    );
    await client.unary(KVService.Txn, { success });
  }
}

async function idleCpu(cluster: Cluster, settings: Settings, label: string): Promise<Measurement[]> {
  const seconds = Math.max(IDLE_SECONDS_MIN, settings.seconds);
  const before = ticks(cluster);
  await sleep(seconds * 1000);
  const percent = ((ticks(cluster) - before) / TICKS_PER_SECOND / seconds) * 100;
  return [{ name: `${label} CPU`, unit: "% of a core", better: "lower", value: percent }];
}

/** User and system time of all members. */
function ticks(cluster: Cluster): number {
  const each = cluster.all.map(({ pid }) => {
    // The command's name, in parentheses, may contain blanks.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return Number(fields[11]) + Number(fields[12]);
  });
  return each.reduce((sum, time) => sum + time, 0);
}

/** Vm: per process, counting the pages of programs and libraries each time; Pss: shared pages counted once in total. */
function memory(cluster: Cluster, label: string): Measurement[] {
  const sum = (file: string, field: string) =>
    cluster.all.reduce((total, { pid }) => {
      const text = readFileSync(`/proc/${pid}/${file}`, "utf8");
      return total + Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(text)?.[1]);
    }, 0);
  return [
    ["VmRSS", sum("status", "VmRSS")] as const,
    ["RssAnon", sum("status", "RssAnon")] as const,
    ["Pss", sum("smaps_rollup", "Pss")] as const,
  ].map(([field, kb]) => ({ name: `${label} ${field}`, unit: "MiB", better: "lower", value: kb / 1024 }));
}

const KILLS = 5;

export const failover: ClusterSuite = {
  name: "failover",
  what: `three members: time without a leader after kill -9 of it, ${KILLS} times; election timeout 1000 ms`,
  serverArgs: [],
  tls: false,
  async runCluster(cluster) {
    const gaps: number[] = [];
    for (let kill = 0; kill < KILLS; kill++) {
      const leader = await cluster.leader();
      gaps.push(await killLeader(cluster, leader));
      await leader.start();
      await cluster.settled();
    }
    gaps.sort((a, b) => a - b);
    return [
      { name: "leaderless, median", unit: "ms", better: "lower", value: gaps[KILLS >> 1]! },
      { name: "leaderless, longest", unit: "ms", better: "lower", value: gaps.at(-1)! },
    ];
  },
};

/** Kills the leader; returns the milliseconds until a surviving member has a new one. */
async function killLeader(cluster: Cluster, leader: Member): Promise<number> {
  const others = cluster.all.filter((member) => member !== leader);
  const begun = performance.now();
  await leader.kill("SIGKILL");
  await waitFor("another leader", async () => {
    const statuses = await Promise.all(others.map(({ client }) => client.unary(MaintenanceService.Status, {})));
    return statuses.some((status) => status.leader !== 0n && status.leader !== leader.id);
  });
  return performance.now() - begun;
}
