// Slow: members start and stop again and again on real directories.
import assert from "node:assert/strict";
import * as fs from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { systemDisk } from "../../../src/base/disk.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { KVService } from "../../../src/proto/etcdserverpb.ts";
import { bootstrap } from "../../../src/server/start/bootstrap.ts";
import { type InProcess, MemoryLogger, serverOptions, startInProcess, tempDir } from "../../harness/in-process.ts";
import { noPeers } from "../../harness/no-peers.ts";
import { asOrdinaryUser } from "../../harness/ordinary-user.ts";
import { waitFor } from "../../harness/wait.ts";
import { bytes, text } from "../requests.ts";

const SMALL_SEGMENT_BYTES = 64 * 1024;

describe("a data directory", () => {
  let dir: ReturnType<typeof tempDir>;
  let dataDir: string;
  let walDir: string;
  let snapDir: string;
  let dbPath: string;

  beforeEach(() => {
    dir = tempDir();
    dataDir = join(dir.path, "data");
    walDir = join(dataDir, "member", "wal");
    snapDir = join(dataDir, "member", "snap");
    dbPath = join(snapDir, "db");
  });
  afterEach(() => dir.remove());

  const start = (server: NonNullable<Parameters<typeof startInProcess>[0]>["server"] = {}): Promise<InProcess> =>
    startInProcess({ dataDir, server: { walSegmentSizeBytes: SMALL_SEGMENT_BYTES, ...server } });

  /** A member that wrote `count` keys and was stopped. */
  async function run(count: number, server: Parameters<typeof start>[0] = {}): Promise<void> {
    const member = await start(server);
    for (let i = 0; i < count; i++)
      await member.client.unary(KVService.Put, { key: bytes(`k${i}`), value: bytes(`v${i}`) });
    // A snapshot waits for the backend, whose thread may only be starting.
    if (server.snapshotCount !== undefined) {
      await waitFor("a snapshot is saved", () => fs.readdirSync(snapDir).some((name) => name.endsWith(".snap")));
    }
    await member.close();
  }

  async function countKeys(): Promise<number> {
    const member = await start();
    try {
      const { count } = await member.client.unary(KVService.Range, { key: bytes("k"), rangeEnd: bytes("l") });
      return count;
    } finally {
      await member.close();
    }
  }

  const segments = (): string[] =>
    fs
      .readdirSync(walDir)
      .filter((name) => name.endsWith(".wal"))
      .sort()
      .map((name) => join(walDir, name));

  /** The start fails with a message that has all the parts, and leaves nothing locked. */
  async function refuses(...parts: (string | RegExp)[]): Promise<void> {
    for (let attempt = 0; attempt < 2; attempt++) {
      await assert.rejects(start(), (error: Error) => {
        for (const part of parts) {
          const found = typeof part === "string" ? error.message.includes(part) : part.test(error.message);
          assert.ok(found, `${part} is not in: ${error.message}`);
        }
        return true;
      });
    }
  }

  test("is created for a new member, for its owner alone", async () => {
    await run(0);
    for (const path of [dataDir, walDir, snapDir]) assert.equal(fs.statSync(path).mode & 0o777, 0o700, path);
    assert.ok(fs.existsSync(dbPath));
    assert.equal(segments().length, 1);
  });

  test("restores everything after a restart, and the member is the same", async () => {
    await run(50);
    const first = await start();
    const identity = [first.etcd.server.memberId, first.etcd.server.cluster.id];
    const { header } = await first.client.unary(KVService.Range, { key: bytes("k7") });
    await first.close();
    const second = await start();
    assert.deepEqual([second.etcd.server.memberId, second.etcd.server.cluster.id], identity);
    const { kvs, header: after } = await second.client.unary(KVService.Range, { key: bytes("k7") });
    assert.equal(text(kvs[0]!.value), "v7");
    assert.equal(after!.revision, header!.revision);
    assert.ok(after!.raftTerm > header!.raftTerm);
    await second.close();
  });

  test("restores what only the log has when the database did not get it in time", async () => {
    const member = await start();
    await member.client.unary(KVService.Put, { key: bytes("k0"), value: bytes("committed") });
    await member.etcd.server.replication.backend.commit();
    fs.cpSync(dbPath, join(dir.path, "old-db"), { recursive: true });
    for (let i = 1; i < 20; i++) await member.client.unary(KVService.Put, { key: bytes(`k${i}`) });
    await member.close();
    fs.rmSync(dbPath, { recursive: true });
    fs.cpSync(join(dir.path, "old-db"), dbPath, { recursive: true });
    assert.equal(await countKeys(), 20);
  });

  test("rebuilds a lost database from the log while the log reaches back to its start", async () => {
    await run(20);
    fs.rmSync(dbPath, { recursive: true });
    assert.equal(await countKeys(), 20);
  });

  test("can have its log elsewhere", async () => {
    const elsewhere = join(dir.path, "fast", "wal");
    fs.mkdirSync(join(dir.path, "fast"));
    await run(5, { walDir: elsewhere });
    assert.equal(fs.existsSync(walDir), false);
    assert.ok(fs.readdirSync(elsewhere).some((name) => name.endsWith(".wal")));
    await run(0, { walDir: elsewhere });
  });

  test("in use by one server is refused to a second, under any name, and free after the first", async () => {
    const member = await start();
    await refuses(`data directory ${dataDir} is in use by another member in this process`, "--data-dir");
    const link = join(dir.path, "link");
    fs.symlinkSync(dataDir, link);
    await assert.rejects(startInProcess({ dataDir: link }), /in use by another member in this process/);
    await member.close();
    await run(0);
  });

  test("without write permission is refused with the reason", async () => {
    fs.mkdirSync(dataDir, { mode: 0o500 });
    await asOrdinaryUser([dir.path, dataDir], () => refuses(dataDir, "permission denied", "chown"));
  });

  test("whose log is not writable is refused at the start, not at the log's next segment", async () => {
    const elsewhere = join(dir.path, "fast");
    for (const server of [{}, { walDir: elsewhere }]) {
      fs.rmSync(dataDir, { recursive: true, force: true });
      await run(1, server);
      const denied = `${server.walDir ?? walDir}/`;
      const disk = {
        ...systemDisk,
        open(path: string, ...rest: [flags: "r" | "r+" | "w" | "wx", mode?: number]) {
          if (path.startsWith(denied)) throw Object.assign(new Error("EACCES"), { code: "EACCES" });
          return systemDisk.open(path, ...rest);
        },
      };
      await assert.rejects(start({ ...server, disk }), (error: Error) => {
        assert.equal(error.name, "DataDirError");
        assert.ok(
          error.message.includes(`cannot write to directory ${denied.slice(0, -1)}: permission denied`),
          error.message,
        );
        return true;
      });
    }
  });

  test("that leads nowhere, or is where there can be no directories, is refused with the reason", async () => {
    fs.symlinkSync("/nowhere/at/all", dataDir);
    await refuses(dataDir, "it is a link to /nowhere/at/all, which does not exist", "is a disk not mounted?");
    fs.rmSync(dataDir);
    await assert.rejects(
      startInProcess({ dataDir: "/proc/x/y" }),
      /cannot create directory \/proc\/x\/y: directories cannot be made there/,
    );
  });

  test("on a read-only file system is refused with the reason", async () => {
    const readOnly = {
      ...systemDisk,
      makeDir: () => {
        throw Object.assign(new Error("EROFS: read-only file system"), { code: "EROFS" });
      },
    };
    await assert.rejects(start({ disk: readOnly }), (error: Error) => {
      assert.match(error.message, /cannot create directory .*data: the file system is read-only: remount/);
      return true;
    });
  });

  test("whose path is a file is refused", async () => {
    fs.writeFileSync(dataDir, "");
    await refuses(dataDir, "is a file, not a directory", "--data-dir");
  });

  test("that others may read is used with a warning", async () => {
    fs.mkdirSync(dataDir, { mode: 0o755 });
    const logger = new MemoryLogger();
    const member = await start({ logger });
    await member.close();
    const warning = logger.lines.find(({ message }) => message === "check file permission");
    assert.match(`${warning?.fields["error"]}`, /"755".*recommended permission is "700"/);
  });

  test("with a database but no log is refused, since writes may be missing", async () => {
    await run(5);
    fs.rmSync(walDir, { recursive: true });
    await refuses(dbPath, walDir, "there is no write-ahead log", "--wal-dir", "etcdutl snapshot restore");
    assert.equal(fs.existsSync(walDir), false, "nothing was made in its place");
  });

  test("without the database that its snapshot refers to is refused", async () => {
    await run(60, { snapshotCount: 20 });
    assert.ok(fs.readdirSync(snapDir).some((name) => name.endsWith(".snap")));
    fs.rmSync(dbPath, { recursive: true });
    await refuses(dbPath, snapDir, "the database is missing or older than its log", "etcdutl snapshot restore");
  });

  test("with a log older than its database is refused", async () => {
    await run(5);
    fs.cpSync(walDir, join(dir.path, "old-wal"), { recursive: true });
    await run(5);
    fs.rmSync(walDir, { recursive: true });
    fs.cpSync(join(dir.path, "old-wal"), walDir, { recursive: true });
    await refuses(dbPath, walDir, /ends at \d+/, "older than the database or belongs to another member");
  });

  test("with the log of another cluster is refused", async () => {
    await run(5);
    const other = join(dir.path, "other");
    const stranger = await startInProcess({
      dataDir: other,
      server: { initialClusterToken: "other", walSegmentSizeBytes: SMALL_SEGMENT_BYTES },
    });
    for (let i = 0; i < 40; i++) await stranger.client.unary(KVService.Put, { key: bytes("x") });
    await stranger.close();
    fs.rmSync(walDir, { recursive: true });
    fs.cpSync(join(other, "member", "wal"), walDir, { recursive: true });
    await refuses(dbPath, walDir, "come from different data directories", "--wal-dir");
  });

  test("whose log was torn by a crash is repaired, and loses nothing that was acknowledged", async () => {
    await run(20);
    const last = segments().at(-1)!;
    const content = fs.readFileSync(last);
    const end = content.findLastIndex((byte) => byte !== 0) + 1;
    // The frame of one more entry and its part in the first sector; the following sectors were never written.
    const start = Math.ceil(end / 8) * 8;
    const stop = Math.ceil((start + 9) / 512) * 512;
    content.writeBigUInt64LE(4096n, start);
    content.fill(7, start + 8, stop);
    const type = [0x08, 2];
    const checksum = [0x10, 0xff, 0xff, 0xff, 0xff, 0x0f];
    const lengthOfData = [0x1a, 0xf5, 0x1f];
    const beginning = Buffer.from([...type, ...checksum, ...lengthOfData]);
    beginning.copy(content, start + 8, 0, Math.min(beginning.length, stop - start - 8));
    fs.writeFileSync(last, content);
    assert.equal(await countKeys(), 20);
    assert.ok(
      fs.readdirSync(walDir).some((name) => name.endsWith(".broken")),
      "the torn segment is kept aside",
    );
    assert.equal(await countKeys(), 20);
  });

  test("whose log is damaged in the middle is refused with the file and the place, and stays unchanged", async () => {
    await run(40);
    const [first] = segments();
    const content = fs.readFileSync(first!);
    const at = content.indexOf("k10");
    content[at] = content[at]! ^ 0xff;
    fs.writeFileSync(first!, content);
    await refuses(first!, /offset \d+|byte \d+/, "remove this member", "restore the cluster from a backup");
    assert.ok(fs.readFileSync(first!).equals(content));
  });

  test("whose log lacks a segment is refused with what is missing", async () => {
    await run(0);
    const member = await start();
    for (let i = 0; i < 60; i++)
      await member.client.unary(KVService.Put, { key: bytes(`k${i}`), value: Buffer.alloc(5000) });
    await member.close();
    const all = segments();
    assert.ok(all.length >= 4, `${all.length} segments`);
    fs.rmSync(all[2]!);
    await refuses(walDir, /missing|gap/, "remove this member");
  });

  test("whose database is damaged is refused with the file and what to do", async () => {
    await run(40);
    fs.writeFileSync(dbPath, Buffer.alloc(8192, 0x5a));
    await refuses(dbPath);
  });

  test("whose database cannot be decoded is refused, and not left in use", async () => {
    await run(1);
    const backend = new BoltBackend({ path: dbPath, clock: systemClock, logger: nullLogger, onFailure: assert.fail });
    backend.put("lease", Buffer.alloc(8), Buffer.from([0xff]));
    await backend.close();
    await refuses(/lease/);
  });

  test("is free again after a start that failed late", async () => {
    await run(5);
    fs.writeFileSync(join(dir.path, "occupied"), "");
    const busy = await startInProcess();
    const port = Number(new URL(busy.url).port);
    const listenClient = [{ kind: "tcp", host: "127.0.0.1", port, url: "" }] as const;
    await assert.rejects(startInProcess({ dataDir, etcd: { listenClient } }), /address already in use.*ss -ltnp/);
    await busy.close();
    assert.equal(await countKeys(), 5);
  });

  test("of an unknown name in the initial cluster is not even created", async () => {
    await assert.rejects(start({ name: "stranger" }), /couldn't find local name "stranger" in the initial cluster/);
    assert.equal(fs.existsSync(walDir), false);
    await run(1);
  });

  test("is opened by bootstrap with log, snapshot and database at one index", async () => {
    await run(30, { snapshotCount: 10 });
    const parts = await bootstrap(serverOptions(dataDir, { walSegmentSizeBytes: SMALL_SEGMENT_BYTES }), noPeers);
    try {
      assert.ok(parts.snapshotIndex >= 10);
      assert.ok(parts.consistentIndex >= parts.snapshotIndex);
      assert.equal(parts.appliedIndex, parts.consistentIndex);
      assert.deepEqual(parts.confState.voters, [parts.memberId]);
      assert.equal(parts.storage.lastIndex(), parts.appliedIndex);
    } finally {
      parts.wal.close();
      await parts.backend.close();
      parts.unlock();
    }
  });

  test("with a damaged page in its database is refused with the file, the place and what to do", async () => {
    await run(300);
    const whole = fs.readFileSync(dbPath);
    const junk = Buffer.alloc(4096, 0xa5);
    let refused = 0;
    for (let page = 2; page < whole.length / 4096; page++) {
      const damaged = Buffer.from(whole);
      junk.copy(damaged, page * 4096);
      fs.writeFileSync(dbPath, damaged);
      // A page that no tree refers to holds nothing.
      const outcome = await countKeys().catch((error: unknown) => error);
      if (outcome === 300) continue;
      refused++;
      const { message } = outcome as Error;
      assert.ok(message.includes(`the database ${dbPath} is damaged: page ${page}`), message);
      if (refused === 1) await refuses(dbPath, "is damaged", "add the member again");
    }
    assert.ok(refused >= 5, `only ${refused} pages were in use`);
    fs.writeFileSync(dbPath, whole);
    assert.equal(await countKeys(), 300);
  });
});
