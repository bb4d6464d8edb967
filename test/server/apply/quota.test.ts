import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { RpcError } from "../../../src/client/raw.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmType,
  DeleteRangeRequest,
  KVService,
  LeaseService,
  MaintenanceService,
  RequestOp,
} from "../../../src/proto/etcdserverpb.ts";
import { costOfPut, costOfTxn } from "../../../src/server/apply/quota.ts";
import { errors } from "../../../src/server/contract/errors.ts";
import { type InProcess, startInProcess, tempDir } from "../../harness/in-process.ts";
import { bytes, put, putOp, rangeOp, removeOp, txn, txnOp } from "../requests.ts";

const QUOTA_BYTES = 4 * 1024 * 1024;
const VALUE = Buffer.alloc(128 * 1024, 1);

test("the cost of a transaction is that of its more expensive branch, nested ones included", () => {
  const cost = costOfPut(put("k", "value"));
  assert.equal(cost, 256 + 1 + 5);
  const one = putOp("k", "value");
  assert.equal(costOfTxn(txn([one, one], [one])), 2 * cost);
  assert.equal(costOfTxn(txn([], [one, txnOp(txn([], [one, one]))])), 3 * cost);
  assert.equal(costOfTxn(txn([rangeOp("a"), removeOp("a")])), 0);
});

