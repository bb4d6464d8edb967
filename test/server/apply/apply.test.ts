// Slow: a dozen starts of a member, each with a random history.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { WriteTxn } from "../../../src/mvcc/store/store.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmType,
  Compare_CompareResult as CompareResult,
  KVService,
  LeaseService,
  MaintenanceService,
} from "../../../src/proto/etcdserverpb.ts";
import type { Entry } from "../../../src/proto/raftpb.ts";
import { LOCAL_APPLY_THREAD } from "../../../src/raft/messages.ts";
import { RawNode } from "../../../src/raft/rawnode.ts";
import { type InProcess, startInProcess, tempDir } from "../../harness/in-process.ts";
import { seeded } from "../../harness/random.ts";
import { waitFor } from "../../harness/wait.ts";
import { bytes, compare, putOp, rangeOp, remove, removeOp, txn, valueIs } from "../requests.ts";

/** The part of the replicated state that clients can see. */
async function stateOf({ client }: InProcess): Promise<unknown> {
  const { kvs, header } = await client.unary(KVService.Range, { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) });
  const { hash, compactRevision } = await client.unary(MaintenanceService.HashKV, {});
  const { leases } = await client.unary(LeaseService.LeaseLeases, {});
  const { alarms } = await client.unary(MaintenanceService.Alarm, { action: AlarmAction.GET });
  const lives = await Promise.all(
    leases.map(async ({ id }) => {
      const { grantedTtl, keys } = await client.unary(LeaseService.LeaseTimeToLive, { id, keys: true });
      return [id, grantedTtl, keys.map(String).sort()] as const;
    }),
  );
  lives.sort(([a], [b]) => (a < b ? -1 : 1));
  return { kvs, revision: header!.revision, hash, compactRevision, lives, alarms };
}

/** Requests of every kind that clients can propose, many of which fail. */
async function act({ client, etcd }: InProcess, seed: number): Promise<void> {
  const random = seeded(seed);
  const key = (): string => `k${random.below(12)}`;
  const lease = (): bigint => BigInt(1 + random.below(4));
  const actions: (() => Promise<unknown>)[] = [
    () => client.unary(KVService.Put, { key: bytes(key()), value: bytes(`v${random.below(5)}`) }),
    () => client.unary(KVService.Put, { key: bytes(key()), lease: lease() }),
    () => client.unary(KVService.Put, { key: bytes(key()), ignoreValue: true, lease: lease() }),
    () => client.unary(KVService.Put, { key: bytes(key()), value: bytes("x"), ignoreLease: true }),
    () => client.unary(KVService.DeleteRange, remove(key())),
    () => client.unary(KVService.DeleteRange, remove("k1", `k${random.below(5)}`)),
    () =>
      client.unary(
        KVService.Txn,
        txn([putOp(key(), "yes"), rangeOp("k", "l")], [removeOp(key())], [valueIs(key(), "v1")]),
      ),
    () =>
      client.unary(
        KVService.Txn,
        txn(
          [putOp(key(), "all new"), removeOp("k1", `k${random.below(12)}`, { prevKv: true })],
          [putOp(key(), "some old")],
          [compare("k", { rangeEnd: bytes("l"), result: CompareResult.GREATER, version: 1 + random.below(3) })],
        ),
      ),
    () => client.unary(LeaseService.LeaseGrant, { id: lease(), ttl: 1000 + random.below(1000) }),
    () => client.unary(LeaseService.LeaseRevoke, { id: lease() }),
    () =>
      client.unary(KVService.Compact, { revision: Math.max(1, etcd.server.store.currentRevision - random.below(10)) }),
    () =>
      client.unary(MaintenanceService.Alarm, { action: AlarmAction.ACTIVATE, alarm: AlarmType.NOSPACE, memberId: 3n }),
    () =>
      client.unary(MaintenanceService.Alarm, {
        action: AlarmAction.DEACTIVATE,
        alarm: AlarmType.NOSPACE,
        memberId: 3n,
      }),
  ];
  for (let i = 0; i < 400; i++) {
    // Alarms stop most other requests, so they are rare and disarmed at once.
    const choice = random.chance(0.02) ? 11 : random.below(11);
    await actions[choice]!().catch(() => {});
    if (choice === 11 && random.chance(0.8)) await actions[12]!();
  }
}

