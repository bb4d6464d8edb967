/**
 * Random faults of a cluster of ours and stock etcd under load: kills, pauses, leadership transfers, replacements,
 * compactions. Nothing acknowledged is lost, hashes stay equal. KVORUM_FAULTS sets how many, KVORUM_SEED which.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { KVService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Kind, type Member, withCluster } from "../harness/cluster.ts";
import { AcknowledgedLoad } from "../harness/load.ts";
import { requireStockEtcd } from "../harness/programs.ts";
import { type SeededRandom, seeded } from "../harness/random.ts";
import { putAnyway, writeEverywhere } from "../harness/traffic.ts";
import { patience } from "../harness/wait.ts";

const faults = Number(process.env["KVORUM_FAULTS"] ?? 8);
const seed = Number(process.env["KVORUM_SEED"] ?? 1);
/** Few entries are kept, so that members that were away need snapshots too. */
const ARGS = ["--snapshot-count", "500", "--heartbeat-interval", "50", "--election-timeout", "500"];

type Trouble = (cluster: Cluster, member: Member, random: SeededRandom) => Promise<void>;

const troubles: Readonly<Record<string, Trouble>> = {
  "kill -9": async (_, member, random) => {
    await member.kill("SIGKILL");
    await sleep(random.below(1_500));
    await member.start();
  },
  restart: async (_, member) => {
    await member.kill("SIGTERM");
    await member.start();
  },
  pause: async (_, member, random) => {
    member.signal("SIGSTOP");
    await sleep(random.below(2_500));
    member.signal("SIGCONT");
  },
  "hand-over": async (cluster, member) => {
    await cluster.lead(member);
  },
  compaction: async (_, member) => {
    const { header } = await member.status();
    await member.client.unary(KVService.Compact, { revision: header!.revision }, { timeoutMs: patience(10_000) });
  },
  defragmentation: async (_, member) => {
    await member.client.unary(MaintenanceService.Defragment, {}, { timeoutMs: patience(10_000) });
  },
  replacement: async (cluster, member) => {
    // The new one first: without any member of an older version the cluster version would rise, and it could not join.
    const learner = await cluster.add(member.kind, { learner: true });
    await cluster.promote(learner);
    await cluster.remove(member);
  },
};

const mixes: readonly (readonly Kind[])[] = [
  ["ours", "stock", "ours"],
  ["stock", "ours", "stock"],
];

describe("a cluster of ours and stock etcd under faults", { skip: requireStockEtcd() }, () => {
  for (const [i, members] of mixes.entries()) {
    test(`${members.join(" + ")} loses nothing that was acknowledged, seed ${seed + i}`, (t) =>
      withCluster({ members, args: ARGS }, async (cluster) => {
        const random = seeded(seed + i);
        let troubled: Member | undefined;
        const healthy = () => cluster.running.filter((member) => member !== troubled);
        const load = new AcknowledgedLoad({ clients: () => healthy().map(({ client }) => client), pauseMs: 10 });
        load.start();
        const names = Object.keys(troubles);
        try {
          for (let fault = 0; fault < faults; fault++) {
            await load.progress();
            const name = fault < names.length ? names[fault]! : random.pick(names);
            const member = random.pick(cluster.all);
            const leads = (await cluster.leader()) === member;
            t.diagnostic(`${name} of ${member}${leads ? ", the leader" : ""}`);
            if (/kill|restart|pause|replacement/.test(name)) troubled = member;
            await troubles[name]!(cluster, member, random).catch((error) => {
              throw new Error(`${name} of ${member}: ${error.stack}`);
            });
            troubled = undefined;
            await cluster.leader();
          }
          await load.progress();
        } finally {
          await load.stop();
        }
        await Promise.all(cluster.running.map(({ client, name }) => putAnyway(client, `after/${name}`, "all")));
        await writeEverywhere(cluster.running);
        await cluster.settled();
        for (const member of cluster.running) await load.verify(String(member), member.client);
        t.diagnostic(load.describe());
        assert.equal(cluster.running.length, members.length);
      }));
  }
});
