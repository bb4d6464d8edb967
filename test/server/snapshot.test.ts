import assert from "node:assert/strict";
import * as fs from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { KVService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { slow } from "../harness/fast.ts";
import { startInProcess, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { bytes } from "./requests.ts";

/** Runs the 30-second work every 50 milliseconds. */
const hurriedClock = {
  ...systemClock,
  every: (periodMs: number, callback: () => void) => systemClock.every(periodMs === 30_000 ? 50 : periodMs, callback),
};

test("snapshots release old segments, which are purged, and nothing is lost over restarts", slow, async () => {
  const dir = tempDir();
  const dataDir = join(dir.path, "data");
  const walDir = join(dataDir, "member", "wal");
  const snapDir = join(dataDir, "member", "snap");
  const server = {
    clock: hurriedClock,
    snapshotCount: 100,
    walSegmentSizeBytes: 32 * 1024,
    maxWalFiles: 2,
    maxSnapFiles: 2,
  };
  const files = (path: string, suffix: string): string[] =>
    fs
      .readdirSync(path)
      .filter((name) => name.endsWith(suffix))
      .sort();
  let expected = 0;
  for (let round = 0; round < 3; round++) {
    const member = await startInProcess({ dataDir, server });
    const { client } = member;
    assert.equal((await client.unary(KVService.Range, { key: bytes("k"), rangeEnd: bytes("l") })).count, expected);
    for (let batch = 0; batch < 10; batch++) {
      await Promise.all(
        Array.from({ length: 60 }, () =>
          client.unary(KVService.Put, { key: bytes(`k${expected++}`), value: Buffer.alloc(1000) }),
        ),
      );
    }
    const lastSegment = Number.parseInt(files(walDir, ".wal").at(-1)!, 16);
    assert.ok(lastSegment >= 6, `${lastSegment} segments were begun`);
    await waitFor("only the newest snapshots stay", () => files(snapDir, ".snap").length <= 2);
    await waitFor("the segments before them go", () => files(walDir, ".wal").length <= 16);
    await waitFor("files were purged", () => member.logger.has("purged"));
    await waitFor("a snapshot is saved", () => member.logger.has("saved snapshot to disk"));
    await member.close();
    assert.deepEqual(member.failures, []);
  }
  const first = Number.parseInt(files(walDir, ".wal")[0]!, 16);
  assert.ok(first > 0, "the log no longer reaches back to its start");
  const member = await startInProcess({ dataDir, server });
  const { count, header } = await member.client.unary(KVService.Range, { key: bytes("k"), rangeEnd: bytes("l") });
  assert.equal(count, 1800);
  assert.equal(header!.revision, 1801);
  const before = await member.client.unary(MaintenanceService.HashKV, {});
  await member.close();
  const again = await startInProcess({ dataDir, server });
  assert.equal((await again.client.unary(MaintenanceService.HashKV, {})).hash, before.hash);
  await again.close();
  dir.remove();
});

test("a member that never runs for long keeps no more snapshots than allowed", async () => {
  const dir = tempDir();
  const dataDir = join(dir.path, "data");
  const snapshots = (): number =>
    fs.readdirSync(join(dataDir, "member", "snap")).filter((name) => name.endsWith(".snap")).length;
  const server = { snapshotCount: 10, maxSnapFiles: 2 };
  const member = await startInProcess({ dataDir, server });
  for (let i = 0; snapshots() < 4; i++) {
    assert.ok(i < 1000, "snapshots are made");
    await member.client.unary(KVService.Put, { key: bytes(`k${i}`) });
  }
  await member.close();
  const again = await startInProcess({ dataDir, server });
  assert.equal(snapshots(), 2);
  await again.close();
  dir.remove();
});

test("a member that dies right after a snapshot comes back with everything", async () => {
  const dir = tempDir();
  const dataDir = join(dir.path, "data");
  const server = { snapshotCount: 50, walSegmentSizeBytes: 64 * 1024 };
  const member = await startInProcess({ dataDir, server });
  for (let i = 0; i < 60; i++) await member.client.unary(KVService.Put, { key: bytes(`k${i}`) });
  await waitFor("a snapshot", () => member.logger.has("saved snapshot to disk"));
  // The disk's content at that moment, without an orderly end.
  const copy = join(dir.path, "copy");
  fs.cpSync(dataDir, copy, { recursive: true });
  await member.close();
  const survivor = await startInProcess({ dataDir: copy, server });
  assert.equal((await survivor.client.unary(KVService.Range, { key: bytes("k"), rangeEnd: bytes("l") })).count, 60);
  await survivor.close();
  dir.remove();
});
