// Slow: clusters of members that fail, come back and elect leaders, in real time.
import assert from "node:assert/strict";
import { cpSync, existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, test } from "node:test";
import { get, put, ServerCluster, serializableGet } from "../harness/server-cluster.ts";
import { waitFor } from "../harness/wait.ts";

const SMALL = { snapshotCount: 200, snapshotCatchUpEntries: 50 };
/** Enough for the log in memory to be trimmed. */
const MANY = 1200;

describe("a member that needs entries no longer in the log", () => {
  let cluster: ServerCluster;

  afterEach(async () => {
    await cluster.close();
    for (const { name, failures } of cluster.nodes.values()) assert.deepEqual(failures, [], name);
  });

  /** Partitions a follower, writes more than the log keeps, and reconnects it. */
  async function lagBehind(keys = MANY) {
    const lagging = await cluster.follower();
    await put(await cluster.leader(), "before", "1");
    await cluster.converged();
    cluster.hub.cut(lagging.memberId);
    const leader = await cluster.leader();
    await Promise.all(Array.from({ length: keys }, (_, i) => put(leader, `k${i}`, "x".repeat(100))));
    return { lagging, leader };
  }

  test("gets a snapshot while the others continue, then follows the log again", async () => {
    cluster = await ServerCluster.start(3, SMALL);
    const { lagging, leader } = await lagBehind();
    const log = cluster.nodes.get(cluster.nameOf(lagging))!.logger;
    cluster.hub.mend(lagging.memberId);
    let writing = true;
    const writer = (async () => {
      for (let i = 0; writing; i++) await put(leader, `during/${i % 100}`, `${i}`);
    })();
    await waitFor("installed", () => log.has("applied snapshot"));
    await waitFor("caught up", () => serializableGet(lagging, `k${MANY - 1}`) !== undefined);
    writing = false;
    await writer;
    assert.equal(new Set(await cluster.hashes()).size, 1);
    assert.equal(await get(lagging, "before"), "1");
    await put(lagging, "through", "me");
    assert.equal(await get(leader, "through"), "me");
  });

  test("is one after few entries, when the log keeps fewer and snapshots are frequent", async () => {
    cluster = await ServerCluster.start(3, { snapshotCount: 10, snapshotCatchUpEntries: 10 });
    const { lagging } = await lagBehind(30);
    const log = cluster.nodes.get(cluster.nameOf(lagging))!.logger;
    cluster.hub.mend(lagging.memberId);
    await waitFor("installed", () => log.has("applied snapshot"));
    await cluster.converged();
    assert.equal(new Set(await cluster.hashes()).size, 1);
  });

  test("has one database and no leftovers afterwards, and starts from it again", async () => {
    cluster = await ServerCluster.start(3, SMALL);
    const { lagging } = await lagBehind();
    const name = cluster.nameOf(lagging);
    const node = cluster.nodes.get(name)!;
    cluster.hub.mend(lagging.memberId);
    await waitFor("installed", () => node.logger.has("applied snapshot"));
    await cluster.converged();
    const files = readdirSync(join(node.dataDir, "member", "snap")).filter((file) => !file.endsWith(".snap"));
    assert.deepEqual(files, ["db"]);
    await cluster.stopNode(name);
    const back = await cluster.startNode(name);
    await back.ready;
    assert.equal(new Set(await cluster.hashes()).size, 1);
    assert.equal(await get(back, "k0"), "x".repeat(100));
    // A second snapshot finds the place of the first one free.
    await lagBehind();
  });

  test("keeps its watchers, which get the missed events", async () => {
    cluster = await ServerCluster.start(3, SMALL);
    const lagging = await cluster.follower();
    const events: string[] = [];
    const stream = lagging.watchHub.newStream({
      deliver(_watch, batch) {
        for (const event of batch.events) events.push(Buffer.from(event.key, "latin1").toString());
        return true;
      },
      deliverLarge: () => true,
      deliverCompacted: () => true,
      deliverProgress: () => true,
    });
    stream.watch({
      key: Buffer.from("watched"),
      rangeEnd: Buffer.alloc(0),
      startRevision: 0,
      progressNotify: false,
      filters: [],
      prevKv: false,
      watchId: 0,
      fragment: false,
    });
    cluster.hub.cut(lagging.memberId);
    const leader = await cluster.leader();
    await put(leader, "watched", "1");
    await Promise.all(Array.from({ length: MANY }, (_, i) => put(leader, `k${i}`, "v")));
    await put(leader, "watched", "2");
    cluster.hub.mend(lagging.memberId);
    await waitFor("both events", () => events.length >= 2);
    await put(leader, "watched", "3");
    await waitFor("the third", () => events.length >= 3);
    assert.equal(events.length, 3);
    stream.close();
  });

  test("may miss a snapshot, and gets the next", async () => {
    cluster = await ServerCluster.start(3, SMALL);
    const { lagging } = await lagBehind();
    const node = cluster.nodes.get(cluster.nameOf(lagging))!;
    let failed = 0;
    cluster.hub.failSnapshot = () => failed++ < 2;
    cluster.hub.mend(lagging.memberId);
    await waitFor("installed", () => node.logger.has("applied snapshot"));
    assert.equal(failed, 3);
    await cluster.converged();
    assert.equal(new Set(await cluster.hashes()).size, 1);
  });

  test("starts from any state that a crash leaves during the installation of a snapshot, and has everything", async () => {
    cluster = await ServerCluster.start(3, SMALL);
    const { lagging } = await lagBehind();
    const name = cluster.nameOf(lagging);
    const node = cluster.nodes.get(name)!;
    const memberDir = join(node.dataDir, "member");
    const copies: string[] = [];
    // The state left by a killed process at each step that changes names in the directory.
    const steps = new Set<string>();
    const copyAt = (step: string): void => {
      if (steps.has(step)) return;
      steps.add(step);
      const copy = `${node.dataDir}-${steps.size}`;
      cpSync(memberDir, join(copy, "member"), { recursive: true });
      copies.push(copy);
    };
    cluster.hub.mend(lagging.memberId);
    await waitFor("installed", async () => {
      const names = readdirSync(join(memberDir, "snap"));
      const received = names.some((file) => file.endsWith(".snap.db"));
      const importing = names.includes("db.import");
      copyAt(
        `received: ${received}, importing: ${importing}, saved: ${names.filter((file) => file.endsWith(".snap")).length}`,
      );
      return node.logger.has("applied snapshot");
    });
    copyAt("the end");
    await cluster.stopNode(name, "crash");
    rmSync(node.dataDir, { recursive: true });
    for (const copy of copies) {
      // A leader knows what was acknowledged to it, after which a member must not go back; a new one knows nothing yet.
      const leader = await cluster.leader();
      const next = cluster.running.find((server) => server !== leader)!;
      assert.equal(await leader.leaderTransfer.moveTo(next.memberId), undefined);
      renameSync(copy, node.dataDir);
      const back = await cluster.startNode(name);
      await back.ready;
      assert.equal(await get(back, `k${MANY - 1}`), "x".repeat(100));
      assert.equal(new Set(await cluster.hashes()).size, 1, copy);
      await cluster.stopNode(name, "crash");
      renameSync(node.dataDir, copy);
      await put(await cluster.leader(), "more", copy);
    }
    assert.ok(copies.length >= 2, [...steps].join("; "));
  });

  test("whose database was received but not installed before it ended installs it when it starts", async () => {
    cluster = await ServerCluster.start(3, SMALL);
    const { lagging } = await lagBehind();
    const name = cluster.nameOf(lagging);
    const node = cluster.nodes.get(name)!;
    const snapDir = join(node.dataDir, "member", "snap");
    cluster.hub.mend(lagging.memberId);
    // The member ends just before the installation: raft's part is saved, the database is received, nothing more.
    cluster.failOpen.add(name);
    await waitFor("it begins to install", () => node.failures.length > 0);
    node.failures.length = 0;
    assert.ok(readdirSync(snapDir).some((file) => file.endsWith(".snap.db")));
    await cluster.stopNode(name, "crash");
    cluster.failOpen.delete(name);
    const back = await cluster.startNode(name);
    assert.ok(node.logger.has("the database of a received snapshot is not installed yet; installing it"));
    assert.equal(serializableGet(back, "k0"), "x".repeat(100), "before it hears of anybody");
    await back.ready;
    assert.equal(new Set(await cluster.hashes()).size, 1);
    assert.ok(!existsSync(join(snapDir, "db.import")));
    assert.ok(!readdirSync(snapDir).some((file) => file.endsWith(".snap.db")));
  });
});

test("a new member of a cluster with a long history gets a snapshot first", async () => {
  const cluster = await ServerCluster.start(1, SMALL);
  try {
    const leader = await cluster.leader();
    for (let i = 0; i < 30; i++) {
      await Promise.all(Array.from({ length: 50 }, (_, n) => put(leader, `k${n}`, `${i}`)));
    }
    const joined = await cluster.addNode("m2");
    await joined.ready;
    assert.ok(cluster.nodes.get("m2")!.logger.has("applied snapshot"));
    assert.equal(await get(joined, "k49"), "29");
    assert.equal(new Set(await cluster.hashes()).size, 1);
  } finally {
    await cluster.close();
  }
  for (const { name, failures } of cluster.nodes.values()) assert.deepEqual(failures, [], name);
});
