/**
 * Snapshots carried between ours and stock etcd: saved from a server of one by either's etcdctl, restored with the other's
 * tool, started with the other's server.
 *
 * KVORUM_STOCK_DIRS names directories of further versions, separated by colons, each with etcd, etcdctl and (since 3.5)
 * etcdutl; then every version meets every other. See docs/interop.md for the results.
 */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Permission } from "../../src/proto/authpb.ts";
import {
  AuthService,
  ClusterService,
  KVService,
  LeaseService,
  MaintenanceService,
} from "../../src/proto/etcdserverpb.ts";
import {
  findProgram,
  type Program,
  repositoryRoot,
  requireProgram,
  requireStockEtcd,
  run,
  stockEtcd,
} from "../harness/programs.ts";
import { type Server, startServer } from "../harness/server.ts";

interface Kind {
  readonly name: string;
  readonly etcd: Program;
  readonly etcdctl: Program;
  /** Restores and examines snapshots. */
  readonly tool: Program;
}

const env = { ETCDCTL_API: "3" };
const KEYS = 2000;
const ofOurs = (name: string): Program => ({ file: process.execPath, args: [join(repositoryRoot, "bin", name)] });
const ours: Kind = { name: "ours", etcd: ofOurs("etcd"), etcdctl: ofOurs("etcdctl"), tool: ofOurs("etcdutl") };

async function stockIn(directory: string): Promise<Kind> {
  const program = (name: string): Program => ({ file: join(directory, name), args: [] });
  const { stdout } = await run(program("etcd"), ["--version"]);
  const [, version = directory] = /Version: (\S+)/.exec(stdout.toString()) ?? [];
  const hasUtl = existsSync(join(directory, "etcdutl"));
  return {
    name: `stock ${version}`,
    etcd: program("etcd"),
    etcdctl: program("etcdctl"),
    tool: program(hasUtl ? "etcdutl" : "etcdctl"),
  };
}

const stockDirectories = (): string[] => {
  const more = process.env["KVORUM_STOCK_DIRS"];
  if (more) return more.split(":");
  return [dirname(findProgram(stockEtcd().file) ?? "")];
};

const skip = requireStockEtcd() || requireProgram("etcdctl");
const kinds: readonly Kind[] = skip ? [] : [ours, ...(await Promise.all(stockDirectories().map(stockIn)))];

const isOf37 = ({ name }: Kind): boolean => name === "ours" || name.startsWith("stock 3.7");

/** Everything that must be the same at the other end. */
async function contents({ client }: Server): Promise<unknown> {
  const range = await client.unary(KVService.Range, { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) });
  const hash = await client.unary(MaintenanceService.HashKV, { revision: range.header!.revision });
  const { leases } = await client.unary(LeaseService.LeaseLeases, {});
  const ttl = await client.unary(LeaseService.LeaseTimeToLive, { id: 77n, keys: true });
  const { users } = await client.unary(AuthService.UserList, {});
  const { roles } = await client.unary(AuthService.UserGet, { name: "alice" });
  const { perm } = await client.unary(AuthService.RoleGet, { role: "reader" });
  const { members } = await client.unary(ClusterService.MemberList, {});
  return {
    revision: range.header!.revision,
    count: range.count,
    kvs: range.kvs.length,
    hash: hash.hash,
    compactRevision: hash.compactRevision,
    leases: leases.map(({ id }) => id),
    leased: ttl.keys.map((key) => Buffer.from(key).toString()),
    grantedTtl: ttl.grantedTtl,
    users,
    roles,
    permissions: perm.map(({ key }) => Buffer.from(key).toString()),
    members: members.length,
  };
}

async function fill({ client }: Server): Promise<void> {
  await client.unary(LeaseService.LeaseGrant, { id: 77n, ttl: 100_000 });
  const put = (i: number, lease = 0n): Promise<unknown> =>
    client.unary(KVService.Put, {
      key: Buffer.from(`key-${i % KEYS}`),
      value: Buffer.alloc(i === 7 ? 50_000 : 200, i),
      lease,
    });
  for (let i = 0; i < KEYS; i += 100) await Promise.all(Array.from({ length: 100 }, (_, j) => put(i + j)));
  await put(5, 77n);
  await client.unary(KVService.DeleteRange, { key: Buffer.from("key-10"), rangeEnd: Buffer.from("key-11") });
  const { header } = await client.unary(KVService.Put, { key: Buffer.from("last"), value: Buffer.from("1") });
  await client.unary(KVService.Compact, { revision: header!.revision - 100, physical: true });
  await client.unary(AuthService.RoleAdd, { name: "reader" });
  await client.unary(AuthService.RoleGrantPermission, {
    name: "reader",
    perm: Permission.create({ key: Buffer.from("key-") }),
  });
  await client.unary(AuthService.UserAdd, { name: "alice", password: "wonder" });
  await client.unary(AuthService.UserGrantRole, { user: "alice", role: "reader" });
}

async function succeed(program: Program, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(program, args, { env });
  assert.equal(code, 0, `${program.file} ${[...program.args, ...args].join(" ")}: ${stderr}${stdout}`);
  return stdout.toString();
}

for (const from of kinds) {
  describe(`snapshots of a server of ${from.name}`, () => {
    const directory = mkdtempSync(join(tmpdir(), "kvorum-snapshots-"));
    let expected: unknown;
    let server: Server;
    const fileBy = (by: Kind): string => join(directory, `by ${by.name}.db`);

    before(async () => {
      server = await startServer(from.etcd);
      await fill(server);
      expected = await contents(server);
      for (const by of kinds) await succeed(by.etcdctl, "--endpoints", server.endpoint, "snapshot", "save", fileBy(by));
      await server.close();
    });
    after(() => rmSync(directory, { recursive: true, force: true }));

    for (const to of kinds) {
      // 3.6 is the first that refuses the form of a later version, stock's as well as ours.
      if (to === from || (isOf37(from) && to.name.startsWith("stock 3.6"))) continue;
      for (const by of [from, to]) {
        test(`saved by the etcdctl of ${by.name}, it is restored and served by ${to.name}`, async () => {
          const statuses = new Set<string>();
          for (const { tool } of [from, to]) {
            // 3.4 counts keys otherwise: those of all buckets, old revisions included.
            const { hash, revision } = JSON.parse(await succeed(tool, "snapshot", "status", fileBy(by), "-w", "json"));
            statuses.add(`${hash} ${revision}`);
          }
          assert.equal(statuses.size, 1, [...statuses].join(", "));
          const dataDir = join(directory, `${by.name} to ${to.name}`);
          await succeed(to.tool, "snapshot", "restore", fileBy(by), "--data-dir", dataDir);
          const restored = await startServer(to.etcd, { dataDir });
          try {
            assert.deepEqual(await contents(restored), expected);
            await restored.client.unary(KVService.Put, { key: Buffer.from("after"), value: Buffer.from("1") });
          } finally {
            await restored.close();
          }
        });
      }
    }
  });
}
