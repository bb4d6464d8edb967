import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { LeaseGrantRequest } from "../../src/proto/etcdserverpb.ts";
import { EtcdError, errors } from "../../src/server/contract/errors.ts";
import { Op } from "../../src/server/log/op.ts";
import type { EtcdServer } from "../../src/server/server.ts";
import { get, put, ServerCluster } from "../harness/server-cluster.ts";
import { patience, waitFor } from "../harness/wait.ts";

async function grant(server: EtcdServer, id: bigint, ttl: number): Promise<void> {
  const request = LeaseGrantRequest.create({ id, ttl });
  const outcome = await server.request(Op.LEASE_GRANT, request, LeaseGrantRequest.encode(request));
  if (outcome instanceof EtcdError) throw outcome;
}

describe("the leadership", () => {
  let cluster: ServerCluster;

  afterEach(async () => {
    await cluster.close();
    for (const { name, failures } of cluster.nodes.values()) assert.deepEqual(failures, [], name);
  });

  test("is transferred to the named member, while puts continue", async () => {
    cluster = await ServerCluster.start(3);
    const from = await cluster.leader();
    const to = await cluster.follower();
    let writing = true;
    const written: string[] = [];
    const writers = cluster.running.map(async (server, i) => {
      for (let n = 0; writing; n++) {
        await put(server, `w${i}/${n}`, "v");
        written.push(`w${i}/${n}`);
      }
    });
    await waitFor("puts go through", () => written.length > 20);
    assert.equal(await from.leaderTransfer.moveTo(to.memberId), undefined);
    const count = written.length;
    await waitFor("puts go on", () => written.length > count + 20);
    writing = false;
    await Promise.all(writers);
    assert.equal((await cluster.leader()).memberId, to.memberId);
    for (const key of written) assert.equal(await get(from, key), "v");
  });

  test("is not transferred to a member that could not take it", async () => {
    cluster = await ServerCluster.start(3);
    const leader = await cluster.leader();
    assert.equal(await leader.leaderTransfer.moveTo(99n), errors.badLeaderTransferee);
    assert.equal(await leader.leaderTransfer.moveTo(leader.memberId), undefined);
    const dead = await cluster.follower();
    await cluster.stopNode(cluster.nameOf(dead), "crash");
    let cancelled = false;
    const moved = leader.leaderTransfer.moveTo(dead.memberId, () => cancelled);
    cancelled = true;
    assert.equal(await moved, errors.timeoutLeaderTransfer);
    await put(leader, "a", "1");
  });

  test("is transferred by a leader that stops, so that no election is needed", async () => {
    cluster = await ServerCluster.start(3, { electionTicks: 100 });
    const leader = await cluster.leader();
    await put(leader, "a", "1");
    const began = performance.now();
    await cluster.stopNode(cluster.nameOf(leader));
    await put(await cluster.leader(), "a", "2");
    assert.ok(performance.now() - began < patience(1000), "an election timeout");
    assert.ok(cluster.nodes.get(cluster.nameOf(leader))!.logger.has("leadership transfer finished"));
  });

  test("cannot be transferred when no member is there, which delays nothing", async () => {
    cluster = await ServerCluster.start(3);
    const leader = await cluster.leader();
    for (const server of cluster.running) {
      if (server !== leader) await cluster.stopNode(cluster.nameOf(server), "crash");
    }
    await cluster.stopNode(cluster.nameOf(leader));
    assert.ok(cluster.nodes.get(cluster.nameOf(leader))!.logger.has("leadership transfer failed"));
  });

  test("decides where leases expire: only there, and at a new leader only after their full time", async () => {
    cluster = await ServerCluster.start(3, { electionTicks: 10 });
    const first = await cluster.leader();
    await grant(first, 7n, 2);
    await cluster.converged();
    for (const server of cluster.running) assert.equal(server.lessor.primary, server === first);
    await waitFor("a part of its time is gone", () => first.lessor.lookup(7n)!.expiryMs - performance.now() < 1000);
    const next = await cluster.follower();
    assert.equal(await first.leaderTransfer.moveTo(next.memberId), undefined);
    await waitFor("the new leader has the leases", () => next.lessor.primary);
    const began = performance.now();
    assert.equal(first.lessor.primary, false);
    await waitFor("the lease is gone everywhere", () =>
      cluster.running.every(({ lessor }) => lessor.lookup(7n) === undefined),
    );
    assert.ok(performance.now() - began > 1500, "it was restarted");
    assert.equal(next.metrics.leasesExpired, 1);
    for (const server of cluster.running) if (server !== next) assert.equal(server.metrics.leasesExpired, 0);
  });

  test("is reported missing to clients that require a leader", async () => {
    cluster = await ServerCluster.start(3, { electionTicks: 10 });
    const leader = await cluster.leader();
    let lost = 0;
    leader.onLeaderLost(() => lost++);
    for (const server of cluster.running) if (server !== leader) cluster.hub.cut(server.memberId);
    await waitFor("no leader", () => leader.replication.leader === 0n);
    await waitFor("streams are ended", () => lost > 0);
    for (const server of cluster.running) cluster.hub.mend(server.memberId);
    await cluster.leader();
  });
});
