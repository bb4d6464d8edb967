/** A member whose data differs from the others': found by real members, with the alarm that stops the cluster. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { nullLogger } from "../../src/base/log.ts";
import { RpcError } from "../../src/client/raw.ts";
import { BoltBackend } from "../../src/mvcc/backend/bolt-backend.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  type AlarmMember,
  AlarmType,
  KVService,
  MaintenanceService,
} from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Member, withCluster } from "../harness/cluster.ts";
import { put, putMany } from "../harness/traffic.ts";
import { waitFor } from "../harness/wait.ts";

const CALL = { timeoutMs: 10_000 };
/** One of the keys that were put. */
const LOST_REVISION = 5;

/** Deletes a key from the database of a stopped member. */
async function corrupt(member: Member): Promise<void> {
  const backend = new BoltBackend({
    path: join(member.dataDir, "member", "snap", "db"),
    clock: systemClock,
    logger: nullLogger,
    onFailure: (error) => assert.fail(`${error}`),
  });
  backend.deleteRevision(LOST_REVISION, 0, false);
  await backend.close();
}

async function corruptFollower(cluster: Cluster): Promise<Member> {
  const leader = await cluster.leader();
  await putMany(leader.client, "k", 20);
  const victim = cluster.all.find((member) => member !== leader)!;
  await victim.kill("SIGTERM");
  await corrupt(victim);
  return victim;
}

const alarms = async (member: Member): Promise<AlarmMember[]> =>
  (await member.client.unary(MaintenanceService.Alarm, { action: AlarmAction.GET }, CALL)).alarms;

const raised = (cluster: Cluster): Promise<AlarmMember[]> =>
  waitFor(
    "the alarm is raised",
    async () => {
      const found = await alarms(cluster.running[0]!);
      return found.length > 0 && found;
    },
    20_000,
  );

describe("a member with different data", () => {
  test("is found by its leader's periodic check; then writes are refused until the alarm is disarmed", async () => {
    await withCluster({ members: ["ours", "ours", "ours"], args: ["--corrupt-check-time", "1s"] }, async (cluster) => {
      const victim = await corruptFollower(cluster);
      await victim.start();
      assert.deepEqual(await raised(cluster), [{ memberId: victim.id, alarm: AlarmType.CORRUPT }]);
      for (const member of cluster.all) {
        await assert.rejects(
          put(member.client, "more", "data"),
          (error) => error instanceof RpcError && error.details === "etcdserver: corrupt cluster",
        );
        const { errors } = await member.status();
        assert.deepEqual(errors, [`memberID:${victim.id}  alarm:CORRUPT`]);
      }
      await cluster.remove(victim);
      const { client } = cluster.running[0]!;
      const lift = { action: AlarmAction.DEACTIVATE, memberId: victim.id, alarm: AlarmType.CORRUPT };
      await client.unary(MaintenanceService.Alarm, lift, CALL);
      await put(client, "more", "data");
    });
  });

  test("is found by the hashes of compactions", async () => {
    const args = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time", "1s"];
    await withCluster({ members: ["ours", "ours", "ours"], args }, async (cluster) => {
      const victim = await corruptFollower(cluster);
      await victim.start();
      const { client } = await cluster.leader();
      await client.unary(KVService.Compact, { revision: 15, physical: true }, CALL);
      assert.deepEqual(await raised(cluster), [{ memberId: victim.id, alarm: AlarmType.CORRUPT }]);
    });
  });

  test("does not start when configured to compare its data first", async () => {
    const args = ["--feature-gates=InitialCorruptCheck=true"];
    await withCluster({ members: ["ours", "ours", "ours"], args }, async (cluster) => {
      const healthy = cluster.all[2]!;
      await healthy.kill("SIGTERM");
      await healthy.start();
      assert.ok(healthy.log().includes("initial corruption checking passed; no corruption"));
      const victim = await corruptFollower(cluster);
      victim.spawn();
      await victim.ended();
      assert.match(victim.log(), /checkInitialHashKV failed/);
      assert.match(victim.log(), new RegExp(`${victim.id.toString(16)} found data inconsistency with peers`));
    });
  });
});
