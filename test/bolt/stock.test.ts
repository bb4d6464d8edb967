import assert from "node:assert/strict";
import { copyFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { checkBolt } from "../../src/bolt/check.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { appendSha256Trailer } from "../../src/bolt/snapshot-file.ts";
import { type BoltBucketSource, writeBoltFile } from "../../src/bolt/writer.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { KeyValue } from "../../src/proto/mvccpb.ts";
import {
  findProgram,
  requireProgram,
  requireStockEtcd,
  run,
  stockEtcd,
  stockEtcdVersion,
} from "../harness/programs.ts";
import { startServer } from "../harness/server.ts";
import { tempDir } from "./helpers.ts";

/** From 3.6 on etcdutl does what etcdctl did: the one of KVORUM_STOCK_ETCDUTL, or beside KVORUM_STOCK_ETCD. */
const beside = join(dirname(process.env["KVORUM_STOCK_ETCD"] || "."), "etcdutl");
const tool = process.env["KVORUM_STOCK_ETCDUTL"] || findProgram(beside) || "etcdctl";
const skip =
  requireStockEtcd() ||
  requireProgram(tool) ||
  (tool === "etcdctl" && (await stockEtcdVersion())! > 3.005 && "a stock etcd above 3.5 needs its etcdutl");
const KEYS = 3000;
const keyOf = (i: number) => Buffer.from(`key-${i}`);

function copyOf(reader: BoltReader): BoltBucketSource[] {
  return [...reader.root.buckets()].map(({ name, bucket }) => ({ name, entries: () => bucket.entries() }));
}

async function snapshotStatus(path: string): Promise<Record<string, number>> {
  const { code, stdout, stderr } = await run(tool, ["snapshot", "status", path, "-w", "json"], {
    env: { ETCDCTL_API: "3" },
  });
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout.toString());
}

test("stock etcd's database is read; our copy of it has its hash and serves as its backup", { skip }, async (t) => {
  const dir = tempDir(t);
  const origin = join(dir, "origin.db");
  const ours = join(dir, "ours.db");

  const server = await startServer(stockEtcd(), {});
  t.after(() => server.close());
  const puts = Array.from({ length: KEYS }, (_, i) => {
    return server.client.unary(KVService.Put, { key: keyOf(i), value: Buffer.alloc(i === 9 ? 50_000 : 100, i) });
  });
  await Promise.all(puts);
  await server.client.unary(KVService.DeleteRange, { key: keyOf(0) });
  await server.kill("SIGTERM");
  copyFileSync(join(server.dataDir, "member", "snap", "db"), origin);

  const reader = new BoltReader({ disk: systemDisk, path: origin });
  t.after(() => reader.close());
  assert.deepEqual([...checkBolt(reader)], []);
  const names = [...reader.root.buckets()].map(({ name }) => name.toString());
  for (const name of ["alarm", "auth", "cluster", "key", "lease", "members", "meta"]) assert.ok(names.includes(name));
  const kvs = [...reader.bucket(Buffer.from("key"))!.entries()].map(({ value }) => KeyValue.decode(value));
  assert.equal(kvs.length, KEYS + 1);
  assert.equal(kvs.find((kv) => keyOf(9).equals(kv.key))?.value.length, 50_000);

  writeBoltFile({ disk: systemDisk, path: ours, buckets: copyOf(reader) });
  const expected = await snapshotStatus(origin);
  const { totalSize: originSize, ...same } = expected;
  const { totalSize, ...status } = await snapshotStatus(ours);
  assert.ok(totalSize! < originSize!, "the copy has no free pages");
  assert.deepEqual(status, same);

  appendSha256Trailer(systemDisk, ours);
  const dataDir = join(dir, "restored");
  const restored = await run(tool, ["snapshot", "restore", ours, "--data-dir", dataDir], {
    env: { ETCDCTL_API: "3" },
  });
  assert.equal(restored.code, 0, restored.stderr);

  // Everything is there, and the tree survives etcd's own changes: new entries, and the removal of most old ones.
  const second = await startServer(stockEtcd(), { dataDir });
  t.after(() => second.close());
  const range = (key: Uint8Array) => second.client.unary(KVService.Range, { key });
  for (let i = 0; i < KEYS; i += 97) {
    const { kvs } = await range(keyOf(i));
    assert.equal(kvs.length, i === 0 ? 0 : 1);
  }
  await Promise.all(
    Array.from({ length: KEYS }, (_, i) => second.client.unary(KVService.Put, { key: keyOf(i), value: keyOf(i) })),
  );
  const { header } = await range(keyOf(1));
  await second.client.unary(KVService.Compact, { revision: header!.revision, physical: true });
  assert.deepEqual((await range(keyOf(1))).kvs[0]?.value, keyOf(1));
  await second.kill("SIGTERM");

  const after = new BoltReader({ disk: systemDisk, path: join(dataDir, "member", "snap", "db") });
  t.after(() => after.close());
  assert.deepEqual([...checkBolt(after)], []);
});
