// Slow: requests that read and delete tens of thousands of keys.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { toByteString } from "../../../src/mvcc/model/types.ts";
import { WriteTxn } from "../../../src/mvcc/store/store.ts";
import {
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  DeleteRangeRequest,
  KVService,
  LeaseService,
  MaintenanceService,
  WatchCreateRequest,
  type WatchResponse,
  WatchService,
} from "../../../src/proto/etcdserverpb.ts";
import { Op } from "../../../src/server/log/op.ts";
import type { EtcdServer } from "../../../src/server/server.ts";
import { type InProcess, startInProcess, tempDir } from "../../harness/in-process.ts";
import { put as putInto, ServerCluster } from "../../harness/server-cluster.ts";
import { bytes, compare, put, putOp, range, rangeOp, remove, removeOp, text, txn, txnOp } from "../requests.ts";

const ROWS = 5;
const KEYS = 200;

async function fill({ client }: InProcess, count = KEYS): Promise<void> {
  for (let i = 0; i < count; i += 100) {
    const ops = Array.from({ length: Math.min(100, count - i) }, (_, j) =>
      putOp(`k/${String(i + j).padStart(4, "0")}`, "v"),
    );
    await client.unary(KVService.Txn, txn(ops));
  }
}

/** Resolves when a long transaction is in progress, with its state. */
async function halfway(server: EtcdServer): Promise<void> {
  await waitForTurn(
    "something is applied in slices",
    () => server.replication.committedIndex > server.replication.appliedIndex,
  );
  for (let i = 0; i < 5; i++) await turn();
  assert.ok(server.replication.committedIndex > server.replication.appliedIndex, "it is not over yet");
}

async function waitForTurn(what: string, condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    if (i > 1_000_000) throw new Error(`did not happen: ${what}`);
    await turn();
  }
}

/** Stops the application in progress, as if the disk accepted no more, until the returned function is called. */
function hold({ replication: { backend } }: EtcdServer): () => void {
  let release = (): void => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  Object.defineProperty(backend, "hasRoom", { value: false, configurable: true });
  Object.defineProperty(backend, "roomLeft", { value: () => released, configurable: true });
  return () => {
    Reflect.deleteProperty(backend, "hasRoom");
    Reflect.deleteProperty(backend, "roomLeft");
    release();
  };
}

/** Counts the keys that each turn of the event loop deletes. */
function countPerTurn(t: TestContext): { readonly most: number; readonly turns: number } {
  let most = 0;
  let turns = 0;
  let now = 0;
  let isCounting = false;
  const { deleteSlice } = WriteTxn.prototype;
  t.mock.method(WriteTxn.prototype, "deleteSlice", function (this: WriteTxn, ...args: Parameters<typeof deleteSlice>) {
    const countBefore = this.changeCount;
    const next = deleteSlice.apply(this, args);
    now += this.changeCount - countBefore;
    most = Math.max(most, now);
    if (!isCounting) {
      isCounting = true;
      turns++;
      setImmediate(() => {
        now = 0;
        isCounting = false;
      });
    }
    return next;
  });
  return {
    get most() {
      return most;
    },
    get turns() {
      return turns;
    },
  };
}

