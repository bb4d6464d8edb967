/** What etcd's security advisories describe, tried here; docs/security.md has the list. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { type TestContext, test } from "node:test";
import { connect, type RawClient } from "../../src/client/raw.ts";
import { Permission_Type as PermissionType } from "../../src/proto/authpb.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmType,
  AuthService,
  ClusterService,
  KVService,
  LeaseService,
  MaintenanceService,
  WatchCreateRequest,
  WatchRequest,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { AUTH_DEFAULTS } from "../../src/server/contract/options.ts";
import { startInProcess } from "../harness/in-process.ts";
import { bytes, put, putOp, range, rangeOp, txn, txnOp } from "../server/requests.ts";

const denied = { code: 7, details: "etcdserver: permission denied" };
const noUser = { code: 3, details: "etcdserver: user name is empty" };
const { READ, WRITE, READWRITE } = PermissionType;

/** anna may read "one", write "w" and do both with "own"; bob may do nothing. */
async function start(t: TestContext) {
  const member = await startInProcess({ server: { auth: { ...AUTH_DEFAULTS, bcryptCost: 4 } } });
  t.after(() => member.close());
  const { client } = member;
  for (const name of ["root", "anna", "bob"]) await client.unary(AuthService.UserAdd, { name, password: "p" });
  await client.unary(AuthService.RoleAdd, { name: "r" });
  for (const [key, permType] of [
    ["one", READ],
    ["w", WRITE],
    ["own", READWRITE],
  ] as const) {
    const perm = { permType, key: bytes(key), rangeEnd: bytes("") };
    await client.unary(AuthService.RoleGrantPermission, { name: "r", perm });
  }
  await client.unary(AuthService.UserGrantRole, { user: "root", role: "root" });
  await client.unary(AuthService.UserGrantRole, { user: "anna", role: "r" });
  await client.unary(AuthService.AuthEnable, {});
  const as = async (name: string): Promise<RawClient> => {
    const { token } = await client.unary(AuthService.Authenticate, { name, password: "p" });
    const own = connect(member.url, { metadata: { token } });
    t.after(() => own.close());
    return own;
  };
  return {
    url: member.url,
    nobody: client,
    root: await as("root"),
    anna: await as("anna"),
    bob: await as("bob"),
    logger: member.logger,
  };
}

test("GHSA-xg4h-6gfc-h4m8: who may read one key may not watch all from it on", async (t) => {
  const { anna } = await start(t);
  const created = async (rangeEnd: string) => {
    const stream = anna.stream(WatchService.Watch);
    const createRequest = WatchCreateRequest.create({ key: bytes("one"), rangeEnd: bytes(rangeEnd) });
    await stream.send(WatchRequest.create({ createRequest }));
    for await (const { canceled, cancelReason } of stream) return { canceled, cancelReason };
    throw new Error("the stream ended");
  };
  assert.equal((await created("")).canceled, false);
  const refused = await created("\0");
  assert.equal(refused.canceled, true);
  assert.match(refused.cancelReason, /permission denied/);
});

test("GHSA-rfx7-8w68-q57q: operations inside of nested transactions need the same rights", async (t) => {
  const { anna, bob, root } = await start(t);
  await root.unary(KVService.Put, put("secret", "s"));
  for (const op of [rangeOp("secret"), rangeOp("one", "\0"), putOp("other", "x")]) {
    await assert.rejects(anna.unary(KVService.Txn, txn([txnOp(txn([op]))])), denied);
    await assert.rejects(anna.unary(KVService.Txn, txn([], [txnOp(txn([], [op]))])), denied);
    await assert.rejects(bob.unary(KVService.Txn, txn([txnOp(txn([txnOp(txn([op]))]))])), denied);
  }
  assert.equal((await anna.unary(KVService.Txn, txn([txnOp(txn([rangeOp("one")]))]))).succeeded, true);
});

