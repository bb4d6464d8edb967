/** Three of our members as processes: the loss of each kind of member under load, and etcdctl's view of them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Member, withCluster } from "../harness/cluster.ts";
import { AcknowledgedLoad } from "../harness/load.ts";
import { type Program, repositoryRoot, requireProgram, run } from "../harness/programs.ts";
import { leaseEverywhere, putMany, watchEverywhere, writeEverywhere } from "../harness/traffic.ts";
import { patience, waitFor } from "../harness/wait.ts";

const three = ["ours", "ours", "ours"] as const;
const ELECTION_MS = 1_000;
const LEADER_KILLS = 3;

test("no acknowledged write is lost when leaders and followers are killed under load and restarted", (t) =>
  withCluster({ members: three }, (cluster) =>
    withLoad(t, cluster, async (load) => {
      const leaderless: number[] = [];
      for (let kill = 0; kill < LEADER_KILLS; kill++) {
        await load.progress();
        const leader = await cluster.leader();
        leaderless.push(await killLeader(cluster, leader));
        await leader.start();
        await cluster.equalHashes();
        const follower = cluster.running.find((member) => member !== leader)!;
        await load.progress();
        await follower.kill("SIGKILL");
        await follower.start();
        await cluster.equalHashes();
      }
      t.diagnostic(`without a leader after kill -9 of it: ${leaderless.map((ms) => Math.round(ms)).join(", ")} ms`);
      const median = leaderless.sort((a, b) => a - b)[LEADER_KILLS >> 1]!;
      assert.ok(median <= 2 * ELECTION_MS, `${median} ms without a leader is more than two election timeouts`);
    }),
  ));

test("a cluster serves without one of its members, which is replaced; after a full stop it comes back from its logs", (t) =>
  withCluster({ members: three, tls: true }, async (cluster) => {
    await withLoad(t, cluster, async () => {
      const lost = cluster.running.find((member) => member.kind === "ours")!;
      await lost.kill("SIGKILL");
      await cluster.leader();
      await writeEverywhere(cluster.running);
      await watchEverywhere(cluster.running);
      await cluster.remove(lost);
      await cluster.add("ours");
      await leaseEverywhere(cluster.running);
    });
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      await Promise.all(cluster.running.map((member) => member.kill(signal)));
      await Promise.all(cluster.all.map((member) => member.start()));
      await writeEverywhere(cluster.running);
      await cluster.settled();
    }
  }));

test("a leader that is stopped transfers leadership first", () =>
  withCluster({ members: three }, async (cluster) => {
    const leader = await cluster.leader();
    const others = cluster.running.filter((member) => member !== leader);
    const [ms] = await Promise.all([untilLed(others, leader), leader.kill("SIGTERM")]);
    // Otherwise the others would notice after an election timeout at the earliest.
    assert.ok(ms < ELECTION_MS, `${ms} ms until another member led`);
    await leader.start();
    await cluster.settled();
  }));

const ourCtl: Program = { file: process.execPath, args: [join(repositoryRoot, "bin", "etcdctl")] };
const stockCtl = process.env["KVORUM_STOCK_ETCDCTL"] || "etcdctl";
const ctls = [
  { name: "our etcdctl", program: ourCtl, skip: false as const },
  { name: "stock etcdctl", program: { file: stockCtl, args: [] }, skip: requireProgram(stockCtl) },
];

describe("etcdctl's view of a cluster", () => {
  for (const { name, program, skip } of ctls) {
    test(`${name} lists members, status, health and hashes of all of them, over TLS`, { skip }, () =>
      withCluster({ members: three, tls: true }, (cluster) => etcdctlReadsRight(cluster, program)),
    );
  }
});

async function etcdctlReadsRight(cluster: Cluster, program: Program): Promise<void> {
  const leader = await cluster.leader();
  await putMany(leader.client, "key/", 50);
  await cluster.settled();
  const ctl = async (line: string): Promise<string[]> => {
    const args = [...cluster.ctlArgs, "--endpoints", cluster.all[0]!.url, ...line.split(" ")];
    const { code, stdout, stderr } = await run(program, args, { env: { ETCDCTL_API: "3" } });
    assert.equal(code, 0, `${line}: ${stdout}${stderr}`);
    // Some versions print health on standard error.
    return `${stdout}${stderr}`
      .trim()
      .split("\n")
      .filter((text) => !text.startsWith("{"));
  };
  const hex = ({ id }: Member) => id.toString(16);
  const sorted = (lines: readonly string[]) => [...lines].sort();

  assert.deepEqual(
    sorted(await ctl("member list")),
    sorted(cluster.all.map((m) => `${hex(m)}, started, ${m.name}, ${m.peerUrl}, ${m.url}, false`)),
  );
  const rows = (await ctl("endpoint status -w table --cluster")).map((line) =>
    line.split(/[|│]/).map((cell) => cell.trim()),
  );
  for (const member of cluster.all) {
    const row = rows.find((cells) => cells[1] === member.url);
    assert.equal(row?.[2], hex(member));
    assert.ok(row?.includes(member === leader ? "true" : "false"), `${member} leads or not: ${row}`);
  }
  const status = JSON.parse((await ctl("endpoint status -w json --cluster")).join("").replace(/^[^[]*/, "") || "[]");
  const terms = new Set(status.map((each: { Status: { raftTerm: number } }) => each.Status.raftTerm));
  const leaders = new Set(status.map((each: { Status: { leader: number } }) => each.Status.leader));
  assert.deepEqual([status.length, terms.size, leaders.size], [3, 1, 1]);

  const health = await ctl("endpoint health --cluster");
  for (const { url } of cluster.all)
    assert.ok(
      health.some((line) => line.startsWith(`${url} is healthy`)),
      `${health}`,
    );

  const [hash] = await cluster.equalHashes();
  const told = await ctl("endpoint hashkv --cluster");
  for (const { url } of cluster.all)
    assert.ok(
      told.some((line) => line.startsWith(`${url}, ${hash!.hash}`)),
      `${told}`,
    );
}

/** Runs `body` with writes through all running members, then checks that none was lost. */
async function withLoad(
  t: TestContext,
  cluster: Cluster,
  body: (load: AcknowledgedLoad) => Promise<void>,
): Promise<void> {
  const load = new AcknowledgedLoad({ clients: () => cluster.running.map(({ client }) => client), pauseMs: 5 });
  load.start();
  try {
    await body(load);
  } finally {
    await load.stop();
  }
  await cluster.settled();
  for (const member of cluster.running) await load.verify(String(member), member.client);
  t.diagnostic(load.describe());
}

/** Kills the leader; returns the milliseconds until another member is leader. */
async function killLeader(cluster: Cluster, leader: Member): Promise<number> {
  const others = cluster.running.filter((member) => member !== leader);
  const [ms] = await Promise.all([untilLed(others, leader), leader.kill("SIGKILL")]);
  return ms;
}

/** Milliseconds until one of the members knows a leader other than `before`. */
async function untilLed(members: readonly Member[], before: Member): Promise<number> {
  const begun = performance.now();
  await waitFor("another leader", async () => {
    const leaders = await Promise.all(
      members.map(
        async ({ client }) =>
          (await client.unary(MaintenanceService.Status, {}, { timeoutMs: patience(5_000) })).leader,
      ),
    );
    return leaders.some((leader) => leader !== 0n && leader !== before.id);
  });
  return performance.now() - begun;
}
