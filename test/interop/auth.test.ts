/**
 * Authentication against stock etcd: the same requests get the same answers, stock etcdctl works with ours, ours with
 * stock, and users of a backup taken here can log in there.
 */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { MethodType } from "../../src/base/protobuf.ts";
import { type RawClient, RpcError } from "../../src/client/raw.ts";
import { Permission_Type as PermissionType } from "../../src/proto/authpb.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AuthService,
  KVService,
  LeaseService,
  MaintenanceService,
  type ResponseHeader,
} from "../../src/proto/etcdserverpb.ts";
import { type Member, withCluster } from "../harness/cluster.ts";
import {
  ourEtcd,
  type Program,
  repositoryRoot,
  requireProgram,
  requireStockEtcd,
  run,
  stockEtcd,
  stockEtcdVersion,
} from "../harness/programs.ts";
import { type Server, startServer, startServers } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";
import { bytes, put, putOp, range, rangeOp, remove, txn, valueIs } from "../server/requests.ts";
import { show } from "./compare.ts";

const etcdctl = process.env["KVORUM_STOCK_ETCDCTL"] || "etcdctl";
/** Since 3.6 etcdctl leaves file operations to etcdutl: KVORUM_STOCK_ETCDUTL is its path then. */
const snapshotTool = process.env["KVORUM_STOCK_ETCDUTL"] || etcdctl;
const env = { ETCDCTL_API: "3" };
const skip = requireStockEtcd() || requireProgram(etcdctl);
const stockVersion = (await stockEtcdVersion()) ?? 0;

const { READ, WRITE, READWRITE } = PermissionType;

interface Step {
  readonly as: string;
  readonly method: MethodType;
  readonly request: object;
  /** Older versions answer differently. */
  readonly since: number;
}

const step = <I>(as: string, method: MethodType<I>, request: Partial<I>, since = 3.004): Step => ({
  as,
  method: method as MethodType,
  request,
  since,
});

const permission = (permType: PermissionType, key: string, rangeEnd = "") => ({
  permType,
  key: bytes(key),
  rangeEnd: bytes(rangeEnd),
});

const { RoleAdd, RoleGet, RoleList, RoleDelete, RoleGrantPermission, RoleRevokePermission } = AuthService;
const { UserAdd, UserGet, UserList, UserDelete, UserChangePassword, UserGrantRole, UserRevokeRole } = AuthService;

