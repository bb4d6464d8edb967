/**
 * Clusters of our members and stock etcd's: formed together, led by either, with TLS; writes, watches, leases and
 * compactions through each member have the same effect on all, and HashKV is equal.
 *
 * KVORUM_STOCK_ETCD chooses the stock etcd; docs/interop.md lists the results by version.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ClusterService } from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Kind, withCluster } from "../harness/cluster.ts";
import { requireStockEtcd } from "../harness/programs.ts";
import { compactThrough, leaseEverywhere, watchEverywhere, writeEverywhere } from "../harness/traffic.ts";
import { patience } from "../harness/wait.ts";

const mixes: readonly { readonly members: readonly Kind[]; readonly tls: boolean }[] = [
  { members: ["ours", "stock", "stock"], tls: false },
  { members: ["ours", "ours", "stock"], tls: true },
];

describe("a cluster of ours and stock etcd", { skip: requireStockEtcd() }, () => {
  for (const { members, tls } of mixes) {
    test(`${members.join(" + ")}${tls ? " over TLS" : ""} serves the same, whichever member is leader`, () =>
      withCluster({ members, tls }, async (cluster) => {
        await sameMembers(cluster);
        for (const kind of ["stock", "ours"] as const) {
          await cluster.lead(cluster.one(kind));
          await traffic(cluster).catch((error) => {
            throw new Error(`led by ${kind}: ${error.stack}`);
          });
        }
      }));
  }
});

async function traffic(cluster: Cluster): Promise<void> {
  const { running } = cluster;
  const lease = leaseEverywhere(running);
  const others = async () => {
    await writeEverywhere(running);
    await watchEverywhere(running);
    for (const kind of ["ours", "stock"] as const) await compactThrough(cluster.one(kind), running);
  };
  await Promise.all([lease, others()]);
  await cluster.settled();
}

/** All members report the same list of members, with the names and addresses that each published. */
async function sameMembers(cluster: Cluster): Promise<void> {
  const lists = await Promise.all(
    cluster.running.map(async ({ client }) => {
      const { members } = await client.unary(
        ClusterService.MemberList,
        { linearizable: true },
        { timeoutMs: patience(10_000) },
      );
      return members.sort((a, b) => (a.id < b.id ? -1 : 1));
    }),
  );
  for (const list of lists) assert.deepEqual(list, lists[0]);
  const expected = cluster.running.map(({ id, name, url, peerUrl }) => ({ id, name, url, peerUrl }));
  assert.deepEqual(
    lists[0]!.map((m) => ({ id: m.id, name: m.name, url: m.clientUrls.join(), peerUrl: m.peerUrls.join() })),
    expected.sort((a, b) => (a.id < b.id ? -1 : 1)),
  );
}