test("GHSA-x35m-3gp4-4fh5: a put in a transaction shows the value before, and takes a lease, only with the rights to", async (t) => {
  const { anna, root } = await start(t);
  await root.unary(KVService.Put, put("w", "secret"));
  for (const wrap of [
    (op: ReturnType<typeof putOp>) => txn([op]),
    (op: ReturnType<typeof putOp>) => txn([txnOp(txn([op]))]),
  ]) {
    await assert.rejects(anna.unary(KVService.Txn, wrap(putOp("w", "x", { prevKv: true }))), denied);
  }
  const { id } = await root.unary(LeaseService.LeaseGrant, { ttl: 100, id: 0n });
  await root.unary(KVService.Put, put("others", "x", { lease: id }));
  await assert.rejects(anna.unary(KVService.Txn, txn([txnOp(txn([putOp("own", "x", { lease: id })]))])), denied);
  await assert.rejects(anna.unary(KVService.Put, put("own", "x", { lease: id })), denied);
});

test("GHSA-q8m4-xhhv-38mg: members, alarms, leases and compaction are not for those without a user", async (t) => {
  const { nobody, bob, root } = await start(t);
  const { id } = await root.unary(LeaseService.LeaseGrant, { ttl: 100, id: 0n });
  const raise = { action: AlarmAction.ACTIVATE, memberId: 1n, alarm: AlarmType.NOSPACE };
  const calls: ((client: RawClient) => Promise<unknown>)[] = [
    (client) => client.unary(ClusterService.MemberList, {}),
    (client) => client.unary(MaintenanceService.Alarm, raise),
    (client) => client.unary(MaintenanceService.Alarm, { action: AlarmAction.GET }),
    (client) => client.unary(LeaseService.LeaseGrant, { ttl: 10, id: 0n }),
    (client) => client.unary(LeaseService.LeaseRevoke, { id }),
    (client) => client.unary(LeaseService.LeaseTimeToLive, { id }),
    (client) => client.unary(LeaseService.LeaseLeases, {}),
    (client) => client.unary(KVService.Compact, { revision: 1 }),
  ];
  for (const call of calls) await assert.rejects(call(nobody), noUser);
  await assert.rejects(bob.unary(MaintenanceService.Alarm, raise), denied);
  await assert.rejects(bob.unary(KVService.Compact, { revision: 1 }), denied);
});

test("CVE-2023-32082: the keys of a lease are named only to those who may read them", async (t) => {
  const { anna, root } = await start(t);
  const { id } = await root.unary(LeaseService.LeaseGrant, { ttl: 100, id: 0n });
  await root.unary(KVService.Put, put("secret-name", "x", { lease: id }));
  await assert.rejects(anna.unary(LeaseService.LeaseTimeToLive, { id, keys: true }), denied);
  assert.deepEqual((await anna.unary(LeaseService.LeaseTimeToLive, { id })).keys, []);
});

test("CVE-2021-28235: what is logged has neither tokens nor passwords", async (t) => {
  const { anna, nobody, logger } = await start(t);
  await anna.unary(KVService.Range, range("own"));
  const wrong = { name: "anna", password: "a wrong password" };
  await assert.rejects(nobody.unary(AuthService.Authenticate, wrong), { code: 3 });
  const logged = JSON.stringify(logger.lines);
  assert.ok(!logged.includes("a wrong password"));
  assert.doesNotMatch(logged, /[A-Za-z]{16}\.\d+/, "a simple token has this form");
});

test("CVE-2026-33186: a method is found by its exact path only", async (t) => {
  const { url } = await start(t);
  const session = connectHttp2(url);
  t.after(() => session.destroy());
  for (const path of [
    "etcdserverpb.KV/Range",
    "//etcdserverpb.KV/Range",
    "/etcdserverpb.KV//Range",
    "/etcdserverpb.kv/Range",
  ]) {
    const request = session.request({
      ":path": path,
      ":method": "POST",
      "content-type": "application/grpc",
      te: "trailers",
    });
    request.end(Buffer.from([0, 0, 0, 0, 3, 0x0a, 1, 0x61]));
    const [headers] = (await once(request, "response")) as [Record<string, string>];
    assert.equal(Number(headers["grpc-status"]), 12, path);
    request.close();
  }
});
