/**
 * Users in a cluster of three: known at every member at once, and to one that was down and catches up from a snapshot.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { RawClient } from "../../src/client/raw.ts";
import { Permission_Type as PermissionType } from "../../src/proto/authpb.ts";
import { AuthService, KVService, LeaseService } from "../../src/proto/etcdserverpb.ts";
import { type Cluster, type Member, withCluster } from "../harness/cluster.ts";
import { waitFor } from "../harness/wait.ts";
import { bytes, put, range } from "../server/requests.ts";

const args = ["--bcrypt-cost=4", "--snapshot-count=20", "--snapshot-catchup-entries=5"];

test("users and tokens are the same at every member, also after a snapshot", () =>
  withCluster({ members: ["ours", "ours", "ours"], args }, async (cluster) => {
    const leader = await cluster.leader();
    const follower = cluster.all.find((member) => member !== leader)!;
    await createUsers(follower.client);
    for (const giver of cluster.all) await useTokenOf(giver, cluster);
    await leasesAreKept(cluster);
    await catchUp(follower, leader);
    for (const giver of cluster.all) await useTokenOf(giver, cluster);
  }));

async function createUsers(client: RawClient): Promise<void> {
  for (const name of ["root", "anna"]) await client.unary(AuthService.UserAdd, { name, password: name });
  await client.unary(AuthService.UserGrantRole, { user: "root", role: "root" });
  await client.unary(AuthService.RoleAdd, { name: "r" });
  const perm = { permType: PermissionType.READWRITE, key: bytes("k"), rangeEnd: bytes("l") };
  await client.unary(AuthService.RoleGrantPermission, { name: "r", perm });
  await client.unary(AuthService.UserGrantRole, { user: "anna", role: "r" });
  await client.unary(AuthService.AuthEnable, {});
}

async function logIn({ client }: Member, name: string): Promise<{ token: string }> {
  return { token: (await client.unary(AuthService.Authenticate, { name, password: name })).token };
}

/** No member may refuse a token that another has just issued. */
async function useTokenOf(giver: Member, cluster: Cluster): Promise<void> {
  const metadata = await logIn(giver, "anna");
  await Promise.all(
    cluster.all.map(async ({ client, name }) => {
      await client.unary(KVService.Range, range("k", "", { serializable: true }), { metadata });
      await client.unary(KVService.Put, put(`k-${name}`), { metadata });
      await client.unary(KVService.Range, range("k", "l"), { metadata });
      await assert.rejects(client.unary(KVService.Put, put("z"), { metadata }), /permission denied/);
      await assert.rejects(client.unary(KVService.Put, put("k")), /user name is empty/);
    }),
  );
}

/** A lease is renewed and queried through any member, by a user with write permission on its keys. */
async function leasesAreKept(cluster: Cluster): Promise<void> {
  const [one] = cluster.all as [Member];
  const [root, anna] = await Promise.all([logIn(one, "root"), logIn(one, "anna")]);
  const { id } = await one.client.unary(LeaseService.LeaseGrant, { ttl: 100 }, { metadata: root });
  await one.client.unary(KVService.Put, put("z", "", { lease: id }), { metadata: root });
  for (const { client } of cluster.all) {
    const asked = { id, keys: true };
    const { keys } = await client.unary(LeaseService.LeaseTimeToLive, asked, { metadata: root });
    assert.deepEqual(keys.map(String), ["z"]);
    const denied = /permission denied/;
    await assert.rejects(client.unary(LeaseService.LeaseTimeToLive, asked, { metadata: anna }), denied);
    await assert.rejects(client.unary(LeaseService.LeaseRevoke, { id }, { metadata: anna }), denied);
    assert.equal(await renewed(client, id, root), 100);
    await assert.rejects(renewed(client, id, anna), denied);
  }
}

async function renewed(client: RawClient, id: bigint, metadata: { token: string }): Promise<number> {
  const stream = client.stream(LeaseService.LeaseKeepAlive, { metadata });
  await stream.send({ id });
  for await (const { ttl } of stream) return ttl;
  throw new Error("the stream ended");
}

/** While a member is down, users change and its part of the log is dropped. */
async function catchUp(away: Member, leader: Member): Promise<void> {
  await away.kill("SIGTERM");
  const metadata = await logIn(leader, "root");
  await leader.client.unary(AuthService.UserAdd, { name: "bob", password: "bob" }, { metadata });
  for (let i = 0; i < 60; i++) await leader.client.unary(KVService.Put, put("z"), { metadata });
  away.spawn();
  // The snapshot has the users, but not the tokens made by entries in it.
  const own = await waitFor("the member is back", () => logIn(away, "bob").catch(() => undefined));
  assert.match(away.log(), /applied snapshot/);
  const { roles } = await away.client.unary(AuthService.UserGet, { name: "bob" }, { metadata: own });
  assert.deepEqual(roles, []);
}
