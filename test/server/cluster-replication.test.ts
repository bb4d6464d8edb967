import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { get, put, ServerCluster, serializableGet } from "../harness/server-cluster.ts";
import { waitFor } from "../harness/wait.ts";

describe("three members", () => {
  let cluster: ServerCluster;
  before(async () => {
    cluster = await ServerCluster.start(3);
  });
  after(async () => {
    await cluster.close();
    for (const { name, failures } of cluster.nodes.values()) assert.deepEqual(failures, [], name);
  });

  test("a put through the leader reaches all of them", async () => {
    await put(await cluster.leader(), "a", "1");
    for (const server of cluster.running) {
      await waitFor("applied", () => serializableGet(server, "a") === "1");
    }
  });

  test("a put through a follower is answered there, once it has applied it", async () => {
    const follower = await cluster.follower();
    const response = await put(follower, "b", "2");
    assert.equal(serializableGet(follower, "b"), "2");
    assert.equal(response.header!.revision, follower.store.currentRevision);
  });

  test("a linearizable read through any member sees what was written through another", async () => {
    for (const [i, writer] of cluster.running.entries()) {
      for (const [j, reader] of cluster.running.entries()) {
        await put(writer, "c", `${i}${j}`);
        assert.equal(await get(reader, "c"), `${i}${j}`);
      }
    }
  });

  test("many puts through all members at once are each answered, and all members end in the same state", async () => {
    const puts = cluster.running.flatMap((server, i) =>
      Array.from({ length: 300 }, (_, n) => put(server, `many/${i}/${n}`, "x".repeat(n))),
    );
    const revisions = (await Promise.all(puts)).map(({ header }) => header!.revision);
    assert.equal(new Set(revisions).size, 900);
    const hashes = await cluster.hashes();
    assert.equal(new Set(hashes).size, 1);
  });

  test("all know the same members, with their names and client URLs", () => {
    const [first, ...others] = cluster.running.map((server) => server.cluster.members());
    assert.deepEqual(first!.map(({ name }) => name).sort(), ["m1", "m2", "m3"]);
    assert.ok(first!.every(({ name, clientUrls }) => clientUrls[0] === `http://${name}:2379`));
    for (const other of others) assert.deepEqual(other, first);
  });
});
