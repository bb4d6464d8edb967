// Slow: clusters of members that fail, come back and elect leaders, in real time.
import assert from "node:assert/strict";
import { cpSync, rmSync } from "node:fs";
import { afterEach, describe, test } from "node:test";
import { MessageType } from "../../src/proto/raftpb.ts";
import { errors } from "../../src/server/contract/errors.ts";
import { get, put, ServerCluster, serializableGet } from "../harness/server-cluster.ts";
import { waitFor } from "../harness/wait.ts";

describe("three members, of which some fail,", () => {
  let cluster: ServerCluster;

  afterEach(async () => {
    await cluster.close();
    for (const { name, failures } of cluster.nodes.values()) assert.deepEqual(failures, [], name);
  });

  test("elect another leader when theirs is lost, and keep every acknowledged put", async () => {
    cluster = await ServerCluster.start(3);
    const first = await cluster.leader();
    for (let i = 0; i < 50; i++) await put(first, `k${i}`, "v");
    await cluster.stopNode(cluster.nameOf(first), "crash");
    const second = await cluster.leader();
    assert.notEqual(second.memberId, first.memberId);
    for (let i = 0; i < 50; i++) assert.equal(await get(second, `k${i}`), "v");
    await put(second, "after", "1");
    const back = await cluster.startNode(cluster.nameOf(first));
    await back.ready;
    assert.equal(await get(back, "after"), "1");
    assert.equal(new Set(await cluster.hashes()).size, 1);
  });

  test("come back one after the other on their stored data, under writes", async () => {
    cluster = await ServerCluster.start(3);
    let count = 0;
    for (const name of ["m1", "m2", "m3"]) {
      await cluster.stopNode(name);
      const leader = await cluster.leader();
      for (let i = 0; i < 20; i++) await put(leader, `k${count++}`, name);
      await (await cluster.startNode(name)).ready;
    }
    const leader = await cluster.leader();
    for (let i = 0; i < count; i++) assert.notEqual(await get(leader, `k${i}`), undefined);
    assert.equal(new Set(await cluster.hashes()).size, 1);
  });

  test("all come back after all were stopped", async () => {
    cluster = await ServerCluster.start(3);
    await put(await cluster.leader(), "a", "1");
    for (const name of cluster.nodes.keys()) await cluster.stopNode(name, "crash");
    await Promise.all([...cluster.nodes.keys()].map((name) => cluster.startNode(name)));
    await Promise.all(cluster.running.map((server) => server.ready));
    for (const server of cluster.running) assert.equal(await get(server, "a"), "1");
  });

  test("end one whose log was reset to an older state, and say what to do, because its vote would count lost entries", async () => {
    cluster = await ServerCluster.start(3);
    const node = cluster.nodes.get(cluster.nameOf(await cluster.follower()))!;
    await put(await cluster.leader(), "a", "1");
    await cluster.converged();
    await cluster.stopNode(node.name);
    cpSync(node.dataDir, `${node.dataDir}.old`, { recursive: true });
    await cluster.startNode(node.name);
    for (let i = 0; i < 20; i++) await put(await cluster.leader(), "a", `${i}`);
    await cluster.converged();
    await cluster.stopNode(node.name, "crash");
    rmSync(node.dataDir, { recursive: true });
    cpSync(`${node.dataDir}.old`, node.dataDir, { recursive: true });
    const back = await cluster.startNode(node.name);
    await waitFor("it ends", () => node.failures.length > 0);
    const error = node.failures[0] as Error;
    assert.equal(error.name, "LostLogError");
    assert.match(error.message, /counts on this member having the log up to entry \d+, but the log in .* ends at \d+/);
    assert.ok(error.message.includes(`etcdctl member remove ${back.memberId.toString(16)}`));
    node.failures.length = 0;
    await cluster.stopNode(node.name, "crash");
  });

  test("without a quorum serve no write and no linearizable read, and continue when it is back", async () => {
    cluster = await ServerCluster.start(3, { electionTicks: 10 });
    const leader = await cluster.leader();
    const others = cluster.running.filter((server) => server !== leader);
    await put(leader, "a", "1");
    for (const { memberId } of others) cluster.hub.cut(memberId);
    await waitFor("the leader steps down", () => leader.replication.leader === 0n);
    let answered = false;
    const write = put(leader, "a", "2").finally(() => (answered = true));
    const read = get(leader, "a").finally(() => (answered = true));
    const { logger } = cluster.nodes.get(cluster.nameOf(leader))!;
    const elections = () => logger.lines.filter(({ message }) => message.includes("is starting a new election")).length;
    const before = elections();
    await waitFor("it has asked for votes three times, in vain", () => elections() >= before + 3);
    assert.equal(answered, false);
    assert.equal(serializableGet(leader, "a"), "1");
    for (const { memberId } of others) cluster.hub.mend(memberId);
    await write;
    await read;
    assert.equal(await get(leader, "a"), "2");
  });

  test("a put that a leader could not replicate is refused when another replaced it, and is nowhere", async () => {
    cluster = await ServerCluster.start(3);
    const old = await cluster.leader();
    cluster.hub.cut(old.memberId);
    const lost = put(old, "lost", "1").then(
      () => undefined,
      (error: unknown) => error,
    );
    const next = await cluster.leader();
    await put(next, "kept", "1");
    cluster.hub.mend(old.memberId);
    assert.equal(await lost, errors.leaderChanged);
    await cluster.converged();
    for (const server of cluster.running) {
      assert.equal(serializableGet(server, "lost"), undefined);
      assert.equal(serializableGet(server, "kept"), "1");
    }
  });

  test("reads waiting for a former leader fail", async () => {
    cluster = await ServerCluster.start(3);
    const follower = await cluster.follower();
    const leader = await cluster.leader();
    cluster.hub.drop = ({ type, to }) => type === MessageType.MsgReadIndex && to === leader.memberId;
    const read = get(follower, "a").then(
      () => undefined,
      (error: unknown) => error,
    );
    await cluster.stopNode(cluster.nameOf(leader), "crash");
    assert.equal(await read, errors.leaderChanged);
    await cluster.leader();
    assert.equal(await get(follower, "a"), undefined);
  });

  test("a read whose request was lost is retried", async () => {
    cluster = await ServerCluster.start(3);
    const follower = await cluster.follower();
    let lost = 0;
    cluster.hub.drop = ({ type }) => type === MessageType.MsgReadIndex && lost++ === 0;
    assert.equal(await get(follower, "a"), undefined);
    assert.equal(lost, 2);
  });

  test("a proposal lost on its way to the leader times out, with the likely reason", async () => {
    cluster = await ServerCluster.start(3);
    const follower = await cluster.follower();
    cluster.hub.drop = ({ type }) => type === MessageType.MsgProp;
    const started = performance.now();
    await assert.rejects(put(follower, "a", "1"), (error) => error === errors.timeout);
    assert.ok(performance.now() - started > 5000);
    assert.equal(follower.replication.pendingProposals, 0);
    assert.ok(follower.metrics.proposalsFailed > 0);
  });

  test("a follower that was partitioned catches up from the log", async () => {
    cluster = await ServerCluster.start(3);
    const follower = await cluster.follower();
    cluster.hub.cut(follower.memberId);
    const leader = await cluster.leader();
    await Promise.all(Array.from({ length: 500 }, (_, i) => put(leader, `k${i}`, "v")));
    cluster.hub.mend(follower.memberId);
    await cluster.converged();
    assert.equal(serializableGet(follower, "k499"), "v");
    assert.equal(follower.metrics.applyingSnapshot, 0);
  });
});