describe("a deletion of more keys than fit into one turn", () => {
  let member: InProcess;
  before(async () => {
    member = await startInProcess({ server: { applySlice: { rows: ROWS, bytes: 10_000 } } });
  });
  after(async () => {
    await member.close();
    assert.deepEqual(member.failures, []);
  });

  test("deletes a few in each turn, and all of them at one revision", async (t) => {
    const { client } = member;
    await fill(member);
    const counted = countPerTurn(t);
    const { deleted, header } = await client.unary(KVService.DeleteRange, remove("k/", "k0"));
    assert.equal(deleted, KEYS);
    assert.ok(counted.most <= ROWS, `${counted.most} in one turn`);
    assert.ok(counted.turns >= KEYS / ROWS);
    const { count } = await client.unary(KVService.Range, range("k/", "k0", { countOnly: true }));
    assert.equal(count, 0);
    const before = { revision: header!.revision - 1 };
    assert.equal((await client.unary(KVService.Range, range("k/", "k0", before))).kvs.length, KEYS);
  });

  test("delays neither reads, which see the state before it, nor new leases' renewals and watches", async () => {
    const { client, etcd } = member;
    await fill(member);
    const revision = etcd.server.store.currentRevision;
    const lease = await client.unary(LeaseService.LeaseGrant, { id: 0n, ttl: 60 });
    const watch = client.stream(WatchService.Watch);
    const deletion = client.unary(KVService.DeleteRange, remove("k/", "k0"));
    await halfway(etcd.server);
    const answers = await Promise.all([
      client.unary(KVService.Range, range("k/", "k0", { countOnly: true })),
      client.unary(KVService.Range, range("k/", "k0", { serializable: true })),
      client.unary(KVService.Range, range("k/0000")),
      client.unary(KVService.Txn, txn([rangeOp("k/0199")])),
    ]);
    const [counted, listed, first, read] = answers;
    assert.ok(
      etcd.server.replication.committedIndex > etcd.server.replication.appliedIndex,
      "all that was answered meanwhile",
    );
    assert.deepEqual([counted.count, listed.kvs.length, first.count], [KEYS, KEYS, 1]);
    assert.equal(read.responses[0]!.responseRange!.kvs.length, 1);
    assert.equal(counted.header!.revision, revision);
    assert.equal(etcd.server.store.keyCount, KEYS);
    const { ttl } = await client.unary(LeaseService.LeaseTimeToLive, { id: lease.id });
    assert.ok(ttl > 0);
    watch.send({ createRequest: WatchCreateRequest.create({ key: bytes("behind") }) });
    const behind = client.unary(KVService.Put, put("behind"));
    assert.equal((await deletion).header!.revision, revision + 1);
    assert.equal((await behind).header!.revision, revision + 2, "what stands behind it comes after it");
    assert.equal(etcd.server.store.keyCount, 1);
    watch.end();
    await client.unary(KVService.DeleteRange, remove("behind"));
  });

  test("returns what it deleted, when requested", async () => {
    await fill(member);
    const { deleted, prevKvs } = await member.client.unary(KVService.DeleteRange, remove("k/", "k0", { prevKv: true }));
    assert.equal(deleted, KEYS);
    assert.deepEqual([prevKvs.length, text(prevKvs[KEYS - 1]!.key)], [KEYS, "k/0199"]);
  });

  test("a watcher gets all of it at once, with its revision", async () => {
    const { client } = member;
    await fill(member);
    const watch = client.stream(WatchService.Watch);
    const responses = watch[Symbol.asyncIterator]();
    watch.send({ createRequest: WatchCreateRequest.create({ key: bytes("k/"), rangeEnd: bytes("k0") }) });
    assert.equal(((await responses.next()).value as WatchResponse).created, true);
    const { header } = await client.unary(KVService.DeleteRange, remove("k/", "k0"));
    const { events } = (await responses.next()).value as WatchResponse;
    assert.deepEqual([events.length, text(events[7]!.kv!.key)], [KEYS, "k/0007"]);
    assert.ok(events.every(({ kv }) => kv!.modRevision === header!.revision));
    watch.end();
  });

  test("comparisons of ranges end at the first key that decides, and are sliced like everything else", async () => {
    const { client } = member;
    await fill(member);
    const { EQUAL, GREATER } = CompareResult;
    const all = { rangeEnd: bytes("k0") };
    const newer = { target: CompareTarget.MOD, result: GREATER, modRevision: 0, ...all };
    const same = { target: CompareTarget.VALUE, result: EQUAL, value: bytes("v"), ...all };
    const other = { target: CompareTarget.VALUE, result: EQUAL, value: bytes("w"), ...all };
    const none = { target: CompareTarget.VERSION, result: EQUAL, version: 0, rangeEnd: bytes("none0") };
    const decide = async (...compares: ReturnType<typeof compare>[]): Promise<boolean> =>
      (await client.unary(KVService.Txn, txn([putOp("x")], [putOp("x")], compares))).succeeded;
    assert.equal(await decide(compare("k/", newer), compare("k/", same), compare("none", none)), true);
    assert.equal(await decide(compare("k/", newer), compare("k/", other)), false);
    const both = txn([txnOp(txn([removeOp("k/", "k/01")], [], [compare("k/", same)])), putOp("x", "2")]);
    const response = await client.unary(KVService.Txn, both);
    assert.equal(response.responses[0]!.responseTxn!.responses[0]!.responseDeleteRange!.deleted, 100);
    assert.equal((await client.unary(KVService.Range, range("x"))).kvs[0]!.modRevision, response.header!.revision);
    await client.unary(KVService.DeleteRange, remove("\0", "\0"));
  });

  test("a view of the backend requested in the middle is complete", async () => {
    const { client, etcd } = member;
    await fill(member);
    const deletion = client.unary(KVService.DeleteRange, remove("k/", "k0"));
    await halfway(etcd.server);
    const [view, hash] = await Promise.all([
      etcd.server.replication.backend.snapshot(),
      client.unary(MaintenanceService.HashKV, {}),
    ]);
    let rows = 0;
    const { revision } = (await deletion).header!;
    view.forEachRevision(revision, 0, (main) => main === revision && ++rows > 0);
    view.close();
    assert.equal(rows, KEYS);
    assert.equal(hash.hashRevision, revision - 1, "as of when it was asked for");
  });

  const others: [string, number][] = [
    ["and no others between them", 0],
    ["and few others between them", 40],
    ["and many others between them", 600],
  ];
  for (const [what, count] of others)
    test(`a lease with many keys ${what} takes them with it at one revision`, async () => {
      const { client } = member;
      const { id } = await client.unary(LeaseService.LeaseGrant, { id: 0n, ttl: 60 });
      const keys = Array.from({ length: 100 }, (_, i) => `l/${(i * 37) % 100}`);
      await client.unary(KVService.Txn, txn(keys.map((key) => putOp(key, "", { lease: id }))));
      for (let i = 0; i < count; i += 100) {
        const ops = Array.from({ length: Math.min(100, count - i) }, (_, j) => putOp(`l/${(i + j) % 100}/${i}`));
        await client.unary(KVService.Txn, txn(ops));
      }
      const { header } = await client.unary(LeaseService.LeaseRevoke, { id });
      const watch = client.stream(WatchService.Watch);
      const responses = watch[Symbol.asyncIterator]();
      watch.send({
        createRequest: WatchCreateRequest.create({
          key: bytes("l/"),
          rangeEnd: bytes("l0"),
          startRevision: header!.revision,
        }),
      });
      await responses.next();
      const { events } = (await responses.next()).value as WatchResponse;
      assert.deepEqual(
        events.map(({ kv }) => text(kv!.key)),
        keys.sort(),
      );
      const { lessor } = member.etcd.server;
      for (const key of keys) assert.equal(lessor.leaseOf(toByteString(bytes(key))), 0n, key);
      const rest = await client.unary(KVService.DeleteRange, remove("l/", "l0"));
      assert.equal(rest.deleted, count);
      assert.equal(
        (await client.unary(LeaseService.LeaseLeases, {})).leases.some((lease) => lease.id === id),
        false,
      );
      watch.end();
    });
});