test("the log alone restores the same state, whatever part of it the database had", async () => {
  for (const seed of [1, 2, 3]) {
    const dir = tempDir();
    const dataDir = join(dir.path, "data");
    const dbPath = join(dataDir, "member", "snap", "db");
    // The limit of a turn does not change what is applied.
    const member = await startInProcess({ dataDir, server: { applySlice: { rows: seed, bytes: 1000 } } });
    await act(member, seed);
    await member.etcd.server.replication.backend.commit();
    fs.cpSync(dbPath, join(dir.path, "half"), { recursive: true });
    await act(member, seed + 100);
    const expected = await stateOf(member);
    await member.close();
    for (const source of [dbPath, join(dir.path, "half"), undefined]) {
      if (source !== dbPath) fs.rmSync(dbPath, { recursive: true });
      if (source !== dbPath && source !== undefined) fs.cpSync(source, dbPath, { recursive: true });
      const again = await startInProcess({ dataDir });
      assert.deepEqual(await stateOf(again), expected, `seed ${seed}, database ${source ?? "lost"}`);
      await again.close();
      assert.deepEqual(again.failures, []);
    }
    dir.remove();
  }
});

test("a restart does not repeat the reads of a transaction, and reaches the same revision", async (t) => {
  const dir = tempDir();
  const dataDir = join(dir.path, "data");
  const dbPath = join(dataDir, "member", "snap", "db");
  const member = await startInProcess({ dataDir });
  for (const key of ["a", "b", "c"]) await member.client.unary(KVService.Put, { key: bytes(key) });
  await member.etcd.server.replication.backend.commit();
  fs.cpSync(dbPath, join(dir.path, "before"), { recursive: true });
  const asked = txn([putOp("a", "1", { prevKv: true }), rangeOp("a", "z"), removeOp("b", "", { prevKv: true })]);
  const answer = await member.client.unary(KVService.Txn, asked);
  assert.equal(answer.responses[1]!.responseRange!.kvs.length, 3);
  await member.close();
  fs.rmSync(dbPath, { recursive: true });
  fs.cpSync(join(dir.path, "before"), dbPath, { recursive: true });

  const reads = (["range", "rangeKeys", "rangeDecoded"] as const).map((name) =>
    t.mock.method(WriteTxn.prototype, name),
  );
  const restarted = await startInProcess({ dataDir });
  assert.equal(restarted.etcd.server.store.currentRevision, answer.header!.revision);
  assert.deepEqual(
    reads.map(({ mock }) => mock.callCount()),
    [0, 0, 0],
  );
  await restarted.close();
  dir.remove();
});

test("an entry that is not the next one, or of an earlier term, ends the member before it is applied", async () => {
  const changes = [
    ["entries are applied one by one", () => []],
    ["terms never fall along the log", (entries: Entry[]) => entries.map((entry) => ({ ...entry, term: 0 }))],
  ] as const;
  for (const [rule, change] of changes) {
    const member = await startInProcess();
    const { ready } = RawNode.prototype;
    let isChanged = false;
    RawNode.prototype.ready = function () {
      const next = ready.call(this);
      const apply = next.messages.find(({ to }) => to === LOCAL_APPLY_THREAD);
      if (apply !== undefined && !isChanged) {
        isChanged = true;
        apply.entries = change(apply.entries);
      }
      return next;
    };
    try {
      for (const key of ["a", "b"]) {
        void member.client.unary(KVService.Put, { key: bytes(key) }).catch(() => {});
        await waitFor("the first is changed", () => isChanged);
      }
      await waitFor("the member fails", () => member.failures.length > 0);
      assert.equal((member.failures[0] as Error).message.slice(0, rule.length), rule);
    } finally {
      RawNode.prototype.ready = ready;
      await member.close();
    }
  }
});