/** In order; the user "" sends no token, "?" an invalid one. */
const steps: readonly Step[] = [
  step("", AuthService.AuthStatus, {}, 3.005),
  step("", AuthService.AuthEnable, {}),
  step("", AuthService.AuthDisable, {}),
  step("", AuthService.Authenticate, { name: "root", password: "x" }),
  step("", UserAdd, { name: "", password: "x" }),
  step("", UserAdd, { name: "root", password: "root's" }),
  step("", UserAdd, { name: "root", password: "again" }),
  step("", UserAdd, { name: "long", password: "x".repeat(73) }, 3.005),
  step("", AuthService.AuthEnable, {}),
  step("", UserGrantRole, { user: "root", role: "nothing" }),
  step("", UserGrantRole, { user: "nobody", role: "root" }),
  step("", UserGrantRole, { user: "root", role: "root" }),
  step("", UserGrantRole, { user: "root", role: "root" }),
  step("", RoleAdd, { name: "" }, 3.005),
  step("", RoleAdd, { name: "r" }),
  step("", RoleAdd, { name: "r" }),
  step("", RoleAdd, { name: "q" }),
  step("", RoleAdd, { name: "b" }),
  step("", RoleGrantPermission, { name: "none", perm: permission(READ, "a") }),
  step("", RoleGrantPermission, { name: "r" }, 3.005),
  step("", RoleGrantPermission, { name: "r", perm: permission(READ, "") }, 3.006),
  step("", RoleGrantPermission, { name: "r", perm: permission(READ, "b", "a") }, 3.006),
  step("", RoleGrantPermission, { name: "r", perm: permission(READWRITE, "k", "m") }),
  step("", RoleGrantPermission, { name: "r", perm: permission(READ, "a", "c") }),
  step("", RoleGrantPermission, { name: "r", perm: permission(WRITE, "a") }),
  step("", RoleGrantPermission, { name: "r", perm: permission(READ, "a") }),
  step("", RoleGrantPermission, { name: "q", perm: permission(READWRITE, "x", "\0") }),
  step("", RoleGet, { role: "r" }),
  // So many permissions of one key that etcd's unstable sort shows in the result.
  step("", RoleAdd, { name: "many" }),
  ...Array.from({ length: 60 }, (_, i) => {
    const perm = permission((i % 3) as PermissionType, `k${(i * 5) % 7}`, i % 4 === 0 ? "" : `l${(i * 11) % 6}`);
    return step("", RoleGrantPermission, { name: "many", perm });
  }),
  step("", RoleGet, { role: "many" }),
  step("", RoleGet, { role: "none" }),
  step("", RoleRevokePermission, { role: "r", key: bytes("zz"), rangeEnd: bytes("") }),
  step("", RoleRevokePermission, { role: "none", key: bytes("zz"), rangeEnd: bytes("") }),
  step("", UserAdd, { name: "anna", password: "anna's" }),
  step("", UserAdd, { name: "bob", password: "bob's" }),
  step("", UserAdd, { name: "cert", options: { noPassword: true } }),
  step("", UserGrantRole, { user: "anna", role: "r" }),
  step("", UserGrantRole, { user: "anna", role: "b" }),
  step("", UserGet, { name: "anna" }),
  step("", UserGet, { name: "none" }),
  step("", UserList, {}),
  step("", RoleList, {}),
  step("", AuthService.AuthEnable, {}),
  step("", AuthService.AuthStatus, {}, 3.007),
  step("", AuthService.Authenticate, { name: "root", password: "x" }),
  step("", AuthService.Authenticate, { name: "none", password: "x" }),
  step("", AuthService.Authenticate, { name: "cert", password: "x" }),
  step("", AuthService.AuthEnable, {}),
  step("root", AuthService.AuthEnable, {}),
  step("", AuthService.AuthDisable, {}),
  step("bob", AuthService.AuthDisable, {}),
  ...["", "?", "anna", "bob", "root"].flatMap((as) => [
    step(as, KVService.Put, put("k1", "v")),
    step(as, KVService.Put, put("a", "v", { prevKv: true })),
    step(as, KVService.Put, put("x9", "v")),
    step(as, KVService.Range, range("k", "m")),
    step(as, KVService.Range, range("k", "n")),
    step(as, KVService.Range, range("k", "\0")),
    step(as, KVService.Range, range("a", "", { serializable: true })),
    step(as, KVService.Txn, txn([putOp("k2", "v")], [rangeOp("b")], [valueIs("k1", "v")])),
    step(as, KVService.Txn, txn([rangeOp("b")], [putOp("z", "v")])),
    step(as, KVService.Txn, txn([rangeOp("b")], [], [valueIs("z", "v")])),
    step(as, KVService.DeleteRange, remove("k1", "", { prevKv: true })),
    step(as, KVService.DeleteRange, remove("a", "\0")),
    step(as, LeaseService.LeaseGrant, { id: 77n, ttl: 1000 }, 3.007),
    step(as, LeaseService.LeaseTimeToLive, { id: 78n }, 3.007),
    step(as, LeaseService.LeaseRevoke, { id: 77n }, 3.007),
    step(as, MaintenanceService.Alarm, { action: AlarmAction.GET }, 3.007),
    step(as, MaintenanceService.Alarm, { action: AlarmAction.DEACTIVATE }, 3.007),
    step(as, MaintenanceService.Hash, {}, 9),
    step(as, MaintenanceService.HashKV, {}, 3.006),
    step(as, MaintenanceService.MoveLeader, { targetId: 1n }, 3.006),
    step(as, MaintenanceService.Defragment, {}, 3.006),
    step(as, UserList, {}),
    step(as, RoleList, {}),
    step(as, UserGet, { name: "anna" }),
    step(as, UserGet, { name: "none" }),
    step(as, RoleGet, { role: "r" }),
    step(as, RoleGet, { role: "root" }),
    step(as, RoleAdd, { name: `of-${as}` }),
    step(as, UserAdd, { name: "eve", options: { noPassword: true } }),
    step(as, UserDelete, { name: "eve" }),
  ]),
  step("root", UserDelete, { name: "root" }),
  step("root", UserRevokeRole, { name: "root", role: "root" }),
  step("root", RoleDelete, { role: "root" }),
  step("root", RoleAdd, { name: "root" }),
  step("root", RoleGet, { role: "root" }, 3.006),
  step("root", RoleDelete, { role: "b" }),
  step("root", RoleDelete, { role: "b" }),
  step("root", UserGet, { name: "anna" }),
  step("root", UserRevokeRole, { name: "anna", role: "b" }),
  step("root", UserRevokeRole, { name: "none", role: "b" }),
  step("root", RoleRevokePermission, { role: "r", key: bytes("k"), rangeEnd: bytes("m") }),
  step("root", RoleGet, { role: "r" }),
  step("anna", KVService.Put, put("k1", "v")),
  step("root", UserChangePassword, { name: "anna", password: "new" }),
  step("root", UserChangePassword, { name: "none", password: "new" }),
  step("anna", KVService.Range, range("a")),
  step("root", UserDelete, { name: "bob" }),
  step("root", UserDelete, { name: "bob" }),
  step("bob", KVService.Range, range("a")),
  step("", AuthService.Authenticate, { name: "bob", password: "bob's" }),
  step("", AuthService.AuthStatus, {}, 3.007),
  step("root", AuthService.AuthDisable, {}),
  step("root", AuthService.AuthDisable, {}, 3.005),
  step("", KVService.Range, range("\0", "\0")),
  step("", AuthService.AuthStatus, {}, 3.005),
];

