// Slow: passwords are hashed at their real cost.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import * as https from "node:https";
import { join } from "node:path";
import { after, describe, type TestContext, test } from "node:test";
import { TokenFailures } from "../../../src/api/calls/token-failures.ts";
import type { ClientTls } from "../../../src/api/listeners/client-tls.ts";
import { Code } from "../../../src/base/grpc-codes.ts";
import { connect, type RawClient, type RpcError, type TlsOptions } from "../../../src/client/raw.ts";
import { Permission_Type as PermissionType } from "../../../src/proto/authpb.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AuthService,
  ClusterService,
  KVService,
  LeaseService,
  MaintenanceService,
  WatchService,
} from "../../../src/proto/etcdserverpb.ts";
import { ElectionService } from "../../../src/proto/v3electionpb.ts";
import { LockService } from "../../../src/proto/v3lockpb.ts";
import { NO_TLS } from "../../../src/rpc/tls/context.ts";
import type { AuthOptions } from "../../../src/server/contract/options.ts";
import { AUTH_DEFAULTS } from "../../../src/server/contract/options.ts";
import { Authority, writePair } from "../../harness/certificates.ts";
import { type InProcess, type InProcessOptions, startInProcess, tempDir } from "../../harness/in-process.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";
import { waitFor } from "../../harness/wait.ts";
import { bytes, put, putOp, range, rangeOp, remove, removeOp, txn, txnOp, valueIs } from "../../server/requests.ts";

const fast: AuthOptions = { ...AUTH_DEFAULTS, bcryptCost: 4 };
const { READ, WRITE } = PermissionType;

/** A member with users: root, anna (may read a…m and write a…c), bob (no role) and nopass. */
async function start(t: TestContext, options: InProcessOptions & { auth?: Partial<AuthOptions> } = {}) {
  const { auth, server, ...rest } = options;
  const member = await startInProcess({ ...rest, server: { auth: { ...fast, ...auth }, ...server } });
  t.after(async () => {
    await member.close();
    assert.deepEqual(member.failures, []);
  });
  await createUsers(member.client);
  return { member, ...(await logIn(t, member)) };
}

async function createUsers(client: RawClient): Promise<void> {
  for (const name of ["root", "anna", "bob"]) await client.unary(AuthService.UserAdd, { name, password: `${name}'s` });
  await client.unary(AuthService.UserAdd, { name: "nopass", options: { noPassword: true } });
  await client.unary(AuthService.RoleAdd, { name: "r" });
  for (const [permType, end] of [
    [READ, "m"],
    [WRITE, "c"],
  ] as const) {
    const perm = { permType, key: bytes("a"), rangeEnd: bytes(end) };
    await client.unary(AuthService.RoleGrantPermission, { name: "r", perm });
  }
  await client.unary(AuthService.UserGrantRole, { user: "root", role: "root" });
  await client.unary(AuthService.UserGrantRole, { user: "anna", role: "r" });
  await client.unary(AuthService.AuthEnable, {});
}

async function tokenOf(client: RawClient, name: string): Promise<string> {
  return (await client.unary(AuthService.Authenticate, { name, password: `${name}'s` })).token;
}

async function logIn(t: TestContext, { client, url }: InProcess) {
  const as = async (name: string): Promise<RawClient> => {
    const own = connect(url, { metadata: { token: await tokenOf(client, name) } });
    t.after(() => own.close());
    return own;
  };
  return { nobody: client, root: await as("root"), anna: await as("anna"), bob: await as("bob"), as };
}

const denied = { code: 7, details: "etcdserver: permission denied" };
const noUser = { code: 3, details: "etcdserver: user name is empty" };
const badToken = { code: 16, details: "etcdserver: invalid auth token" };
const oldRevision = { code: 3, details: "etcdserver: revision of auth store is old" };

