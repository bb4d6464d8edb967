import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { systemDisk } from "../../../src/base/disk.ts";
import { writeBoltFile } from "../../../src/bolt/writer.ts";
import { type Backend, BUCKETS, metaKeys } from "../../../src/mvcc/backend/backend.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { hashBackend } from "../../../src/mvcc/store/hash.ts";
import { Message, MessageType, Snapshot } from "../../../src/proto/raftpb.ts";
import { checkDatabase } from "../../../src/server/snapshot/database-check.ts";
import { BackendImage } from "../../../src/server/snapshot/database-image.ts";
import { SnapshotReceiver } from "../../../src/server/snapshot/receiver.ts";
import { Snapshotter } from "../../../src/wal/snapshotter.ts";
import { MemoryLogger, tempDir } from "../../harness/in-process.ts";

describe("a received database", () => {
  let dir: ReturnType<typeof tempDir>;
  let open: Backend[];

  beforeEach(() => {
    dir = tempDir();
    open = [];
  });

  afterEach(async () => {
    for (const backend of open) await backend.close();
    dir.remove();
  });

  function openBackend(name: string): BoltBackend {
    const backend = new BoltBackend({
      path: join(dir.path, name),
      clock: systemClock,
      logger: new MemoryLogger(),
      onFailure: (error) => {
        throw error;
      },
    });
    open.push(backend);
    return backend;
  }

  function fill(backend: Backend, rows: number): void {
    const index = Buffer.alloc(8);
    index.writeBigUInt64BE(42n);
    backend.put("meta", metaKeys.consistentIndex, index);
    backend.put("lease", Buffer.from("12345678"), Buffer.from("a lease"));
    backend.put("members", Buffer.from("1"), Buffer.from('{"id":1}'));
    for (let main = 2; main < rows + 2; main++) {
      const value = Buffer.from(`value of ${main}`);
      const isTombstone = main % 10 === 0;
      backend.putRevision(main, 0, isTombstone, value, 0, value.length);
      if (main % 7 === 0) backend.putRevision(main, 1, false, value, 0, value.length);
    }
  }

  /** As on the receiver's disk. */
  async function store(backend: Backend, path: string): Promise<void> {
    const image = (await BackendImage.open(backend, () => false))!;
    const chunks: Uint8Array[] = [];
    for await (const chunk of image.chunks()) chunks.push(chunk);
    const file = Buffer.concat(chunks);
    assert.equal(file.length, image.sizeBytes);
    image.close();
    writeFileSync(path, file);
  }

  async function hashOf(backend: Backend): Promise<number> {
    const snapshot = await backend.snapshot();
    try {
      return await hashBackend(snapshot, systemClock);
    } finally {
      snapshot.close();
    }
  }

  test("is the same after its way through a bbolt file, in all buckets", async () => {
    const source = openBackend("source");
    fill(source, 10_000);
    const path = join(dir.path, "received");
    await store(source, path);
    await checkDatabase({ disk: systemDisk, clock: systemClock, path });
    const target = openBackend("received");
    assert.equal(await hashOf(target), await hashOf(source));
    let rows = 0;
    target.forEachRevision(0, 0, Number.MAX_SAFE_INTEGER, () => ++rows > 0);
    assert.equal(rows, 10_000 + 1428);
  });

  test("is refused when it is truncated, damaged, not a database, or of no member", async () => {
    const source = openBackend("source");
    fill(source, 5000);
    const path = join(dir.path, "received");
    await store(source, path);
    const whole = readFileSync(path);
    const refuses = async (content: Uint8Array, why: RegExp): Promise<void> => {
      writeFileSync(path, content);
      await assert.rejects(checkDatabase({ disk: systemDisk, clock: systemClock, path }), why);
    };
    await checkDatabase({ disk: systemDisk, clock: systemClock, path });
    await refuses(whole.subarray(0, whole.length - 4096), /cut short/);
    const damaged = Buffer.from(whole);
    damaged.fill(0xff, 10 * 4096, 11 * 4096);
    await refuses(damaged, /damaged|says that it is page|page/);
    await refuses(Buffer.alloc(100_000), /is not a bbolt database/);
    writeBoltFile({
      disk: systemDisk,
      path,
      buckets: BUCKETS.map((name) => ({ name: Buffer.from(name), entries: () => [] })),
    });
    await refuses(readFileSync(path), /which entry of the log is its last/);
  });

  test("is refused when a key is not a revision", async () => {
    const path = join(dir.path, "received");
    const entries = [{ key: Buffer.from("short"), value: Buffer.from("x") }];
    const buckets = BUCKETS.map((name) => ({
      name: Buffer.from(name),
      entries: () => (name === "key" ? entries : []),
    }));
    writeBoltFile({ disk: systemDisk, path, buckets });
    await assert.rejects(
      checkDatabase({ disk: systemDisk, clock: systemClock, path }),
      /has a key of 5 bytes in the bucket of the revisions/,
    );
  });

  test("that cannot be installed is refused before raft learns of it, and leaves nothing behind", async () => {
    const logger = new MemoryLogger();
    const told: unknown[] = [];
    const receiver = new SnapshotReceiver({
      snapshotter: new Snapshotter({ disk: systemDisk, dir: dir.path, logger }),
      bytesMax: 0,
      check: (path) => checkDatabase({ disk: systemDisk, clock: systemClock, path }),
      logger,
      onReceived: (message) => told.push(message),
    });
    const metadata = { index: 7, term: 1, confState: undefined };
    const message = Message.create({ type: MessageType.MsgSnap, from: 2n, snapshot: Snapshot.create({ metadata }) });
    const sink = receiver.begin(message);
    await sink.write(Buffer.alloc(100_000, "garbage"));
    await assert.rejects(
      sink.finish(),
      /^Error: the database that was received cannot be used: .* is not a bbolt database/,
    );
    assert.deepEqual([told, systemDisk.readDir(dir.path)], [[], []]);

    const source = openBackend("source");
    fill(source, 10);
    await store(source, join(dir.path, "whole"));
    const again = receiver.begin(message);
    await again.write(readFileSync(join(dir.path, "whole")));
    await again.finish();
    assert.deepEqual(told, [message]);
  });

  test("replaces the one in use, which may be written to until then", async () => {
    const old = openBackend("db");
    fill(old, 10);
    const next = openBackend("7.snap.db");
    fill(next, 100);
    await next.commit();
    assert.throws(() => next.moveTo(join(dir.path, "db")), /in use/);
    await old.close();
    next.moveTo(join(dir.path, "db"));
    next.put("alarm", Buffer.from("a"), Buffer.from("b"));
    await next.commit();
    await next.defragment();
    const hash = await hashOf(next);
    await next.close();
    const again = openBackend("db");
    assert.equal(await hashOf(again), hash);
    assert.deepEqual(
      systemDisk.readDir(dir.path).filter((name) => name !== "db"),
      [],
    );
  });
});