/** Performs the steps, each user logging in on first use. */
async function perform(client: RawClient): Promise<string[]> {
  const tokens = new Map([
    ["", ""],
    ["?", "abcdefghijklmnop.1"],
  ]);
  const answers: string[] = [];
  for (const { as, method, request, since } of steps) {
    if (stockVersion < since) continue;
    if (!tokens.has(as)) {
      const login = await client.unary(AuthService.Authenticate, { name: as, password: `${as}'s` });
      assert.match(login.token, /^[a-zA-Z]{16}\.\d+$/);
      tokens.set(as, login.token);
    }
    const token = tokens.get(as)!;
    const metadata: Record<string, string> = token === "" ? {} : { token };
    const name = `${as || "nobody"}: ${method.path} ${show(request)}`;
    answers.push(`${name}\n  ${await answerOf(client, method, request, metadata)}`);
  }
  return answers;
}

async function answerOf(
  client: RawClient,
  method: MethodType,
  request: object,
  metadata: Record<string, string>,
): Promise<string> {
  try {
    const response = (await client.unary(method, request, { metadata })) as { header?: ResponseHeader };
    const { header } = response;
    // Ids and terms are each server's own.
    if (header !== undefined) response.header = { ...header, clusterId: 0n, memberId: 0n, raftTerm: 0 };
    return show(response);
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    return error.message;
  }
}

describe("the same requests by users", { skip }, () => {
  let stock: Server;
  let ours: Server;

  before(async () => {
    [stock, ours] = (await startServers([stockEtcd(), ourEtcd()], { args: ["--bcrypt-cost=4"] })) as [Server, Server];
  });
  after(() => Promise.all([stock, ours].map((server) => server?.close())));

  test("get stock etcd's answers", async () => {
    const [expected, actual] = await Promise.all([perform(stock.client), perform(ours.client)]);
    assert.deepEqual(actual, expected);
  });
});

/** A line for etcdctl; an underscore stands for a blank within an argument. */
const words = (line: string): string[] => line.split(" ").map((word) => word.replaceAll("_", " "));

const commands = [
  "user add root:root's",
  "user grant-role root root",
  "role add r",
  "role grant-permission r readwrite k --prefix",
  "role grant-permission r read z",
  "role get r",
  "user add anna:anna's",
  "user grant-role anna r",
  "user get anna",
  "user get anna --detail",
  "user list",
  "role list",
  "auth enable",
  "--user anna:anna's put k1 v1",
  "--user anna:anna's get k --prefix",
  "--user anna:anna's put other v1",
  "--user anna:wrong get k1",
  "--user nobody:x get k1",
  "get k1",
  "--user anna:anna's user list",
  "--user anna:anna's lease grant 100 -w fields",
  "--user anna --password anna's get k1",
  "--user root:root's user passwd anna --interactive=false",
  "--user root:root's role revoke-permission r z",
  "--user root:root's user revoke-role anna r",
  "--user anna:new get k1",
  "--user root:root's user delete anna",
  "--user root:root's role delete r",
  "--user root:root's auth disable",
  "get k1",
];

