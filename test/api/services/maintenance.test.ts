import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { ClusterService, KVService, MaintenanceService } from "../../../src/proto/etcdserverpb.ts";
import { type InProcess, startInProcess } from "../../harness/in-process.ts";
import { bytes } from "../../server/requests.ts";

describe("the services Maintenance and Cluster", () => {
  let server: InProcess;
  before(async () => {
    server = await startInProcess({ server: { advertiseClientUrls: ["http://one:1", "http://two:2"] } });
  });
  after(async () => {
    await server.close();
    assert.deepEqual(server.failures, []);
  });

  test("status reports versions, sizes, leader, and raft's term and indexes", async () => {
    await server.client.unary(KVService.Put, { key: bytes("a"), value: Buffer.alloc(100_000) });
    await server.etcd.server.replication.backend.commit();
    const { header, ...status } = await server.client.unary(MaintenanceService.Status, {});
    const { server: member } = server.etcd;
    assert.equal(header!.revision, 2);
    assert.equal(status.version, "3.7.1");
    assert.equal(status.storageVersion, "3.7.0");
    assert.equal(status.leader, member.memberId);
    assert.equal(status.raftTerm, member.replication.term);
    assert.equal(status.raftIndex, member.replication.committedIndex);
    assert.equal(status.raftAppliedIndex, status.raftIndex);
    assert.ok(status.dbSize >= status.dbSizeInUse && status.dbSizeInUse > 100_000);
    assert.equal(status.dbSizeQuota, 2 * 1024 ** 3);
    assert.deepEqual([status.isLearner, status.errors, status.downgradeInfo!.enabled], [false, [], false]);
  });

  test("the member list has this one, and no revision of the store", async () => {
    for (const linearizable of [true, false]) {
      const { header, members } = await server.client.unary(ClusterService.MemberList, { linearizable });
      assert.equal(header!.revision, 0);
      assert.equal(header!.memberId, server.etcd.server.memberId);
      const [member] = members;
      assert.deepEqual(
        [members.length, member!.id, member!.name, member!.peerUrls, member!.clientUrls, member!.isLearner],
        [1, server.etcd.server.memberId, "default", ["http://localhost:2380"], ["http://one:1", "http://two:2"], false],
      );
    }
  });

  test("a snapshot is a database, then its sha256, with the remaining bytes counted down", async () => {
    const stream = server.client.stream(MaintenanceService.Snapshot);
    await stream.send({});
    stream.end();
    const blobs: Uint8Array[] = [];
    const remaining: number[] = [];
    for await (const { blob, remainingBytes, version } of stream) {
      blobs.push(blob);
      remaining.push(remainingBytes);
      assert.equal(version, "3.7.0");
    }
    const sum = blobs.pop()!;
    remaining.pop();
    const database = Buffer.concat(blobs);
    assert.equal(createHash("sha256").update(database).digest("hex"), Buffer.from(sum).toString("hex"));
    assert.equal(remaining.at(-1), 0);
    assert.ok(remaining.every((left, i) => i === 0 || left < remaining[i - 1]!));
    assert.equal(database.readUInt32LE(16), 0xed0cdaed, "the magic number of bbolt");
  });

  test("hashes change with the data, and a hash of a revision does not change later", async () => {
    const { revision } = (await server.client.unary(KVService.Put, { key: bytes("h"), value: bytes("1") })).header!;
    const at = () => server.client.unary(MaintenanceService.HashKV, { revision });
    const first = await at();
    assert.equal(first.hashRevision, revision);
    const whole = await server.client.unary(MaintenanceService.Hash, {});
    await server.client.unary(KVService.Put, { key: bytes("h"), value: bytes("2") });
    assert.equal((await at()).hash, first.hash);
    assert.notEqual((await server.client.unary(MaintenanceService.HashKV, {})).hash, first.hash);
    assert.notEqual((await server.client.unary(MaintenanceService.Hash, {})).hash, whole.hash);
  });

  test("defragmentation frees space while reads and writes continue", async () => {
    const value = Buffer.alloc(200_000, 1);
    for (let i = 0; i < 50; i++) await server.client.unary(KVService.Put, { key: bytes("d"), value });
    const { header } = await server.client.unary(KVService.DeleteRange, { key: bytes("d") });
    await server.client.unary(KVService.Compact, { revision: header!.revision, physical: true });
    const before = await server.client.unary(MaintenanceService.Status, {});
    const [, , ...puts] = await Promise.all([
      server.client.unary(MaintenanceService.Defragment, {}),
      server.client.unary(MaintenanceService.Defragment, {}),
      ...Array.from({ length: 50 }, (_, i) => server.client.unary(KVService.Put, { key: bytes(`during${i}`) })),
    ]);
    assert.equal(puts.length, 50);
    const after = await server.client.unary(MaintenanceService.Status, {});
    assert.ok(after.dbSize < before.dbSize / 2, `${before.dbSize} became ${after.dbSize}`);
    const { count } = await server.client.unary(KVService.Range, { key: bytes("during"), rangeEnd: bytes("durinh") });
    assert.equal(count, 50);
  });

  test("leadership cannot move to a member that does not exist", async () => {
    await assert.rejects(
      server.client.unary(MaintenanceService.MoveLeader, { targetId: 1n }),
      /etcdserver: bad leader transferee/,
    );
  });
});