describe("a member that is out of space", () => {
  const isNoSpace = (error: RpcError): boolean => {
    assert.deepEqual([error.code, error.details], [errors.noSpace.grpcCode, errors.noSpace.message]);
    return true;
  };
  const fill = async ({ client }: InProcess): Promise<number> => {
    for (let i = 0; i < 1000; i++) {
      try {
        await client.unary(KVService.Put, { key: bytes(`fill${i}`), value: VALUE });
      } catch (error) {
        isNoSpace(error as RpcError);
        return i;
      }
    }
    throw new Error("the quota did not hold");
  };
  const alarms = async ({ client }: InProcess): Promise<AlarmType[]> =>
    (await client.unary(MaintenanceService.Alarm, { action: AlarmAction.GET })).alarms.map(({ alarm }) => alarm);

  test("refuses growth, serves everything else, and accepts writes again once room was made and the alarm disarmed", async () => {
    const dir = tempDir();
    const dataDir = join(dir.path, "data");
    const server = { quotaBackendBytes: QUOTA_BYTES };
    let member = await startInProcess({ dataDir, server });
    const written = await fill(member);
    assert.ok(written > 4 && written < 400, `${written} puts of 128 KiB fit into 4 MiB`);
    assert.deepEqual(await alarms(member), [AlarmType.NOSPACE]);

    const { client } = member;
    await assert.rejects(client.unary(KVService.Put, { key: bytes("tiny") }), isNoSpace);
    await assert.rejects(client.unary(KVService.Txn, txn([putOp("tiny")])), isNoSpace);
    await assert.rejects(client.unary(LeaseService.LeaseGrant, { ttl: 100 }), isNoSpace);
    assert.equal((await client.unary(KVService.Range, { key: bytes("fill0") })).count, 1);
    assert.equal((await client.unary(KVService.DeleteRange, { key: bytes("fill0") })).deleted, 1);
    const removeInTxn = RequestOp.create({ requestDeleteRange: DeleteRangeRequest.create({ key: bytes("fill1") }) });
    assert.equal((await client.unary(KVService.Txn, { success: [removeInTxn] })).succeeded, true);
    const health = await fetch(`${member.url}/health`);
    assert.equal(health.status, 503);
    assert.deepEqual(JSON.parse(await health.text()), { health: "false", reason: "ALARM NOSPACE" });
    const { errors: problems } = await client.unary(MaintenanceService.Status, {});
    assert.match(problems.join(), /^memberID:\d+ {2}alarm:NOSPACE$/);

    await member.close();
    member = await startInProcess({ dataDir, server });
    assert.deepEqual(await alarms(member), [AlarmType.NOSPACE], "it outlives a restart");
    const again = member.client;
    await assert.rejects(again.unary(KVService.Put, { key: bytes("tiny") }), isNoSpace);

    const { header } = await again.unary(KVService.DeleteRange, { key: bytes("fill"), rangeEnd: bytes("fim") });
    await again.unary(KVService.Compact, { revision: header!.revision, physical: true });
    await again.unary(MaintenanceService.Defragment, {});
    await assert.rejects(
      again.unary(KVService.Put, { key: bytes("tiny") }),
      isNoSpace,
      "not before the alarm is lifted",
    );
    const lifted = await again.unary(MaintenanceService.Alarm, {
      action: AlarmAction.DEACTIVATE,
      memberId: member.etcd.server.memberId,
      alarm: AlarmType.NOSPACE,
    });
    assert.deepEqual(
      lifted.alarms.map(({ alarm }) => alarm),
      [AlarmType.NOSPACE],
    );
    await again.unary(KVService.Put, { key: bytes("tiny") });
    assert.deepEqual(await alarms(member), []);
    await member.close();
    dir.remove();
  });

  test("accepts writes again within a quota of 13 pages, as etcd does", async () => {
    const member = await startInProcess({ server: { quotaBackendBytes: 13 * 4096 } });
    const { client } = member;
    let full = false;
    for (let i = 0; i < 200 && !full; i++) {
      try {
        await client.unary(KVService.Put, { key: bytes("k"), value: Buffer.alloc(4096, 1) });
      } catch (error) {
        full = isNoSpace(error as RpcError);
      }
    }
    assert.ok(full);
    const { header } = await client.unary(MaintenanceService.Status, {});
    await client.unary(KVService.Compact, { revision: header!.revision, physical: true });
    await client.unary(MaintenanceService.Defragment, {});
    await client.unary(MaintenanceService.Alarm, {
      action: AlarmAction.DEACTIVATE,
      memberId: member.etcd.server.memberId,
      alarm: AlarmType.NOSPACE,
    });
    await client.unary(KVService.Put, { key: bytes("small"), value: Buffer.alloc(64, 1) });
    await member.close();
  });

  test("raises the alarm again when it was disarmed without making room", async () => {
    const member = await startInProcess({ server: { quotaBackendBytes: QUOTA_BYTES } });
    await fill(member);
    await member.client.unary(MaintenanceService.Alarm, {
      action: AlarmAction.DEACTIVATE,
      memberId: member.etcd.server.memberId,
      alarm: AlarmType.NOSPACE,
    });
    await assert.rejects(member.client.unary(KVService.Put, { key: bytes("more"), value: VALUE }), isNoSpace);
    assert.deepEqual(await alarms(member), [AlarmType.NOSPACE]);
    await member.close();
  });

  test("has no limit when the quota is negative", async () => {
    const member = await startInProcess({ server: { quotaBackendBytes: -1 } });
    for (let i = 0; i < 40; i++) await member.client.unary(KVService.Put, { key: bytes("k"), value: VALUE });
    assert.deepEqual(await alarms(member), []);
    await member.close();
  });

  test("alarms of other members count too, and a corrupt one stops everything", async () => {
    const member = await startInProcess();
    const { client } = member;
    const set = (action: AlarmAction, alarm: AlarmType): Promise<unknown> =>
      client.unary(MaintenanceService.Alarm, { action, alarm, memberId: 77n });
    await set(AlarmAction.ACTIVATE, AlarmType.NOSPACE);
    await assert.rejects(client.unary(KVService.Put, { key: bytes("a") }), isNoSpace);
    await set(AlarmAction.DEACTIVATE, AlarmType.NOSPACE);
    await client.unary(KVService.Put, { key: bytes("a") });
    await set(AlarmAction.ACTIVATE, AlarmType.CORRUPT);
    await assert.rejects(client.unary(KVService.Put, { key: bytes("a") }), /corrupt cluster/);
    await assert.rejects(client.unary(KVService.DeleteRange, { key: bytes("a") }), /corrupt cluster/);
    const ready = await fetch(`${member.url}/readyz`);
    assert.equal(ready.status, 503);
    assert.match(await ready.text(), /\[-\]data_corruption failed: alarm activated: CORRUPT/);
    await set(AlarmAction.DEACTIVATE, AlarmType.CORRUPT);
    await client.unary(KVService.Put, { key: bytes("a") });
    await member.close();
  });
});