/** Differences between servers: ids, terms, and the times of log lines. */
const printed = (text: string): string =>
  text
    .replace(/\b[0-9a-f]{14,20}\b/g, "ID")
    .replace(/"(ClusterID|MemberID|ID)" : \d+/g, '"$1" : ID')
    .replace(/"RaftTerm" : \d+/g, '"RaftTerm" : T')
    .replace(/"ts":"[^"]*"|\d{4}-\d\d-\d\d[T ][\d:.]+Z?/g, "TIME")
    .replace(/127\.0\.0\.1:\d+/g, "ADDRESS")
    .replace(/"target":"[^"]*"|endpoint-[0-9a-f-]+|0xc[0-9a-f]+/g, "TARGET");

async function drive(ctl: Program, server: Server): Promise<string[]> {
  const results: string[] = [];
  for (const line of commands) {
    const input = line.includes("passwd") ? "new\n" : "";
    const args = ["--endpoints", server.endpoint, ...words(line)];
    const { code, stdout, stderr } = await run(ctl, args, { env, input });
    results.push(printed(`etcdctl ${line}: ${code}\n${stdout}${stderr}`));
  }
  return results;
}

describe("etcdctl", { skip }, () => {
  test("of stock etcd prints the same for our server as for stock", async () => {
    const servers = await startServers([stockEtcd(), ourEtcd()], { args: ["--bcrypt-cost=4"] });
    try {
      const ctl = { file: etcdctl, args: [] };
      const [expected, actual] = await Promise.all(servers.map((server) => drive(ctl, server)));
      assert.deepEqual(actual, expected);
    } finally {
      await Promise.all(servers.map((server) => server.close()));
    }
  });

  test("of ours does the same with stock etcd as with ours", async () => {
    const servers = await startServers([stockEtcd(), ourEtcd()], { args: ["--bcrypt-cost=4"] });
    try {
      const ctl = { file: process.execPath, args: [join(repositoryRoot, "bin", "etcdctl")] };
      const [expected, actual] = await Promise.all(servers.map((server) => drive(ctl, server)));
      assert.deepEqual(actual, expected);
    } finally {
      await Promise.all(servers.map((server) => server.close()));
    }
  });
});

/** 3.6 is the only version that checks whose data it is. */
const refusesNewer = stockVersion === 3.006 && "etcd 3.6 refuses the data of a newer version";

test("a backup with users, restored in stock etcd, lets them log in there", {
  skip: skip || refusesNewer,
}, async () => {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-test-"));
  const ours = await startServer(ourEtcd(), { args: ["--bcrypt-cost=4"] });
  let stock: Server | undefined;
  try {
    const { client } = ours;
    for (const name of ["root", "anna"]) await client.unary(UserAdd, { name, password: `${name}'s` });
    await client.unary(UserGrantRole, { user: "root", role: "root" });
    await client.unary(RoleAdd, { name: "r" });
    await client.unary(RoleGrantPermission, { name: "r", perm: permission(READWRITE, "k", "l") });
    await client.unary(UserGrantRole, { user: "anna", role: "r" });
    await client.unary(KVService.Put, put("k1", "v1"));
    await client.unary(AuthService.AuthEnable, {});
    const file = join(dir, "backup.db");
    const saved = await run(
      etcdctl,
      ["--endpoints", ours.endpoint, "--user", "root:root's", "snapshot", "save", file],
      {
        env,
      },
    );
    assert.equal(saved.code, 0, saved.stderr);
    const dataDir = join(dir, "restored");
    const restored = await run(snapshotTool, ["snapshot", "restore", file, "--data-dir", dataDir], { env });
    assert.equal(restored.code, 0, restored.stderr);
    assert.ok(existsSync(dataDir));
    stock = await startServer(stockEtcd(), { dataDir, args: ["--bcrypt-cost=4"] });
    const login = await stock.client.unary(AuthService.Authenticate, { name: "anna", password: "anna's" });
    const metadata = { token: login.token };
    assert.equal((await stock.client.unary(KVService.Range, range("k1"), { metadata })).count, 1);
    await stock.client.unary(KVService.Put, put("k1", "v2"), { metadata });
    await assert.rejects(stock.client.unary(KVService.Put, put("m"), { metadata }), /permission denied/);
    await assert.rejects(stock.client.unary(KVService.Range, range("k1")), /user name is empty/);
    const root = await stock.client.unary(AuthService.Authenticate, { name: "root", password: "root's" });
    assert.deepEqual((await stock.client.unary(UserList, {}, { metadata: { token: root.token } })).users, [
      "anna",
      "root",
    ]);
  } finally {
    await ours.close();
    await stock?.close();
    rmSync(dir, { recursive: true, force: true });
  }
});