describe("keys", () => {
  test("are read and written by users with permission", async (t) => {
    const { anna, root } = await start(t);
    await anna.unary(KVService.Put, put("b", "1"));
    await root.unary(KVService.Put, put("z", "1"));
    assert.equal((await anna.unary(KVService.Range, range("a", "m"))).count, 1);
    assert.equal((await anna.unary(KVService.Range, range("b", "", { serializable: true }))).count, 1);
    assert.equal((await root.unary(KVService.Range, range("\0", "\0"))).count, 2);
    assert.equal((await anna.unary(KVService.DeleteRange, remove("a", "c", { prevKv: true }))).deleted, 1);
  });

  test("are refused to users without permission", async (t) => {
    const { anna, bob, nobody } = await start(t);
    await assert.rejects(anna.unary(KVService.Put, put("d")), denied);
    await assert.rejects(anna.unary(KVService.Range, range("a", "n")), denied);
    await assert.rejects(anna.unary(KVService.Range, range("a", "\0")), denied);
    await assert.rejects(anna.unary(KVService.DeleteRange, remove("a", "d")), denied);
    await assert.rejects(bob.unary(KVService.Range, range("a", "", { serializable: true })), denied);
    for (const [method, request] of [
      [KVService.Put, put("b")],
      [KVService.Range, range("b")],
      [KVService.DeleteRange, remove("b")],
      [KVService.Txn, txn([putOp("b")])],
      [KVService.Txn, txn([rangeOp("b")])],
    ] as const) {
      await assert.rejects(nobody.unary(method as typeof KVService.Put, request as ReturnType<typeof put>), noUser);
    }
  });

  test("of a transaction are all checked, whichever branch is taken", async (t) => {
    const { anna } = await start(t);
    const allowed = txn([putOp("b", "1"), rangeOp("a", "m")], [removeOp("b")], [valueIs("b", "x")]);
    assert.equal((await anna.unary(KVService.Txn, allowed)).succeeded, false);
    for (const request of [
      txn([rangeOp("b")], [], [valueIs("z", "x")]),
      txn([putOp("b")], [putOp("z")]),
      txn([rangeOp("b")], [rangeOp("z")]),
      txn([putOp("b")], [txnOp(txn([removeOp("d")]))]),
      txn([removeOp("a", "d")]),
    ]) {
      await assert.rejects(anna.unary(KVService.Txn, request), denied);
    }
  });

  test("of previous values need read permission", async (t) => {
    const { anna, root } = await start(t);
    await root.unary(AuthService.RoleAdd, { name: "w" });
    const perm = { permType: WRITE, key: bytes("w"), rangeEnd: bytes("") };
    await root.unary(AuthService.RoleGrantPermission, { name: "w", perm });
    await root.unary(AuthService.UserGrantRole, { user: "anna", role: "w" });
    await anna.unary(KVService.Put, put("w"));
    await assert.rejects(anna.unary(KVService.Put, put("w", "", { prevKv: true })), denied);
    await assert.rejects(anna.unary(KVService.DeleteRange, remove("w", "", { prevKv: true })), denied);
    await assert.rejects(anna.unary(KVService.Txn, txn([putOp("w", "", { prevKv: true })])), denied);
    await anna.unary(KVService.DeleteRange, remove("w"));
  });

  test("are streamed to users with permission", async (t) => {
    const { anna, root } = await start(t);
    for (const key of ["a", "b", "z"]) await root.unary(KVService.Put, put(key));
    const read = async (end: string): Promise<number> => {
      const stream = anna.stream(KVService.RangeStream);
      await stream.send(range("a", end));
      let count = 0;
      for await (const { rangeResponse } of stream) count += rangeResponse!.kvs.length;
      return count;
    };
    assert.equal(await read("m"), 2);
    await assert.rejects(read("\0"), denied);
  });
});