test("no turn ends with the deletions of a lease's keys half made, however near their number is to a slice", async () => {
  for (const keys of [80, 90, 95, 99, 100]) {
    const member = await startInProcess({ server: { applySlice: { rows: 100, bytes: 1e6, turnMs: 0 } } });
    try {
      const { client } = member;
      const { store } = member.etcd.server;
      const { id } = await client.unary(LeaseService.LeaseGrant, { id: 0n, ttl: 60 });
      await client.unary(
        KVService.Txn,
        txn(Array.from({ length: keys }, (_, i) => putOp(`l/${i}`, "", { lease: id }))),
      );
      const before = store.currentRevision;
      let isOver = false;
      const over = client.unary(LeaseService.LeaseRevoke, { id }).finally(() => (isOver = true));
      while (!isOver) {
        const expected = store.currentRevision === before ? keys : 0;
        assert.equal(store.countLive(bytes("l/"), bytes("l0")), expected, `of ${keys}`);
        await turn();
      }
      await over;
      assert.equal(store.currentRevision, before + 1);
    } finally {
      await member.close();
    }
    assert.deepEqual(member.failures, []);
  }
});

test("a crash in the middle of a deletion leaves all or nothing of it, and the log restores all", async () => {
  const dir = tempDir();
  const dataDir = join(dir.path, "data");
  const member = await startInProcess({ dataDir, server: { applySlice: { rows: ROWS, bytes: 10_000 } } });
  await fill(member);
  const deletion = member.client.unary(KVService.DeleteRange, remove("k/", "k0"));
  await halfway(member.etcd.server);
  const release = hold(member.etcd.server);
  // The state after a crash: the log, and a database that holds a part.
  await member.etcd.server.replication.backend.commit();
  const crashed = join(dir.path, "crashed");
  fs.cpSync(dataDir, crashed, { recursive: true });
  release();
  const { header } = await deletion;
  await member.client.unary(KVService.Put, put("after"));
  const { hash } = await member.client.unary(MaintenanceService.HashKV, { revision: header!.revision });
  await member.close();

  const again = await startInProcess({ dataDir: crashed });
  assert.ok(again.logger.lines.some(({ message }) => message.includes("unfinished")));
  assert.equal(again.etcd.server.store.currentRevision, header!.revision);
  assert.equal(again.etcd.server.store.keyCount, 0);
  assert.equal((await again.client.unary(MaintenanceService.HashKV, {})).hash, hash);
  await again.close();
  assert.deepEqual([...member.failures, ...again.failures], []);
  dir.remove();
});

