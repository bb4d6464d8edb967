// Slow: clusters of members that fail, come back and elect leaders, in real time.
import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { memberId } from "../../src/membership/member.ts";
import { EtcdError, errors } from "../../src/server/contract/errors.ts";
import type { EtcdServer } from "../../src/server/server.ts";
import { get, put, ServerCluster, serializableGet, urlOf } from "../harness/server-cluster.ts";
import { waitFor } from "../harness/wait.ts";

/** Health checks need connections of five seconds; most tests do without. */
const RELAXED = { strictReconfigCheck: false };
const STRICT = { strictReconfigCheck: true };

function newMember(name: string, isLearner = false) {
  return { id: memberId([urlOf(name)], "", 77), peerUrls: [urlOf(name)], isLearner, name: "", clientUrls: [] };
}

function namesOf(server: EtcdServer): string[] {
  return server.cluster
    .members()
    .map(({ name }) => name)
    .sort();
}

describe("the membership", () => {
  let cluster: ServerCluster;

  afterEach(async () => {
    await cluster.close();
    for (const { name, failures } of cluster.nodes.values()) assert.deepEqual(failures, [], name);
  });

  test("grows from one member to three, each of which then has everything", async () => {
    cluster = await ServerCluster.start(1, RELAXED);
    await put(await cluster.leader(), "a", "1");
    for (const name of ["m2", "m3"]) await (await cluster.addNode(name)).ready;
    await cluster.converged();
    for (const server of cluster.running) {
      assert.deepEqual(namesOf(server), ["m1", "m2", "m3"]);
      assert.equal(serializableGet(server, "a"), "1");
      assert.equal(server.replication.isLearner, false);
    }
    await cluster.stopNode(cluster.nameOf(await cluster.leader()), "crash");
    await put(await cluster.leader(), "a", "2");
  });

  test("shrinks by a follower, which is notified and ends, and may not come back", async () => {
    cluster = await ServerCluster.start(3, RELAXED);
    const leader = await cluster.leader();
    const gone = await cluster.follower();
    const node = cluster.nodes.get(cluster.nameOf(gone))!;
    const members = await leader.membership.remove(gone.memberId);
    assert.ok(!(members instanceof EtcdError));
    assert.equal(members.length, 2);
    await waitFor("it is told", () => node.removedCount === 1);
    assert.ok(node.logger.has("data-dir used by this member must be removed"));
    await cluster.stopNode(node.name);
    await put(leader, "a", "1");
    await assert.rejects(cluster.startNode(node.name), /permanently removed/);
    const again = await leader.membership.add({ ...newMember("m9"), id: gone.memberId });
    assert.equal(again, errors.memberNotFound);
    cluster.nodes.delete(node.name);
  });

  test("loses its leader, and elects another", async () => {
    cluster = await ServerCluster.start(3, RELAXED);
    const leader = await cluster.leader();
    const node = cluster.nodes.get(cluster.nameOf(leader))!;
    const members = await leader.membership.remove(leader.memberId);
    assert.ok(!(members instanceof EtcdError));
    await waitFor("it is told", () => node.removedCount === 1);
    await cluster.stopNode(node.name);
    cluster.nodes.delete(node.name);
    const next = await cluster.leader();
    await put(next, "a", "1");
    assert.equal(next.cluster.members().length, 2);
  });

  test("a member that was down while it was removed learns of it from the others", async () => {
    cluster = await ServerCluster.start(3, RELAXED);
    const gone = await cluster.follower();
    const name = cluster.nameOf(gone);
    await cluster.stopNode(name, "crash");
    const leader = await cluster.leader();
    assert.ok(!((await leader.membership.remove(gone.memberId)) instanceof EtcdError));
    await cluster.startNode(name);
    await waitFor("it is told", () => cluster.nodes.get(name)!.removedCount === 1);
    await cluster.stopNode(name, "crash");
    cluster.nodes.delete(name);
  });

  test("a dead member is replaced by a new one", async () => {
    cluster = await ServerCluster.start(3, RELAXED);
    const dead = await cluster.follower();
    await cluster.stopNode(cluster.nameOf(dead), "crash");
    cluster.nodes.delete(cluster.nameOf(dead));
    const leader = await cluster.leader();
    await put(leader, "a", "1");
    assert.ok(!((await leader.membership.remove(dead.memberId)) instanceof EtcdError));
    const fresh = await cluster.addNode("m4");
    await fresh.ready;
    assert.equal(await get(fresh, "a"), "1");
  });

  test("a learner follows without a vote, and is promoted when it is up to date, through any member", async () => {
    cluster = await ServerCluster.start(2, RELAXED);
    const leader = await cluster.leader();
    for (let i = 0; i < 50; i++) await put(leader, `k${i}`, "v");
    const id = newMember("m3", true).id;
    const added = await leader.membership.add({ ...newMember("m3", true) });
    assert.ok(!(added instanceof EtcdError));
    assert.equal(await leader.membership.promote(id), errors.learnerNotReady);
    assert.equal(leader.metrics.learnerPromotionsFailed.get(errors.learnerNotReady.message), 1);
    const urls = new Map(added.map((member) => [member.name || "m3", member.peerUrls] as const));
    const learner = await cluster.startNode("m3", { newCluster: false, initialCluster: urls });
    await learner.ready;
    assert.equal(learner.replication.isLearner, true);
    await waitFor("it follows", () => serializableGet(learner, "k49") === "v");
    const follower = cluster.running.find((server) => server !== leader && server !== learner)!;
    const promoted = await follower.membership.promote(id);
    assert.ok(!(promoted instanceof EtcdError), `${promoted}`);
    assert.equal(promoted.find((member) => member.id === id)!.isLearner, false);
    await waitFor("it knows", () => !learner.replication.isLearner);
    assert.equal(await leader.membership.promote(id), errors.memberNotLearner);
    await cluster.stopNode(cluster.nameOf(leader), "crash");
    await put(await cluster.leader(), "after", "1");
  });

  test("a removed learner and one too many are refused, in etcd's words", async () => {
    cluster = await ServerCluster.start(1, RELAXED);
    const leader = await cluster.leader();
    assert.ok(!((await leader.membership.add(newMember("m2", true))) instanceof EtcdError));
    assert.equal(await leader.membership.add(newMember("m3", true)), errors.tooManyLearners);
    assert.equal(await leader.membership.add(newMember("m2")), errors.memberExists);
    assert.equal(await leader.membership.add({ ...newMember("m4"), peerUrls: [urlOf("m2")] }), errors.peerUrlExists);
    assert.equal(await leader.membership.remove(99n), errors.memberNotFound);
    assert.equal(await leader.membership.update(99n, ["http://127.0.0.1:1"]), errors.memberNotFound);
    assert.equal(await leader.membership.promote(99n), errors.memberNotFound);
    assert.ok(!((await leader.membership.remove(newMember("m2").id)) instanceof EtcdError));
    assert.equal(await leader.membership.add(newMember("m2")), errors.memberNotFound, "its id is used up");
    await put(leader, "a", "1");
  });

  test("peer URLs are changed, and all members send there", async () => {
    cluster = await ServerCluster.start(3, RELAXED);
    const leader = await cluster.leader();
    const moved = await cluster.follower();
    const members = await moved.membership.update(moved.memberId, [urlOf("m9")]);
    assert.ok(!(members instanceof EtcdError));
    await cluster.converged();
    for (const server of cluster.running) {
      assert.deepEqual(server.cluster.member(moved.memberId)!.peerUrls, [urlOf("m9")]);
      assert.equal(server.cluster.member(moved.memberId)!.name, moved.options.name);
      if (server === moved) continue;
      assert.deepEqual(cluster.hub.members.get(server.memberId)!.peers.get(moved.memberId)!.urls, [urlOf("m9")]);
    }
    const inUse = leader.cluster.member(leader.memberId)!.peerUrls;
    assert.equal(await leader.membership.update(moved.memberId, inUse), errors.peerUrlExists);
  });

  test("changes requested at once at all members are made one after the other", async () => {
    cluster = await ServerCluster.start(3, { ...RELAXED, maxLearners: 10 });
    const outcomes = await Promise.all(
      cluster.running.flatMap((server, i) => {
        return [1, 2].map((n) => server.membership.add(newMember(`m${10 + i * 2 + n}`, true)));
      }),
    );
    const failed = outcomes.filter((outcome) => outcome instanceof EtcdError);
    await cluster.converged();
    assert.equal(cluster.running[0]!.cluster.members().length, 9 - failed.length);
    for (const server of cluster.running) {
      assert.deepEqual(server.cluster.members(), cluster.running[0]!.cluster.members());
    }
  });

  test("a change that the quorum would not survive is refused", async () => {
    cluster = await ServerCluster.start(3, STRICT);
    const leader = await cluster.leader();
    assert.equal(await leader.membership.add(newMember("m4")), errors.unhealthy, "connections are too young");
    const dead = await cluster.follower();
    await cluster.stopNode(cluster.nameOf(dead), "crash");
    const alive = cluster.running.find((server) => server !== leader)!;
    assert.equal(await leader.membership.remove(alive.memberId), errors.unhealthy);
    assert.equal(leader.cluster.members().length, 3);
    // Losing a dead member costs nothing.
    assert.ok(!((await leader.membership.remove(dead.memberId)) instanceof EtcdError));
    assert.equal(leader.cluster.members().length, 2);
    cluster.nodes.delete(cluster.nameOf(dead));
  });

  test("a second member is not added while the first added one has not started", async () => {
    cluster = await ServerCluster.start(1, STRICT);
    const leader = await cluster.leader();
    const first = leader.membership.add(newMember("m2"));
    await waitFor("it is in", () => leader.cluster.members().length === 2);
    await first;
    assert.equal(await leader.membership.add(newMember("m3")), errors.notEnoughStarted);
  });
});