describe("a watch", () => {
  async function firstOf(client: RawClient, request: { key: string; rangeEnd?: string; startRevision?: number }) {
    const stream = client.stream(WatchService.Watch);
    const { key, rangeEnd = "", startRevision = 0 } = request;
    await stream.send({ createRequest: { ...empty, key: bytes(key), rangeEnd: bytes(rangeEnd), startRevision } });
    for await (const response of stream) return response;
    throw new Error("the stream ended");
  }
  const empty = {
    filters: [],
    prevKv: false,
    fragment: false,
    watchId: 0,
    progressNotify: false,
    key: bytes(""),
    rangeEnd: bytes(""),
    startRevision: 0,
  };

  test("needs read permission on its keys", async (t) => {
    const { anna, bob, nobody } = await start(t);
    const made = await firstOf(anna, { key: "a", rangeEnd: "m" });
    assert.deepEqual([made.created, made.canceled], [true, false]);
    for (const [client, key, rangeEnd, reason] of [
      [anna, "a", "\0", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"],
      [anna, "", "", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"],
      [bob, "a", "", "rpc error: code = PermissionDenied desc = etcdserver: permission denied"],
      [nobody, "a", "", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"],
    ] as const) {
      const refused = await firstOf(client, { key, rangeEnd });
      assert.deepEqual(
        [refused.created, refused.canceled, refused.watchId, refused.cancelReason],
        [true, true, -1, reason],
      );
    }
    const negative = await firstOf(bob, { key: "a", startRevision: -1 });
    assert.match(negative.cancelReason, /required revision has been compacted/);
  });
});

describe("a lease", () => {
  test("belongs to users with write permission on its keys", async (t) => {
    const { anna, root, bob, nobody } = await start(t);
    await assert.rejects(nobody.unary(LeaseService.LeaseGrant, { ttl: 100 }), noUser);
    const { id } = await anna.unary(LeaseService.LeaseGrant, { ttl: 100 });
    await root.unary(KVService.Put, put("d", "", { lease: id }));
    await assert.rejects(anna.unary(LeaseService.LeaseRevoke, { id }), denied);
    await assert.rejects(anna.unary(KVService.Put, put("b", "", { lease: id })), denied);
    await assert.rejects(bob.unary(LeaseService.LeaseTimeToLive, { id, keys: true }), denied);
    assert.deepEqual((await anna.unary(LeaseService.LeaseTimeToLive, { id, keys: true })).keys.map(String), ["d"]);
    assert.equal((await bob.unary(LeaseService.LeaseTimeToLive, { id })).grantedTtl, 100);
    await assert.rejects(nobody.unary(LeaseService.LeaseTimeToLive, { id }), noUser);
    await assert.rejects(bob.unary(LeaseService.LeaseLeases, {}), denied);
    await assert.rejects(nobody.unary(LeaseService.LeaseLeases, {}), noUser);
    assert.equal((await anna.unary(LeaseService.LeaseLeases, {})).leases.length, 1);
    await assert.rejects(renew(anna, id), denied);
    await assert.rejects(renew(nobody, id), noUser);
    assert.equal(await renew(root, id), 100);
    await root.unary(LeaseService.LeaseRevoke, { id });
  });

  async function renew(client: RawClient, id: bigint): Promise<number> {
    const stream = client.stream(LeaseService.LeaseKeepAlive);
    await stream.send({ id });
    for await (const { ttl } of stream) return ttl;
    throw new Error("the stream ended");
  }

  test("is revoked by the member when it expires, whatever the permissions on its keys", async (t) => {
    const { root, member } = await start(t, { server: { tickMs: 10 } });
    const { id } = await root.unary(LeaseService.LeaseGrant, { ttl: 1 });
    await root.unary(KVService.Put, put("z", "", { lease: id }));
    await waitFor("the key is gone", async () => member.etcd.server.store.currentRevision > 2);
    assert.equal((await root.unary(KVService.Range, range("z"))).count, 0);
  });
});

describe("operations reserved for root", () => {
  test("are refused to others, and without a user", async (t) => {
    const { anna, nobody, root } = await start(t);
    await root.unary(KVService.Put, put("b"));
    const calls: ((client: RawClient) => Promise<unknown>)[] = [
      (client) => client.unary(KVService.Compact, { revision: 1 }),
      (client) => client.unary(MaintenanceService.Hash, {}),
      (client) => client.unary(MaintenanceService.HashKV, {}),
      (client) => client.unary(MaintenanceService.Defragment, {}),
      (client) => client.unary(MaintenanceService.Alarm, { action: AlarmAction.DEACTIVATE }),
      async (client) => {
        const stream = client.stream(MaintenanceService.Snapshot);
        await stream.send({});
        for await (const { blob } of stream) if (blob.length > 0) return;
      },
      (client) => client.unary(AuthService.UserList, {}),
      (client) => client.unary(AuthService.RoleList, {}),
      (client) => client.unary(AuthService.UserAdd, { name: "eve", password: "x" }),
      (client) => client.unary(AuthService.RoleAdd, { name: "s" }),
      (client) => client.unary(AuthService.AuthEnable, {}),
    ];
    for (const call of calls) {
      await assert.rejects(call(anna), denied);
      await assert.rejects(call(nobody), noUser);
      await call(root);
    }
    await assert.rejects(anna.unary(ClusterService.MemberRemove, { id: 1n }), denied);
    await assert.rejects(anna.unary(MaintenanceService.MoveLeader, { targetId: 1n }), denied);
  });

  test("do not include status, alarms and the member list, nor enabling authentication", async (t) => {
    const { bob, nobody } = await start(t);
    await bob.unary(MaintenanceService.Status, {});
    await bob.unary(MaintenanceService.Alarm, { action: AlarmAction.GET });
    assert.equal((await bob.unary(ClusterService.MemberList, {})).members.length, 1);
    await assert.rejects(nobody.unary(MaintenanceService.Status, {}), noUser);
    await assert.rejects(nobody.unary(ClusterService.MemberList, {}), noUser);
    await assert.rejects(nobody.unary(ClusterService.MemberList, { linearizable: true }), noUser);
    const { enabled, authRevision } = await nobody.unary(AuthService.AuthStatus, {});
    assert.deepEqual([enabled, authRevision], [true, 10]);
  });

  test("do not include reading one's own roles", async (t) => {
    const { anna, bob } = await start(t);
    assert.deepEqual((await anna.unary(AuthService.UserGet, { name: "anna" })).roles, ["r"]);
    assert.equal((await anna.unary(AuthService.RoleGet, { role: "r" })).perm.length, 2);
    await assert.rejects(bob.unary(AuthService.UserGet, { name: "anna" }), denied);
    await assert.rejects(bob.unary(AuthService.RoleGet, { role: "r" }), denied);
  });
});

describe("a token", () => {
  test("is issued only for the right password", async (t) => {
    const { nobody } = await start(t);
    const failed = { code: 3, details: "etcdserver: authentication failed, invalid user ID or password" };
    await assert.rejects(nobody.unary(AuthService.Authenticate, { name: "anna", password: "x" }), failed);
    await assert.rejects(nobody.unary(AuthService.Authenticate, { name: "eve", password: "x" }), failed);
    await assert.rejects(nobody.unary(AuthService.Authenticate, { name: "nopass", password: "" }), {
      code: 2,
      details: "auth: authentication failed, password was given for no password user",
    });
  });

  test("that is invalid fails every call that checks it", async (t) => {
    const { member } = await start(t);
    const stranger = connect(member.url, { metadata: { token: "abcdefghijklmnop.1" } });
    t.after(() => stranger.close());
    for (const [method, request] of [
      [KVService.Put, put("b")],
      [KVService.Range, range("b")],
      [AuthService.AuthStatus, {}],
      [MaintenanceService.Status, {}],
      [LeaseService.LeaseGrant, {}],
    ] as const) {
      await assert.rejects(stranger.unary(method as typeof KVService.Put, request as ReturnType<typeof put>), badToken);
    }
    assert.match(member.logger.lines.map(({ message }) => message).join("\n"), /invalid auth token/);
  });

  test("is waited for at a member that has not applied its entry, and unknown when it does not come", async (t) => {
    const { member, root } = await start(t, { server: { tickMs: 1, electionTicks: 10 } });
    const token = `abcdefghijklmnop.${member.etcd.server.replication.appliedIndex + 2}`;
    const early = connect(member.url, { metadata: { token } });
    t.after(() => early.close());
    const answered = assert.rejects(early.unary(KVService.Range, range("b")), badToken);
    await root.unary(KVService.Put, put("b"));
    await root.unary(KVService.Put, put("b"));
    await answered;
  });

  test("becomes invalid when the password changes or the user is deleted", async (t) => {
    const { anna, bob, root, as } = await start(t);
    await root.unary(AuthService.UserChangePassword, { name: "anna", password: "new" });
    await assert.rejects(anna.unary(KVService.Range, range("b")), badToken);
    await assert.rejects(as("anna"), { details: /authentication failed/ });
    await root.unary(AuthService.UserDelete, { name: "bob" });
    await assert.rejects(bob.unary(KVService.Range, range("b")), badToken);
  });

  test("is not needed once authentication is disabled", async (t) => {
    const { root, nobody } = await start(t);
    await root.unary(AuthService.AuthDisable, {});
    await nobody.unary(KVService.Put, put("z"));
    await assert.rejects(nobody.unary(AuthService.Authenticate, { name: "anna", password: "anna's" }), {
      code: 9,
      details: "etcdserver: authentication is not enabled",
    });
  });

  test("that is signed becomes invalid when users or roles change", async (t) => {
    const dir = tempDir();
    t.after(() => dir.remove());
    const key = join(dir.path, "key");
    writeFileSync(key, "a secret of the cluster");
    const { anna, root, as } = await start(t, { auth: { token: `jwt,sign-method=HS256,priv-key=${key}` } });
    await anna.unary(KVService.Put, put("b"));
    await root.unary(AuthService.RoleAdd, { name: "s" });
    await assert.rejects(anna.unary(KVService.Put, put("b")), oldRevision);
    await assert.rejects(anna.unary(KVService.Range, range("b")), oldRevision);
    await (await as("anna")).unary(KVService.Put, put("b"));
  });
});

describe("locks and elections", () => {
  test("run as the caller's user", async (t) => {
    const { anna, bob, root } = await start(t);
    const deniedUnknown = { code: 2, details: "etcdserver: permission denied" };
    await assert.rejects(bob.unary(LockService.Lock, { name: bytes("b") }), deniedUnknown);
    await assert.rejects(bob.unary(ElectionService.Campaign, { name: bytes("b"), value: bytes("x") }), deniedUnknown);
    await assert.rejects(bob.unary(ElectionService.Leader, { name: bytes("b") }), deniedUnknown);
    const { key } = await anna.unary(LockService.Lock, { name: bytes("b") });
    await assert.rejects(bob.unary(LockService.Unlock, { key }), deniedUnknown);
    await root.unary(LockService.Unlock, { key });
    await anna.unary(ElectionService.Campaign, { name: bytes("be"), value: bytes("x") });
    assert.equal(String((await anna.unary(ElectionService.Leader, { name: bytes("be") })).kv?.value), "x");
  });
});

describe("HTTP", () => {
  async function post(url: string, path: string, body: object, headers: Record<string, string> = {}) {
    const response = await fetch(`${url}/v3/${path}`, { method: "POST", body: JSON.stringify(body), headers });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  }

  test("accepts the token in the Authorization header, with or without Bearer", async (t) => {
    const { member } = await start(t);
    const login = await post(member.url, "auth/authenticate", { name: "anna", password: "anna's" });
    const token = String(login.body["token"]);
    const key = bytes("b").toString("base64");
    for (const authorization of [token, `Bearer ${token}`]) {
      const answer = await post(member.url, "kv/put", { key, value: key }, { authorization });
      assert.equal(answer.status, 200);
    }
    assert.deepEqual((await post(member.url, "kv/put", { key })).body["message"], "etcdserver: user name is empty");
    const wrong = await post(member.url, "kv/range", { key }, { authorization: "x" });
    assert.deepEqual([wrong.status, wrong.body["message"]], [401, "etcdserver: invalid auth token"]);
  });

  test("health needs no user", async (t) => {
    const { member } = await start(t);
    for (const path of ["health", "readyz"]) assert.equal((await fetch(`${member.url}/${path}`)).status, 200);
  });
});

describe("a client certificate", async () => {
  const dir = tempDir();
  after(() => dir.remove());
  const ca = await Authority.create("ca");
  const caFile = join(dir.path, "ca.crt");
  writeFileSync(caFile, ca.pem);
  const clientTls: ClientTls = {
    ...NO_TLS,
    ...writePair(dir.path, "server", await ca.issue({ cn: "server" })),
    trustedCaFile: caFile,
    clientCertAuth: true,
    minVersion: "TLS1.2",
    autoTls: false,
    selfSignedCertValidityYears: 1,
  };
  const tlsOf = async (cn: string): Promise<TlsOptions> => {
    const pair = await ca.issue(cn === "" ? {} : { cn });
    return { ca: bytes(ca.pem), cert: bytes(pair.cert), key: bytes(pair.key) };
  };

  async function startTls(t: TestContext, clientCertAuth: boolean) {
    const listenClient = [{ kind: "tcp", host: "127.0.0.1", port: 0, url: "https://127.0.0.1:0" } as const];
    const member = await startInProcess({
      server: { auth: { ...fast, clientCertAuth } },
      etcd: { clientTls, listenClient },
    });
    t.after(() => member.close());
    const as = async (cn: string, metadata: Record<string, string> = {}): Promise<RawClient> => {
      const client = connect(member.url, { tls: await tlsOf(cn), metadata });
      t.after(() => client.close());
      return client;
    };
    await createUsers(await as("setup"));
    return { member, as };
  }

  test("identifies the client, unless a token does", async (t) => {
    const { as } = await startTls(t, true);
    await (await as("root")).unary(KVService.Put, put("z"));
    await (await as("anna")).unary(KVService.Put, put("b"));
    await assert.rejects((await as("anna")).unary(KVService.Put, put("z")), denied);
    await assert.rejects((await as("stranger")).unary(KVService.Put, put("b")), denied);
    const token = await tokenOf(await as("bob"), "anna");
    await (await as("bob", { token })).unary(KVService.Put, put("b"));
    await assert.rejects((await as("root", { token })).unary(KVService.Put, put("z")), denied);
  });

  test("is ignored without --client-cert-auth", async (t) => {
    const { as } = await startTls(t, false);
    await assert.rejects((await as("root")).unary(KVService.Put, put("z")), noUser);
  });

  test("with a name must not come over HTTP, where it would be taken for the server's", async (t) => {
    const { member } = await startTls(t, true);
    const { ca: root, cert, key } = await tlsOf("root");
    const answer = await new Promise<{ status: number | undefined; body: string }>((resolve, reject) => {
      const options = { method: "POST", ca: [Buffer.from(root!)], cert: Buffer.from(cert!), key: Buffer.from(key!) };
      const request = https.request(`${member.url}/v3/kv/range`, { ...options, agent: false }, (response) => {
        let body = "";
        response.on("data", (chunk) => (body += chunk));
        response.on("end", () => resolve({ status: response.statusCode, body }));
      });
      request.on("error", reject);
      request.end("{}");
    });
    assert.deepEqual(answer, {
      status: 400,
      body: "CommonName of client sending a request against gateway will be ignored and not used as expected\n",
    });
  });
});

test("users, roles and the enabled flag survive a restart, earlier tokens do not", async (t) => {
  const dir = tempDir();
  t.after(() => dir.remove());
  const dataDir = join(dir.path, "data");
  const first = await startInProcess({ dataDir, server: { auth: fast } });
  await createUsers(first.client);
  const token = await tokenOf(first.client, "anna");
  await first.close();
  const second = await startInProcess({ dataDir, server: { auth: fast } });
  t.after(() => second.close());
  await assert.rejects(second.client.unary(KVService.Put, put("b")), noUser);
  await assert.rejects(second.client.unary(KVService.Put, put("b"), { metadata: { token } }), badToken);
  const fresh = await tokenOf(second.client, "anna");
  await second.client.unary(KVService.Put, put("b"), { metadata: { token: fresh } });
});

test("an unusable --auth-token prevents the member from starting", async () => {
  await assert.rejects(startInProcess({ server: { auth: { ...fast, token: "jwt" } } }), {
    message: "auth: invalid auth options",
  });
});

test("requests that others make while a password is checked do not wait for it", async (t) => {
  const { nobody, root } = await start(t, { auth: { bcryptCost: 10 } });
  const logins = Array.from({ length: 4 }, () => tokenOf(nobody, "anna"));
  let done = false;
  void Promise.all(logins).then(() => {
    done = true;
  });
  await root.unary(KVService.Put, put("z"));
  assert.equal(done, false);
  await Promise.all(logins);
});

test("a storm of logins on one connection does not prevent others from logging in", async (t) => {
  const { member } = await start(t, { auth: { bcryptCost: 6 } });
  const connected = (): RawClient => {
    const client = connect(member.url);
    t.after(() => client.close());
    return client;
  };
  const attacker = connected();
  let refused = 0;
  const storm = Array.from({ length: 300 }, () =>
    attacker.unary(AuthService.Authenticate, { name: "anna", password: "guessed" }).catch((error: RpcError) => {
      if (error.code === Code.RESOURCE_EXHAUSTED) refused++;
      else assert.equal(error.code, Code.INVALID_ARGUMENT);
    }),
  );
  await waitFor("the line is full", () => refused > 0);
  assert.notEqual(await tokenOf(connected(), "anna"), "");
  assert.ok(refused < 300, "the storm goes on");
  await Promise.all(storm);
  const said = member.logger.lines.filter(({ message }) => message === "invalid password");
  assert.equal(said.length, 1);
});

test("invalid tokens of one address are checked up to a number a second", () => {
  const clock = new VirtualClock();
  const failures = new TokenFailures(clock);
  for (let i = 0; i < 200; i++) failures.add("a");
  assert.deepEqual([failures.tooMany("a"), failures.tooMany("b")], [true, false]);
  clock.advance(1000);
  assert.equal(failures.tooMany("a"), false);
});
