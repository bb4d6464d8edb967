/** Our members and stock etcd's join each other's clusters and leave them, as voters and as learners. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { RpcError } from "../../src/client/raw.ts";
import { ClusterService } from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Kind, type Member, withCluster } from "../harness/cluster.ts";
import { requireStockEtcd } from "../harness/programs.ts";
import { get, put, watchEverywhere, writeEverywhere } from "../harness/traffic.ts";
import { patience } from "../harness/wait.ts";

// A member cannot join a cluster with a version above its own, so stock etcd joins one with stock etcd in it.
const clusters: readonly { readonly members: readonly Kind[]; readonly guest: Kind }[] = [
  { members: ["stock"], guest: "ours" },
  { members: ["ours", "stock"], guest: "stock" },
];

describe("membership of ours and stock etcd", { skip: requireStockEtcd() }, () => {
  for (const { members, guest } of clusters) {
    test(`${members.join(" + ")} is joined by ${guest} as voter and as learner, led by it, and left`, () =>
      withCluster({ members }, async (cluster) => {
        const first = cluster.all[0]!;
        await cluster.lead(first);
        await put(first.client, "before", "joining");

        const voter = await cluster.add(guest);
        assert.equal(await get(voter.client, "before"), "joining");
        await writeEverywhere(cluster.running);

        const learner = await cluster.add(guest, { learner: true });
        await learnerRefuses(learner);
        await cluster.promote(learner);
        await sameVoters(cluster);
        await writeEverywhere(cluster.running);
        await cluster.settled();

        // Changes through the guest as leader, with the host among the removed members.
        await cluster.lead(voter);
        await cluster.add(first.kind, { via: voter });
        await writeEverywhere(cluster.running);
        await cluster.remove(first, learner);
        await sameVoters(cluster);
        await cluster.settled();

        // A leader removes itself.
        await cluster.remove(voter, voter);
        await cluster.leader();
        await watchEverywhere(cluster.running);
        await sameVoters(cluster);
        await cluster.settled();
      }));
  }

  test("a removed member is told so when it returns", () =>
    withCluster({ members: ["ours", "stock", "ours", "stock"] }, async (cluster) => {
      for (const gone of [cluster.one("ours"), cluster.one("stock")]) {
        await gone.kill("SIGKILL");
        await cluster.leader();
        const asked = cluster.running.find((member) => member.kind !== gone.kind)!;
        await cluster.remove(gone, asked, { keep: true });
        await asked.client.unary(ClusterService.MemberList, { linearizable: true }, { timeoutMs: patience(10_000) });
        gone.spawn();
        await gone.ended();
        assert.match(gone.log(), /removed/);
        await gone.close();
      }
    }));
});

/** A learner accepts no writes and no linearizable reads. */
async function learnerRefuses(learner: Member): Promise<void> {
  for (const call of [() => put(learner.client, "x", "y"), () => get(learner.client, "x")]) {
    const error = await call().catch((refusal: unknown) => refusal);
    assert.ok(error instanceof RpcError && error.details === "etcdserver: rpc not supported for learner", `${error}`);
  }
}

/** Every member lists exactly the running ones, all of them voters. */
async function sameVoters(cluster: Cluster): Promise<void> {
  const expected = cluster.running.map(({ id, name }) => `${id} ${name} voter`).sort();
  for (const member of cluster.running) {
    const request = { linearizable: true };
    const { members } = await member.client.unary(ClusterService.MemberList, request, { timeoutMs: patience(10_000) });
    const listed = members.map(({ id, name, isLearner }) => `${id} ${name} ${isLearner ? "learner" : "voter"}`);
    assert.deepEqual(listed.sort(), expected, `the members that ${member} lists`);
  }
}
