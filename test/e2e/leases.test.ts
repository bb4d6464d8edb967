/** Leases live at the leader, and clients may ask any member. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { RpcError } from "../../src/client/raw.ts";
import { KVService, LeaseService } from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Member, withCluster } from "../harness/cluster.ts";
import { patience, waitFor } from "../harness/wait.ts";

const CALL = { timeoutMs: patience(10_000) };
const bytes = (text: string): Buffer => Buffer.from(text);

async function followersOf(cluster: Cluster): Promise<[Member, Member]> {
  const leader = await cluster.leader();
  return cluster.all.filter((member) => member !== leader) as [Member, Member];
}

describe("a lease, queried at a follower", () => {
  test("is the leader's: its time, its keys, and that it does not exist", async () => {
    await withCluster({ members: ["ours", "ours", "ours"] }, async (cluster) => {
      const [follower, other] = await followersOf(cluster);
      const { id } = await follower.client.unary(LeaseService.LeaseGrant, { ttl: 100 }, CALL);
      await other.client.unary(KVService.Put, { key: bytes("k"), lease: id }, CALL);
      const found = await waitFor("the follower knows of the key", async () => {
        const answer = await follower.client.unary(LeaseService.LeaseTimeToLive, { id, keys: true }, CALL);
        return answer.keys.length > 0 && answer;
      });
      assert.equal(found.grantedTtl, 100);
      assert.ok(found.ttl >= 95 && found.ttl <= 100);
      assert.deepEqual(found.keys.map(String), ["k"]);
      assert.equal((await follower.client.unary(LeaseService.LeaseTimeToLive, { id: 4n }, CALL)).ttl, -1);

      const stream = follower.client.stream(LeaseService.LeaseKeepAlive);
      const answers = stream[Symbol.asyncIterator]();
      await stream.send({ id });
      assert.equal((await answers.next()).value!.ttl, 100);
      await stream.send({ id: 4n });
      assert.equal((await answers.next()).value!.ttl, 0, "one that does not exist has no time to live");
      // Requests sent before the client half-closes are still answered.
      for (let i = 0; i < 50; i++) await stream.send({ id });
      stream.end();
      let count = 0;
      for await (const { ttl } of { [Symbol.asyncIterator]: () => answers }) {
        assert.equal(ttl, 100);
        count++;
      }
      assert.equal(count, 50);
    });
  });

  test("is kept alive while the leader is gone and another one takes over", async () => {
    await withCluster({ members: ["ours", "ours", "ours"] }, async (cluster) => {
      const leader = await cluster.leader();
      const [follower] = await followersOf(cluster);
      const { id } = await follower.client.unary(LeaseService.LeaseGrant, { ttl: 10 }, CALL);
      const stream = follower.client.stream(LeaseService.LeaseKeepAlive);
      const answers = stream[Symbol.asyncIterator]();
      await stream.send({ id });
      assert.equal((await answers.next()).value!.ttl, 10);
      await leader.kill("SIGKILL");
      await stream.send({ id });
      assert.equal((await answers.next()).value!.ttl, 10, "answered by the next leader");
      stream.cancel();
      const { ttl } = await follower.client.unary(LeaseService.LeaseTimeToLive, { id }, CALL);
      assert.ok(ttl > 0);
    });
  });

  test("is refused when there is no leader for the duration of a request", async () => {
    const args = ["--heartbeat-interval", "20", "--election-timeout", "200"];
    await withCluster({ members: ["ours", "ours", "ours"], args }, async (cluster) => {
      const [follower, other] = await followersOf(cluster);
      const leader = await cluster.leader();
      const { id } = await follower.client.unary(LeaseService.LeaseGrant, { ttl: 10 }, CALL);
      await Promise.all([leader.kill("SIGKILL"), other.kill("SIGKILL")]);
      await waitFor("nobody leads", async () => (await follower.status()).leader === 0n);
      await assert.rejects(
        follower.client.unary(LeaseService.LeaseTimeToLive, { id }, CALL),
        (error) => error instanceof RpcError && error.details === "etcdserver: no leader",
      );
    });
  });
});
