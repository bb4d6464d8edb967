import assert from "node:assert/strict";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { Cluster } from "../../src/membership/cluster.ts";
import { ConfState, type Entry, EntryType } from "../../src/proto/raftpb.ts";
import { MemoryStorage } from "../../src/raft/memory-storage.ts";
import { Snapshots } from "../../src/server/snapshot/snapshots.ts";
import { Snapshotter } from "../../src/wal/snapshotter.ts";
import { Wal } from "../../src/wal/wal.ts";
import { tempDir } from "../harness/in-process.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";

const MIB = 1024 * 1024;

/**
 * Applies `count` entries of `size` bytes, as a member of three that keeps 5000 entries; returns how many stay in
 * memory.
 */
function keptOf(count: number, size: number): number {
  const dir = tempDir();
  const logger = new MemoryLogger();
  const backend = new MemoryBackend({ clock: new VirtualClock() });
  const storage = new MemoryStorage();
  const wal = Wal.create({ disk: systemDisk, dir: `${dir.path}/wal`, logger, metadata: Buffer.alloc(0) });
  const snapshots = new Snapshots({
    options: {
      snapshotCount: 1_000_000,
      snapshotCatchUpEntries: 5000,
      maxSnapFiles: 5,
      maxWalFiles: 5,
      disk: systemDisk,
      clock: new VirtualClock(),
      onFailure: (error) => assert.fail(String(error)),
    },
    memberId: 1n,
    snapshotter: new Snapshotter({ disk: systemDisk, dir: dir.path, logger }),
    storage,
    wal,
    walDir: `${dir.path}/wal`,
    snapDir: dir.path,
    cluster: new Cluster({ id: 1n, localId: 1n, backend, logger, serverVersion: "3.7.1" }),
    backend: () => backend,
    logger,
    snapshotIndex: 0,
  });
  const data = Buffer.alloc(size);
  for (let index = 1; index <= count; index++) {
    const entry: Entry = { type: EntryType.EntryNormal, term: 1, index, data };
    storage.append([entry]);
    snapshots.applied({ index, term: 1 }, [entry], ConfState.create({ voters: [1n, 2n, 3n] }), false, false);
  }
  wal.close();
  dir.remove();
  return storage.lastIndex() - storage.firstIndex() + 1;
}

test("the log in memory is limited in bytes, however many entries a follower may lag", () => {
  const kept = keptOf(1000, MIB);
  assert.ok(kept >= 200 && kept <= 256 + 32, `${kept} entries of 1 MiB are kept`);
});

test("small entries stay in memory in the configured number", () => {
  const kept = keptOf(10_000, 100);
  assert.ok(kept >= 5000 && kept <= 6000, `${kept} entries are kept`);
});
