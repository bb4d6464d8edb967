// Slow: thousands of leases and keys, one request each.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { connect } from "../../../src/client/raw.ts";
import { Permission, Permission_Type as PermissionType } from "../../../src/proto/authpb.ts";
import { AuthService, KVService, LeaseGrantRequest, LeaseService } from "../../../src/proto/etcdserverpb.ts";
import { Op } from "../../../src/server/log/op.ts";
import { type InProcess, startInProcess } from "../../harness/in-process.ts";
import { bytes, putOp, text, txn } from "../../server/requests.ts";

const LEASES = 3000;
const KEYS = 5000;

describe("lists of leases and of their keys", () => {
  let member: InProcess;
  let slices = 0;

  before(async () => {
    member = await startInProcess({ server: { maxTxnOps: KEYS } });
    const { server } = member.etcd;
    const grant = (id: number): Promise<unknown> => {
      const request = LeaseGrantRequest.create({ id: BigInt(id), ttl: 10_000 - id });
      return server.request(Op.LEASE_GRANT, request, LeaseGrantRequest.encode(request));
    };
    await Promise.all(Array.from({ length: LEASES }, (_, i) => grant(i + 1)));
    const ops = Array.from({ length: KEYS }, (_, i) => putOp(`k/${i}`, "", { lease: 7n }));
    await member.client.unary(KVService.Txn, txn(ops));
    await member.client.unary(KVService.Put, { key: bytes("other"), lease: 8n });
  });

  after(async () => {
    await member.close();
    assert.deepEqual(member.failures, []);
  });

  const countSlices = (): number => {
    const before = slices;
    slices = member.etcd.server.turns.slices;
    return slices - before;
  };

  test("are complete and in order, and made in slices", async () => {
    countSlices();
    const { leases, header } = await member.client.unary(LeaseService.LeaseLeases, {});
    assert.ok(countSlices() >= 3);
    assert.deepEqual(
      leases.map(({ id }) => Number(id)),
      Array.from({ length: LEASES }, (_, i) => LEASES - i),
    );
    assert.ok(header!.revision > 0);
    const { keys, ttl, grantedTtl } = await member.client.unary(LeaseService.LeaseTimeToLive, { id: 7n, keys: true });
    assert.ok(countSlices() >= 1);
    assert.deepEqual([keys.length, ttl > 9000, grantedTtl], [KEYS, true, 9993]);
    assert.equal(new Set(keys.map(text)).size, KEYS);
  });

  test("are only for users with read permission on every key", async () => {
    const { client } = member;
    for (const name of ["root", "all", "some"]) await client.unary(AuthService.UserAdd, { name, password: "p" });
    await client.unary(AuthService.UserGrantRole, { user: "root", role: "root" });
    for (const [role, key, rangeEnd] of [
      ["all", "k", "p"],
      ["some", "k", "l"],
    ] as const) {
      await client.unary(AuthService.RoleAdd, { name: role });
      const perm = Permission.create({ permType: PermissionType.READ, key: bytes(key), rangeEnd: bytes(rangeEnd) });
      await client.unary(AuthService.RoleGrantPermission, { name: role, perm });
      await client.unary(AuthService.UserGrantRole, { user: role, role });
    }
    await client.unary(AuthService.AuthEnable, {});
    for (const [name, may] of [
      ["root", true],
      ["all", true],
      ["some", false],
    ] as const) {
      const { token } = await client.unary(AuthService.Authenticate, { name, password: "p" });
      const user = connect(member.url, { metadata: { token } });
      const listing = user.unary(LeaseService.LeaseLeases, {});
      if (may) assert.equal((await listing).leases.length, LEASES);
      else await assert.rejects(listing, { details: "etcdserver: permission denied" });
      user.close();
    }
  });
});
