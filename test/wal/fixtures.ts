/** Shared by the log's tests: entries, logs on a simulated disk, and a temporary directory for those on a real one. */
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import type { Disk } from "../../src/base/disk.ts";
import { type Logger, nullLogger } from "../../src/base/log.ts";
import { Metadata } from "../../src/proto/etcdserverpb.ts";
import { ConfState, Entry } from "../../src/proto/raftpb.ts";
import { Snapshot } from "../../src/proto/walpb.ts";
import { WalError } from "../../src/wal/errors.ts";
import { Wal, type WalContent } from "../../src/wal/wal.ts";

export const DIR = "/data/member/wal";
export const METADATA = Metadata.encode({ nodeId: 0x8e9e05c52164694dn, clusterId: 0xcdf818194e3a8c32n });
export const START = { index: 0, term: 0 };

export function entry(index: number, term = 1, data: string | Uint8Array = `entry ${index}`): Entry {
  return Entry.create({ index, term, data: Buffer.from(data) });
}

export function entries(from: number, to: number, term = 1, dataBytes = 40): Entry[] {
  return Array.from({ length: to - from + 1 }, (_, i) => entry(from + i, term, Buffer.alloc(dataBytes, from + i)));
}

export function walSnapshot(index: number, term = 1): Snapshot {
  return Snapshot.create({ index, term, confState: ConfState.create({ voters: [1n] }) });
}

export interface OpenTestOptions {
  readonly segmentSizeBytes?: number;
  readonly dir?: string;
  readonly logger?: Logger;
}

export function createWal(disk: Disk, options: OpenTestOptions = {}): Wal {
  const { dir = DIR, segmentSizeBytes = 8192, logger = nullLogger } = options;
  return Wal.create({ disk, dir, metadata: METADATA, logger, segmentSizeBytes });
}

/** Opens the log, repairing a torn tail once, as a member does at its start. */
export function recoverWal(
  disk: Disk,
  snapshot = START,
  options: OpenTestOptions = {},
): { wal: Wal; content: WalContent } {
  const { dir = DIR, segmentSizeBytes = 8192, logger = nullLogger } = options;
  for (let repaired = false; ; repaired = true) {
    const wal = Wal.open({ disk, dir, snapshot, logger, segmentSizeBytes });
    try {
      return { wal, content: wal.readAll() };
    } catch (error) {
      wal.close();
      if (repaired || !(error instanceof WalError) || error.code !== "WAL_TORN_TAIL") throw error;
      Wal.repair(disk, dir, logger);
    }
  }
}

export function readWal(disk: Disk, snapshot = START, dir = DIR): WalContent {
  const wal = Wal.openForRead({ disk, dir, snapshot, logger: nullLogger });
  try {
    return wal.readAll();
  } finally {
    wal.close();
  }
}

/** The WalError that `action` throws. */
export function walErrorOf(action: () => unknown): WalError {
  try {
    action();
  } catch (error) {
    if (error instanceof WalError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

export function withTempDir(body: (dir: string) => void): void {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kvorum-wal-"));
  try {
    body(dir);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}
