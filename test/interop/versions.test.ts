/** The cluster version when members have several versions, and when a downgrade is requested. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { RpcError } from "../../src/client/raw.ts";
import {
  DowngradeRequest_DowngradeAction as Action,
  KVService,
  MaintenanceService,
} from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Member, withCluster } from "../harness/cluster.ts";
import { requireStockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { httpText } from "../harness/server.ts";
import { patience, waitFor } from "../harness/wait.ts";

const CALL = { timeoutMs: patience(10_000) };

interface Versions {
  readonly etcdserver: string;
  readonly etcdcluster: string;
  readonly storage?: string;
}

async function versionsOf(member: Member): Promise<Versions> {
  return JSON.parse((await httpText(`${member.peerUrl}/version`)).body) as Versions;
}

/** All running members report it; ours have migrated their storage to it. */
function becomes(cluster: Cluster, version: string): Promise<true> {
  return waitFor(
    `the cluster's version becomes ${version}`,
    async () => {
      for (const member of cluster.running) {
        const { etcdcluster, storage } = await versionsOf(member);
        if (etcdcluster !== version) return undefined;
        // Before 3.5 there is no storage version, and 3.5 state stays 3.5.
        const wanted = version < "3.5.0" ? "3.5.0" : version;
        if (member.kind === "ours" && storage !== wanted) return undefined;
      }
      return true;
    },
    30_000,
  );
}

const downgrade = async (member: Member, action: Action, version = "") =>
  (await member.client.unary(MaintenanceService.Downgrade, { action, version }, CALL)).version;

const stockMinor = Math.round((((await stockEtcdVersion()) ?? 3) - 3) * 1000);

describe("a cluster of several versions", { skip: requireStockEtcd() }, () => {
  test("has the lowest of them, and rises when the last old member is gone", async () => {
    await withCluster({ members: ["ours", "stock", "ours"] }, async (cluster) => {
      await becomes(cluster, `3.${Math.min(stockMinor, 7)}.0`);
      const old = cluster.one("stock");
      await cluster.remove(old);
      await cluster.add("ours");
      await becomes(cluster, "3.7.0");
    });
  });
});

describe("a downgrade", () => {
  const skip = stockMinor === 6 ? false : "only one version down, which is 3.6: KVORUM_STOCK_ETCD names such a program";
  test("lets members of the lower version replace all", { skip }, async () => {
    await withCluster({ members: ["ours", "ours", "ours"] }, async (cluster) => {
      await becomes(cluster, "3.7.0");
      const [first] = cluster.all;
      await first!.client.unary(KVService.Put, { key: Buffer.from("kept"), value: Buffer.from("all the way") }, CALL);
      await downgrade(first!, Action.ENABLE, "3.6.0");
      await becomes(cluster, "3.6.0");
      for (const old of [...cluster.all]) {
        await cluster.remove(old);
        // Stock members report it until the last of the higher version is gone; the leader then ends the downgrade.
        await waitFor("a member may join", async () => {
          const answers = cluster.running.map((member) => httpText(`${member.peerUrl}/downgrade/enabled`));
          const bodies = (await Promise.all(answers)).map(({ body }) => body);
          return (
            bodies.includes("false") &&
            (cluster.running.some(({ kind }) => kind === "ours") || !bodies.includes("true"))
          );
        });
        await cluster.add("stock");
      }
      await becomes(cluster, "3.6.0");
      const last = cluster.one("stock");
      await waitFor("the downgrade is over", async () => (await last.status()).downgradeInfo?.enabled !== true);
      const { kvs } = await last.client.unary(KVService.Range, { key: Buffer.from("kept") }, CALL);
      assert.equal(Buffer.from(kvs[0]!.value).toString(), "all the way");
    });
  });

  test("is validated, started and cancelled through any member, and all members' storage follows", async () => {
    await withCluster({ members: ["ours", "ours", "ours"] }, async (cluster) => {
      await becomes(cluster, "3.7.0");
      const leader = await cluster.leader();
      const [follower, other] = cluster.all.filter((member) => member !== leader) as [Member, Member];
      assert.equal(await downgrade(follower, Action.VALIDATE, "3.6"), "3.7");
      const refused = (text: string) => (error: unknown) => error instanceof RpcError && error.details === text;
      await assert.rejects(
        downgrade(follower, Action.VALIDATE, "3.5"),
        refused("etcdserver: invalid downgrade target version"),
      );
      await assert.rejects(
        downgrade(leader, Action.ENABLE, "low"),
        refused("etcdserver: wrong downgrade target version format"),
      );
      assert.equal(await downgrade(follower, Action.CANCEL), "3.7");

      assert.equal(await downgrade(follower, Action.ENABLE, "3.6.0"), "3.7");
      await assert.rejects(
        downgrade(other, Action.ENABLE, "3.6.0"),
        refused("etcdserver: cluster has a downgrade job in progress"),
      );
      await becomes(cluster, "3.6.0");
      for (const member of cluster.all) {
        const { downgradeInfo, storageVersion, version } = await member.status();
        assert.deepEqual(downgradeInfo, { enabled: true, targetVersion: "3.6.0" });
        assert.equal(storageVersion, "3.6.0");
        assert.equal(version, "3.7.1");
        // A member that joins now must be of the lower version.
        assert.equal((await httpText(`${member.peerUrl}/downgrade/enabled`)).body, "false");
        await waitFor("a snapshot is forced", () => member.log().includes("saved snapshot to disk"));
      }
      // A member that restarts meanwhile is still newer than its cluster.
      await follower.kill("SIGTERM");
      await follower.start();
      await becomes(cluster, "3.6.0");
      assert.ok(follower.log().includes("cluster is downgrading to target version"));

      assert.equal(await downgrade(leader, Action.CANCEL), "3.6");
      await becomes(cluster, "3.7.0");
      assert.deepEqual((await other.status()).downgradeInfo, { enabled: false, targetVersion: "" });
    });
  });
});
