/**
 * Members that need entries no longer in the leader's log catch up from a snapshot, sent by ours to stock etcd and by
 * stock etcd to ours.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { KVService, LeaseService } from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Kind, type Member, withCluster } from "../harness/cluster.ts";
import { AcknowledgedLoad } from "../harness/load.ts";
import { requireStockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { get, leaseEverywhere, put, putMany, watchEverywhere, writeEverywhere } from "../harness/traffic.ts";
import { patience } from "../harness/wait.ts";

const SNAPSHOT_COUNT = 100;
const CATCH_UP = 20;

const version = (await stockEtcdVersion()) ?? 0;
const catchUpFlag = version >= 3.006 ? "--snapshot-catchup-entries" : "--experimental-snapshot-catchup-entries";
/** etcd 3.4 keeps 5,000 entries after a snapshot whatever the flags say. */
const stockCatchUp = version >= 3.005 ? CATCH_UP : 5_000;
const argsOf: Record<Kind, string[]> = {
  ours: ["--snapshot-catchup-entries", String(CATCH_UP)],
  stock: version >= 3.005 ? [catchUpFlag, String(CATCH_UP)] : [],
};
const catchUpOf: Record<Kind, number> = { ours: CATCH_UP, stock: stockCatchUp };

describe("snapshots between ours and stock etcd", { skip: requireStockEtcd() }, () => {
  test("a member that was away gets one from a leader of the other kind, under load", () =>
    withCluster(
      { members: ["ours", "stock", "stock"], args: ["--snapshot-count", String(SNAPSHOT_COUNT)], argsOf },
      async (cluster) => {
        const load = new AcknowledgedLoad({
          clients: () => cluster.running.map(({ client }) => client),
          pauseMs: 20,
        });
        const ours = cluster.one("ours");
        const stock = cluster.one("stock");
        await putMany(ours.client, "large/", 40, 60_000);
        load.start();
        await catchUpBySnapshot(cluster, stock, ours);
        await catchUpBySnapshot(cluster, ours, stock);
        await load.stop();
        await cluster.settled();
        for (const { name, client } of cluster.running) await load.verify(name, client);
        assert.ok(load.acknowledged > 0, load.describe());
      },
    ));

  for (const [host, guest] of [
    ["ours", "stock"],
    ["stock", "ours"],
  ] as const) {
    test(`${guest} joins a cluster led by ${host} whose log is gone`, () =>
      withCluster(
        { members: [host, "stock"], args: ["--snapshot-count", String(SNAPSHOT_COUNT)], argsOf },
        async (cluster) => {
          const leader = cluster.one(host);
          await cluster.lead(leader);
          await outrunLog(leader);
          const joined = await cluster.add(guest);
          tookSnapshot(joined);
          await writeEverywhere(cluster.running);
          await watchEverywhere(cluster.running);
          await cluster.settled();
        },
      ));
  }
});

/** Stops the receiver, writes more than the sender's log keeps, compacts, and restarts the receiver. */
async function catchUpBySnapshot(cluster: Cluster, sender: Member, receiver: Member): Promise<void> {
  await cluster.lead(sender);
  const { id } = await sender.client.unary(LeaseService.LeaseGrant, { ttl: 600 }, { timeoutMs: patience(10_000) });
  const before = `leased/${receiver.name}/before`;
  await put(receiver.client, before, "x", id);
  await receiver.kill("SIGKILL");
  const after = `leased/${receiver.name}/after`;
  await put(sender.client, after, "y", id);
  await outrunLog(sender);
  await receiver.start();
  await cluster.equalHashes();
  tookSnapshot(receiver);
  assert.equal(await get(receiver.client, after), "y");

  // As leader it must know what came with the snapshot: leases and their keys.
  await cluster.lead(receiver);
  const lease = await receiver.client.unary(
    LeaseService.LeaseTimeToLive,
    { id, keys: true },
    { timeoutMs: patience(10_000) },
  );
  assert.deepEqual(lease.keys.map((key) => Buffer.from(key).toString()).sort(), [after, before]);
  await receiver.client.unary(LeaseService.LeaseRevoke, { id }, { timeoutMs: patience(10_000) });
  for (const { client } of cluster.running) assert.equal(await get(client, before), undefined);
  await leaseEverywhere(cluster.running);
  await writeEverywhere(cluster.running);
}

/** Writes until the member has dropped its earlier log, and compacts the revisions too. */
async function outrunLog(member: Member): Promise<void> {
  await putMany(member.client, "fill/", catchUpOf[member.kind] + 3 * SNAPSHOT_COUNT);
  const revision = (await put(member.client, "fill/end", "x")) - 10;
  await member.client.unary(KVService.Compact, { revision, physical: true }, { timeoutMs: patience(10_000) });
}

function tookSnapshot(member: Member): void {
  assert.match(member.log(), /applied snapshot|applying snapshot at index|recovered incoming snapshot/i);
}