test("a crash in the middle of a transaction with many puts leaves all or nothing of it, and the log restores all", async (t) => {
  const dir = tempDir();
  const dataDir = join(dir.path, "data");
  const server = { maxTxnOps: 1000, applySlice: { rows: ROWS, bytes: 10_000, turnMs: 0 } };
  const member = await startInProcess({ dataDir, server });
  const puts = (value: string) => txn(Array.from({ length: 600 }, (_, i) => putOp(`k/${i}`, value)));
  await member.client.unary(KVService.Txn, puts("first"));
  const written = t.mock.method(WriteTxn.prototype, "put");
  const asked = member.client.unary(KVService.Txn, puts("second"));
  await waitForTurn("some are written", () => written.mock.callCount() >= 10 * ROWS);
  assert.ok(written.mock.callCount() < 600, "it is not over yet");
  const release = hold(member.etcd.server);
  await member.etcd.server.replication.backend.commit();
  const crashed = join(dir.path, "crashed");
  fs.cpSync(dataDir, crashed, { recursive: true });
  release();
  const { header } = await asked;
  const { hash } = await member.client.unary(MaintenanceService.HashKV, {});
  await member.close();

  const again = await startInProcess({ dataDir: crashed, server });
  assert.ok(again.logger.lines.some(({ message }) => message.includes("unfinished")));
  assert.equal(again.etcd.server.store.currentRevision, header!.revision);
  assert.equal((await again.client.unary(MaintenanceService.HashKV, {})).hash, hash);
  await again.close();
  assert.deepEqual([...member.failures, ...again.failures], []);
  dir.remove();
});

test("a member that stops in the middle of a deletion does not wait for it, and completes it when it comes back", async () => {
  const dir = tempDir();
  const dataDir = join(dir.path, "data");
  const member = await startInProcess({ dataDir, server: { applySlice: { rows: 1, bytes: 10_000 } } });
  await fill(member, 1000);
  const deletion = member.client.unary(KVService.DeleteRange, remove("k/", "k0")).catch(() => undefined);
  await halfway(member.etcd.server);
  hold(member.etcd.server);
  const view = member.etcd.server.replication.backend.snapshot();
  view.catch(() => {});
  await member.close();
  await deletion;
  await assert.rejects(view, { code: "ERR_BACKEND_CLOSED" });
  const again = await startInProcess({ dataDir });
  assert.equal(again.etcd.server.store.keyCount, 0);
  await again.close();
  assert.deepEqual([...member.failures, ...again.failures], []);
  dir.remove();
});

test("three members keep their leader through a long deletion, and end in the same state", async () => {
  const cluster = await ServerCluster.start(3, { applySlice: { rows: ROWS, bytes: 10_000 } });
  try {
    const leader = await cluster.leader();
    const { term } = leader.replication;
    await Promise.all(Array.from({ length: 3000 }, (_, i) => putInto(leader, `k/${i}`, "v")));
    const request = remove("k/", "k0");
    const follower = await cluster.follower();
    const outcome = await follower.request(Op.DELETE_RANGE, request, DeleteRangeRequest.encode(request));
    assert.equal((outcome as { deleted: number }).deleted, 3000);
    await putInto(follower, "after", "1");
    assert.equal(new Set(await cluster.hashes()).size, 1);
    assert.equal((await cluster.leader()).replication.term, term);
  } finally {
    await cluster.close();
  }
  for (const { name, failures } of cluster.nodes.values()) assert.deepEqual(failures, [], name);
});
