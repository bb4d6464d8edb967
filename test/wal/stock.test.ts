/**
 * Logs and snapshots are exchanged with stock etcd (`etcd` on PATH, or KVORUM_STOCK_ETCD) in both directions: we read
 * what it wrote; it starts on what we wrote; we continue what it continued.
 */
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import test from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { nullLogger } from "../../src/base/log.ts";
import { ProtobufError } from "../../src/base/protobuf.ts";
import { InternalRaftRequest, KVService, Metadata } from "../../src/proto/etcdserverpb.ts";
import { EntryType, HardState, type Snapshot } from "../../src/proto/raftpb.ts";
import { Snapshotter } from "../../src/wal/snapshotter.ts";
import { Wal, type WalContent } from "../../src/wal/wal.ts";
import { requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { type Server, startServer } from "../harness/server.ts";

const START = { index: 0, term: 0 };
const disk = systemDisk;
const logger = nullLogger;

async function put(server: Server, from: number, to: number): Promise<void> {
  for (let i = from; i <= to; i++) {
    await server.client.unary(KVService.Put, { key: Buffer.from(`key ${i}`), value: Buffer.alloc(i * 10, i) });
  }
}

async function assertHolds(server: Server, from: number, to: number): Promise<void> {
  for (let i = from; i <= to; i++) {
    const { kvs } = await server.client.unary(KVService.Range, { key: Buffer.from(`key ${i}`) });
    assert.equal(Buffer.compare(kvs[0]?.value ?? Buffer.alloc(0), Buffer.alloc(i * 10, i)), 0, `key ${i}`);
  }
}

function keysPut(content: WalContent): string[] {
  return content.entries.flatMap((entry) => {
    if (entry.type !== EntryType.EntryNormal) return [];
    try {
      const { header, put } = InternalRaftRequest.decode(entry.data);
      return header === undefined || put === undefined ? [] : [Buffer.from(put.key).toString()];
    } catch (error) {
      // Up to 3.5 members also propose v2 store requests (attributes, version, SYNC), which are another message: it has
      // no header, and most do not decode as this one.
      if (error instanceof ProtobufError) return [];
      throw error;
    }
  });
}

function readLog(dataDir: string, snapshot: { index: number; term: number } = START): WalContent {
  const wal = Wal.openForRead({ disk, dir: `${dataDir}/member/wal`, snapshot, logger });
  const content = wal.readAll();
  wal.close();
  return content;
}

/** Writes the log again with our code, in several segments, with the snapshot records in the same places. */
function writeAgain(content: WalContent, snapshots: readonly Snapshot[], dataDir: string): string[] {
  fs.mkdirSync(`${dataDir}/member/snap`, { recursive: true, mode: 0o700 });
  const dir = `${dataDir}/member/wal`;
  const wal = Wal.create({ disk, dir, metadata: content.metadata, logger, segmentSizeBytes: 4096 });
  const snapshotter = new Snapshotter({ disk, dir: `${dataDir}/member/snap`, logger });
  for (const entry of content.entries) {
    wal.append(HardState.create({ ...content.hardState!, commit: entry.index - 1 }), [entry]);
    for (const snapshot of snapshots) {
      const { index, term, confState } = snapshot.metadata!;
      if (index !== entry.index) continue;
      snapshotter.save(snapshot);
      wal.saveSnapshot({ index, term, confState });
    }
  }
  wal.append(content.hardState, []);
  wal.sync();
  wal.close();
  return wal.segmentNames;
}

function tempDir(t: { after(done: () => void): void }): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kvorum-wal-"));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  return dir;
}

test("what stock etcd wrote reads back, also after it was killed", { skip: requireStockEtcd() }, async (t) => {
  const dataDir = `${tempDir(t)}/data`;
  const server = await startServer(stockEtcd(), { dataDir });
  try {
    await put(server, 1, 30);
    await server.kill("SIGKILL");
    const content = readLog(dataDir);
    const { nodeId, clusterId } = Metadata.decode(content.metadata);
    assert.ok(nodeId !== 0n && clusterId !== 0n);
    assert.equal(content.hardState?.vote, nodeId);
    assert.equal(content.entries[0]?.type, EntryType.EntryConfChange);
    assert.deepEqual(
      keysPut(content),
      Array.from({ length: 30 }, (_, i) => `key ${i + 1}`),
    );
    assert.ok(content.hardState.commit >= content.entries.at(-1)!.index - 1);
    assert.equal(Wal.verify(disk, `${dataDir}/member/wal`, START, logger)?.commit, content.hardState.commit);
  } finally {
    await server.close();
  }
});

