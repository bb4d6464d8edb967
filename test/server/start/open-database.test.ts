/** A data directory left by stock etcd is continued where it is, and what cannot be continued is left alone. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import * as fs from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { systemDisk } from "../../../src/base/disk.ts";
import { writeBoltFile } from "../../../src/bolt/writer.ts";
import { metaKeys } from "../../../src/mvcc/backend/backend.ts";
import { KVService, MaintenanceService } from "../../../src/proto/etcdserverpb.ts";
import { MemoryLogger, startInProcess, tempDir } from "../../harness/in-process.ts";
import { requireProgram } from "../../harness/programs.ts";
import { waitFor } from "../../harness/wait.ts";
import { bytes, put } from "../requests.ts";

const KEYS = 300;

describe("a database of stock etcd", () => {
  let dir: ReturnType<typeof tempDir>;
  let dataDir: string;
  let dbPath: string;
  let hash: number;

  /** The log of one of our members, and beside it its database as stock etcd would have written it. */
  beforeEach(async () => {
    dir = tempDir();
    dataDir = join(dir.path, "data");
    dbPath = join(dataDir, "member", "snap", "db");
    const member = await startInProcess({ dataDir });
    const { client } = member;
    for (let i = 0; i < KEYS; i++) await client.unary(KVService.Put, put(`k${i % 100}`, `v${i}`));
    const stream = client.stream(MaintenanceService.Snapshot);
    await stream.send({});
    stream.end();
    const blobs: Uint8Array[] = [];
    for await (const { blob } of stream) blobs.push(blob);
    // These are only in the log.
    for (let i = 0; i < 5; i++) await client.unary(KVService.Put, put(`late${i}`));
    ({ hash } = await client.unary(MaintenanceService.HashKV, {}));
    await member.close();
    fs.writeFileSync(dbPath, Buffer.concat(blobs.slice(0, -1)));
  });
  afterEach(() => dir.remove());

  async function checkTakenOver(): Promise<void> {
    const member = await startInProcess({ dataDir });
    try {
      await waitFor("the log replayed", () => member.etcd.server.store.currentRevision === KEYS + 6);
      const { kvs, count } = await member.client.unary(KVService.Range, { key: bytes("\0"), rangeEnd: bytes("\0") });
      assert.equal(count, 105);
      assert.equal(Buffer.from(kvs.find((kv) => Buffer.from(kv.key).equals(bytes("k7")))!.value).toString(), "v207");
      assert.equal((await member.client.unary(MaintenanceService.HashKV, {})).hash, hash);
    } finally {
      await member.close();
    }
  }

  test("is continued in its own file", async () => {
    await checkTakenOver();
    await checkTakenOver();
    assert.deepEqual(fs.readdirSync(join(dataDir, "member", "snap")), ["db"]);
  });

  test("that another process has open is waited for, and not touched meanwhile", {
    skip: requireProgram("flock"),
  }, async () => {
    const old = fs.readFileSync(dbPath);
    const holder = spawn("flock", ["--exclusive", "--no-fork", dbPath, "sleep", "60"], { stdio: "ignore" });
    try {
      await waitFor("locked", () => fs.readFileSync("/proc/locks", "latin1").includes(`:${fs.statSync(dbPath).ino} `));
      const logger = new MemoryLogger();
      const start = startInProcess({ dataDir, server: { logger } });
      await waitFor("it says that it waits", () => logger.lines.some(({ fields }) => fields?.["pid"] === holder.pid));
      assert.deepEqual(fs.readFileSync(dbPath), old);
      holder.kill("SIGKILL");
      await (await start).close();
    } finally {
      holder.kill("SIGKILL");
    }
  });

  test("of an earlier version of this server, which used LMDB, is refused with the way over, and left alone", async () => {
    const old = Buffer.alloc(32_768);
    old.writeUInt32LE(0xbeefc0de, 24);
    fs.writeFileSync(dbPath, old);
    await assert.rejects(
      startInProcess({ dataDir }),
      /written by an earlier version of this server.*Nothing was changed.*snapshot save.*snapshot restore/,
    );
    assert.deepEqual(fs.readFileSync(dbPath), old);
  });

  test("of etcd 3.4, which does not record the term of its log, is refused and left alone", async () => {
    const meta = [{ key: metaKeys.consistentIndex, value: Buffer.alloc(8) }];
    fs.rmSync(dbPath);
    writeBoltFile({ disk: systemDisk, path: dbPath, buckets: [{ name: Buffer.from("meta"), entries: () => meta }] });
    const old = fs.readFileSync(dbPath);
    await assert.rejects(startInProcess({ dataDir }), /was written by etcd 3.4 or older.*Nothing was changed/);
    assert.deepEqual(fs.readFileSync(dbPath), old);
    assert.deepEqual(fs.readdirSync(join(dataDir, "member", "snap")), ["db"]);
  });
});
