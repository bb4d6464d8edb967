import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { nullLogger } from "../../src/base/log.ts";
import { type ByteString, FROM_KEY } from "../../src/mvcc/model/types.ts";
import { MvccStore } from "../../src/mvcc/store/store.ts";
import { KVService, LeaseService, MaintenanceService, RequestOp } from "../../src/proto/etcdserverpb.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import { requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { seeded } from "../harness/random.ts";
import { startServer } from "../harness/server.ts";

// KVORUM_STOCK_ETCD chooses another stock etcd than the one on PATH, KVORUM_SEED another history.
const seed = Number(process.env["KVORUM_SEED"] ?? 1);

test("HashKV equals stock etcd's for the same history, before and after compactions", {
  skip: requireStockEtcd(),
}, async () => {
  const server = await startServer(stockEtcd());
  const backend = new MemoryBackend({ clock: systemClock });
  const attached = new Map<ByteString, bigint>();
  const store = await MvccStore.open({
    backend,
    clock: systemClock,
    logger: nullLogger,
    compactionSleepMs: 0,
    leases: {
      isEmpty: false,
      leaseOf: (key) => attached.get(key) ?? 0n,
      attach(lease, key) {
        attached.set(key, lease);
        return true;
      },
      detach: (_lease, key) => void attached.delete(key),
    },
  });
  try {
    const { client } = server;
    const { version } = await client.unary(MaintenanceService.Status, {});
    // Since 3.5.6 HashKV of a compacted revision is the hash that the compaction computed.
    const storesHashes = !version.startsWith("3.4.");
    const random = seeded(seed);
    await client.unary(LeaseService.LeaseGrant, { id: 77n, ttl: 36_000 });
    const compacted: number[] = [];
    for (let step = 0; step < 500; step++) {
      await writeBoth(step);
      if (step % 25 === 24) await compareHashes(10);
      if (step % 100 === 99) await compactBoth();
    }
    await compareHashes(200);
    assert.ok(compacted.length > 2);
    // Where no key is left, the hash covers what the last compaction left.
    await deleteAllOfBoth();
    await compareHashes(20);
    await compactBoth();
    await compareHashes(20);
    await deleteAllOfBoth();
    await compareHashes(20);

    async function deleteAllOfBoth(): Promise<void> {
      const last = Buffer.from("last");
      await client.unary(KVService.Put, { key: last, value: last });
      await client.unary(KVService.DeleteRange, { key: FROM_KEY, rangeEnd: FROM_KEY });
      for (const change of ["put", "delete"]) {
        const txn = store.begin();
        if (change === "put") txn.put(last, last, 0n);
        else txn.deleteRange(FROM_KEY, FROM_KEY);
        txn.end();
      }
    }

    async function writeBoth(step: number): Promise<void> {
      if (random.chance(0.02)) {
        const key = Buffer.from("key3");
        await client.unary(KVService.DeleteRange, { key, rangeEnd: FROM_KEY });
        const txn = store.begin();
        txn.deleteRange(key, FROM_KEY);
        txn.end();
        return;
      }
      const ops: RequestOp[] = [];
      const keys = new Set<string>();
      const txn = store.begin();
      for (let n = random.below(4); n >= 0; n--) {
        const key = Buffer.from(`key${random.below(40)}`);
        if (keys.has(String(key))) continue;
        keys.add(String(key));
        if (random.chance(0.65)) {
          const value = Buffer.alloc(random.below(200), `${step}`);
          const lease = random.chance(0.2) ? 77n : 0n;
          ops.push(
            RequestOp.create({
              requestPut: { key, value, lease, prevKv: false, ignoreLease: false, ignoreValue: false },
            }),
          );
          txn.put(key, value, lease);
        } else {
          ops.push(RequestOp.create({ requestDeleteRange: { key, rangeEnd: Buffer.alloc(0), prevKv: false } }));
          txn.deleteRange(key, null);
        }
      }
      txn.end();
      const response = await client.unary(KVService.Txn, { success: ops });
      assert.equal(store.currentRevision, response.header?.revision);
    }

    async function compareHashes(count: number): Promise<void> {
      const low = Math.max(1, store.compactRevision);
      for (let i = 0; i < count; i++) {
        const revision = i === 0 ? 0 : low + random.below(store.currentRevision - low + 1);
        if (!storesHashes && compacted.includes(revision)) continue;
        const theirs = await client.unary(MaintenanceService.HashKV, { revision });
        const ours = await store.hashKv(revision);
        assert.deepEqual(
          [revision, ours.hash, ours.compactRevision, ours.currentRevision],
          [revision, theirs.hash, theirs.compactRevision, theirs.header?.revision],
        );
        if (theirs.hashRevision !== 0) assert.equal(ours.hashRevision, theirs.hashRevision);
      }
    }

    async function compactBoth(): Promise<void> {
      const low = Math.max(1, store.compactRevision + 1);
      const revision = low + random.below(store.currentRevision - low + 1);
      await client.unary(KVService.Compact, { revision, physical: true });
      await store.compact(revision);
      compacted.push(revision);
    }
  } finally {
    await server.close();
    await store.close();
    await backend.close();
  }
});