/** etcd before 3.5 numbers its tokens by one more, so no other version knows them. */
const otherTokens = stockVersion < 3.005 && "stock etcd before 3.5 numbers tokens differently";

describe("a cluster of ours and stock etcd", { skip: skip || otherTokens }, () => {
  for (const { members, leader } of [
    { members: ["ours", "stock", "stock"], leader: "ours" },
    { members: ["ours", "ours", "stock"], leader: "stock" },
  ] as const) {
    test(`${members.join(" + ")}, led by ${leader}, knows each user and token at every member`, () =>
      withCluster({ members, args: ["--bcrypt-cost=4"] }, async (cluster) => {
        const [ours, stock] = [cluster.one("ours"), cluster.one("stock")];
        // While no one asks for the leader.
        await cluster.lead(cluster.one(leader));
        await addUsers(ours.client);
        await addPermissions(stock.client);
        await stock.client.unary(AuthService.AuthEnable, {});
        for (const giver of cluster.running) await useTokenOf(giver, cluster.running);
        await changesAreKnown(ours.client, stock.client);
        await sameUsers(cluster.running);
      }));
  }

  async function addUsers(client: RawClient): Promise<void> {
    for (const name of ["root", "anna"]) await client.unary(UserAdd, { name, password: `${name}'s` });
    await client.unary(UserGrantRole, { user: "root", role: "root" });
  }

  async function addPermissions(client: RawClient): Promise<void> {
    await client.unary(RoleAdd, { name: "r" });
    await client.unary(RoleGrantPermission, { name: "r", perm: permission(READWRITE, "k", "l") });
    await client.unary(UserGrantRole, { user: "anna", role: "r" });
  }

  /** A token issued by one member is valid at all: at ours at once, at stock's when they have applied its entry. */
  async function useTokenOf(giver: Server, all: readonly Member[]): Promise<void> {
    const { token } = await giver.client.unary(AuthService.Authenticate, { name: "anna", password: "anna's" });
    const metadata = { token };
    await Promise.all(
      all.map(async ({ client, name, kind }) => {
        const use = () => client.unary(KVService.Put, put(`k-${name}`, "v"), { metadata });
        if (kind === "ours") await use();
        else await waitFor(`${name} knows the token`, () => use().catch(() => false));
        await client.unary(KVService.Range, range("k", "l"), { metadata });
        await assert.rejects(client.unary(KVService.Put, put("z"), { metadata }), /permission denied/);
        await assert.rejects(client.unary(KVService.Put, put("k")), /user name is empty/);
      }),
    );
  }

  /** A change through one member takes effect at the other. */
  async function changesAreKnown(one: RawClient, other: RawClient): Promise<void> {
    const { token } = await one.unary(AuthService.Authenticate, { name: "root", password: "root's" });
    const metadata = { token };
    await one.unary(UserChangePassword, { name: "anna", password: "new" }, { metadata });
    const login = await other.unary(AuthService.Authenticate, { name: "anna", password: "new" });
    await other.unary(RoleRevokePermission, { role: "r", key: bytes("k"), rangeEnd: bytes("l") }, { metadata });
    await assert.rejects(one.unary(KVService.Range, range("k"), { metadata: { token: login.token } }), /denied/);
  }

  /** All members hold the same data, by their hashes. */
  async function sameUsers(all: readonly Server[]): Promise<void> {
    const seen = await Promise.all(
      all.map(async ({ client }) => {
        const { token } = await client.unary(AuthService.Authenticate, { name: "root", password: "root's" });
        const metadata = { token };
        const { users } = await client.unary(UserList, {}, { metadata });
        const { roles } = await client.unary(UserGet, { name: "anna" }, { metadata });
        const { perm } = await client.unary(RoleGet, { role: "r" }, { metadata });
        return { users, roles, perm };
      }),
    );
    for (const one of seen) assert.deepEqual(one, { users: ["anna", "root"], roles: ["r"], perm: [] });
  }
});