test("stock etcd starts on a log that we wrote, continues it, and we read on", {
  skip: requireStockEtcd(),
}, async (t) => {
  const dir = tempDir(t);
  const original = await startServer(stockEtcd(), { dataDir: `${dir}/original` });
  try {
    await put(original, 1, 40);
  } finally {
    await original.close();
  }
  const dataDir = `${dir}/ours`;
  const segments = writeAgain(readLog(`${dir}/original`), [], dataDir);
  assert.ok(segments.length > 2);

  const server = await startServer(stockEtcd(), { dataDir });
  try {
    await assertHolds(server, 1, 40);
    await put(server, 41, 50);
    await server.kill("SIGKILL");
  } finally {
    await server.close();
  }
  assert.deepEqual(
    keysPut(readLog(dataDir)),
    Array.from({ length: 50 }, (_, i) => `key ${i + 1}`),
  );

  // We continue where stock etcd stopped.
  const wal = Wal.open({ disk, dir: `${dataDir}/member/wal`, snapshot: START, logger, segmentSizeBytes: 4096 });
  const { hardState, entries } = wal.readAll();
  const last = entries.at(-1)!;
  wal.append({ ...hardState!, commit: last.index }, [{ ...last, index: last.index + 1, data: Buffer.alloc(0) }]);
  wal.sync();
  wal.close();
  const again = await startServer(stockEtcd(), { dataDir });
  try {
    await assertHolds(again, 1, 50);
  } finally {
    await again.close();
  }
});

test("stock etcd starts on a snapshot file and log that we wrote, and we on its", {
  skip: requireStockEtcd(),
}, async (t) => {
  const dir = tempDir(t);
  const original = await startServer(stockEtcd(), { dataDir: `${dir}/original`, args: ["--snapshot-count", "15"] });
  try {
    await put(original, 1, 40);
  } finally {
    await original.close();
  }
  const marks = Wal.validSnapshotEntries(disk, `${dir}/original/member/wal`, logger);
  assert.ok(marks.length > 1);
  const snapshot = new Snapshotter({ disk, dir: `${dir}/original/member/snap`, logger }).loadNewestAvailable(marks);
  assert.ok(snapshot?.metadata !== undefined && snapshot.metadata.index > 0);
  assert.equal(snapshot.metadata.confState?.voters.length, 1);
  const after = readLog(`${dir}/original`, snapshot.metadata);
  assert.equal(after.entries[0]?.index, snapshot.metadata.index + 1);

  const dataDir = `${dir}/ours`;
  writeAgain(readLog(`${dir}/original`), [snapshot], dataDir);
  fs.copyFileSync(`${dir}/original/member/snap/db`, `${dataDir}/member/snap/db`);
  const server = await startServer(stockEtcd(), { dataDir });
  try {
    assert.match(
      server.log(),
      /recovered v2 store from snapshot|recovered store from snapshot|snapshot-index|"snapshot"/,
    );
    await assertHolds(server, 1, 40);
  } finally {
    await server.close();
  }
});

test("stock etcd repairs a tail of ours torn by a crash", { skip: requireStockEtcd() }, async (t) => {
  const dir = tempDir(t);
  const original = await startServer(stockEtcd(), { dataDir: `${dir}/original` });
  try {
    await put(original, 1, 20);
  } finally {
    await original.close();
  }
  const dataDir = `${dir}/ours`;
  writeAgain(readLog(`${dir}/original`), [], dataDir);
  const wal = Wal.open({ disk, dir: `${dataDir}/member/wal`, snapshot: START, logger, segmentSizeBytes: 1_000_000 });
  const { entries } = wal.readAll();
  const last = entries.at(-1)!;
  wal.append(undefined, [{ ...last, index: last.index + 1, data: Buffer.alloc(5000, 1) }]);
  wal.close();
  const file = `${dataDir}/member/wal/${wal.segmentNames.at(-1)}`;
  fs.truncateSync(file, fs.statSync(file).size - 1000);

  const server = await startServer(stockEtcd(), { dataDir });
  try {
    assert.ok(fs.existsSync(`${file}.broken`));
    await assertHolds(server, 1, 20);
  } finally {
    await server.close();
  }
});
