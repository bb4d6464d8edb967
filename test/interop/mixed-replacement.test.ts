/**
 * A cluster of stock etcd becomes one of ours, member by member, under load, and back: no acknowledged write is lost or
 * duplicated, HashKV is equal throughout.
 */
import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { type Cluster, type Kind, type Member, withCluster } from "../harness/cluster.ts";
import { AcknowledgedLoad } from "../harness/load.ts";
import { requireStockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { put } from "../harness/traffic.ts";

/** The member to remove, by the order of the cluster's list, and its replacement. */
interface Replacement {
  readonly from: Kind;
  readonly to: Kind;
}

const toOurs: Replacement = { from: "stock", to: "ours" };
const toStock: Replacement = { from: "ours", to: "stock" };

// Once all members are of 3.7 the cluster version follows, and no older member can join. So an older stock etcd returns
// while one of its version is left.
const version = (await stockEtcdVersion()) ?? 0;
const sameVersion = version >= 3.007;
const inPlace = version < 3.005 && "data of etcd 3.4 cannot be taken over: KVORUM_STOCK_ETCD names a later one";
const plan = sameVersion
  ? [toOurs, toOurs, toOurs, toStock, toStock, toStock]
  : [toOurs, toOurs, toStock, toStock, toOurs, toOurs, toOurs];

describe("rolling replacement", { skip: requireStockEtcd() }, () => {
  test("of every stock member by ours under load, and back, loses no acknowledged write", (t) =>
    withCluster({ members: ["stock", "stock", "stock"] }, async (cluster) => {
      // A member to be removed is no longer written to; its unanswered requests have an unknown outcome.
      let leaving: Member | undefined;
      const clients = () => cluster.running.filter((member) => member !== leaving && joined.has(member));
      const joined = new Set(cluster.running);
      const load = new AcknowledgedLoad({ clients: () => clients().map(({ client }) => client), pauseMs: 10 });
      await put(cluster.running[0]!.client, "before", "everything");
      load.start();
      try {
        for (const [i, { from, to }] of plan.entries()) {
          await load.progress();
          leaving = cluster.one(from);
          const leads = (await cluster.leader()) === leaving;
          // Alternately: a new member replaces one that was removed, or joins as learner before the old one is removed.
          const incoming =
            i % 2 === 0 ? await removeThenAdd(cluster, leaving, to) : await learnThenRemove(cluster, leaving, to);
          joined.add(incoming);
          await cluster.equalHashes();
          tell(t, `${from}${leads ? " (leader)" : ""} → ${to}`, load);
        }
      } finally {
        await load.stop();
      }
      const left = plan.at(-1)!.to;
      assert.deepEqual(
        cluster.running.map(({ kind }) => kind),
        [left, left, left],
      );
      await cluster.settled();
      for (const member of cluster.running) await load.verify(String(member), member.client);
      t.diagnostic(load.describe());
    }));

  test(
    "in place, each of ours continuing with the data of the stock member before it, loses none either",
    {
      skip: inPlace,
    },
    (t) =>
      withCluster({ members: ["stock", "stock", "stock"], args: ["--snapshot-count", "1000"] }, async (cluster) => {
        let leaving: Member | undefined;
        const others = () => cluster.running.filter((member) => member !== leaving);
        const load = new AcknowledgedLoad({ clients: () => others().map(({ client }) => client), pauseMs: 10 });
        await put(cluster.running[0]!.client, "before", "everything");
        load.start();
        try {
          for (const member of cluster.all) {
            await load.progress(500);
            leaving = member;
            const leads = (await cluster.leader()) === member;
            await member.become("ours");
            leaving = undefined;
            await cluster.equalHashes();
            tell(t, `${member.name}${leads ? " (leader)" : ""}`, load);
          }
        } finally {
          await load.stop();
        }
        await cluster.settled();
        for (const member of cluster.running) await load.verify(String(member), member.client);
        t.diagnostic(load.describe());
      }),
  );
});

async function removeThenAdd(cluster: Cluster, leaving: Member, to: Kind): Promise<Member> {
  await cluster.remove(leaving);
  return cluster.add(to);
}

async function learnThenRemove(cluster: Cluster, leaving: Member, to: Kind): Promise<Member> {
  const learner = await cluster.add(to, { learner: true });
  await cluster.promote(learner);
  await cluster.remove(leaving);
  return learner;
}

function tell(t: TestContext, what: string, load: AcknowledgedLoad): void {
  t.diagnostic(`${what}: ${load.acknowledged} writes so far, longest gap ${Math.round(load.takeGapMs())} ms`);
}
