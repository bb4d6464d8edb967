/**
 * Makes the database of one revision from a full snapshot and the deltas after it: a snapshot file like any other, with its
 * checksum. Each key has the versions and revisions of the original, so HashKV agrees.
 *
 * Rows come in the order of their revisions, so that the file is written in one pass from both; memory does not depend on
 * its size.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import type { Disk } from "../base/disk.ts";
import type { BoltEntry } from "../bolt/format.ts";
import { BoltReader } from "../bolt/reader.ts";
import { appendSha256Trailer, verifySnapshotFile } from "../bolt/snapshot-file.ts";
import { writeBoltFile } from "../bolt/writer.ts";
import { kvHeader, readKvHeader } from "../mvcc/model/kv-header.ts";
import { isTombstone, mainOf, REVISION_BYTES, TOMBSTONE_BYTES } from "../mvcc/model/revision.ts";
import { Lease } from "../proto/leasepb.ts";
import { changedBuckets } from "../utl/database.ts";
import type { Identity } from "./age/keys.ts";
import { counting, plainForm } from "./coding.ts";
import { rangeOfFile } from "./database.ts";
import { BackupError, damaged } from "./error.ts";
import { deltaRecords } from "./format/delta.ts";
import type { Manifest } from "./format/manifest.ts";
import type { Target } from "./histories.ts";
import { writeStream } from "./scratch.ts";
import type { Store } from "./store/store.ts";

export interface RebuildOptions {
  readonly disk: Disk;
  readonly store: Store;
  readonly identities: readonly Identity[];
  readonly target: Target;
  /** Files of these names are made beside the result and removed. */
  readonly scratch: (name: string) => string;
  /** The result. */
  readonly path: string;
  readonly progress: (what: string, totalBytes: number) => { add(bytes: number): void; end(): void };
}

export interface Rebuilt {
  readonly revision: number;
  readonly compactRevision: number;
  /** Leases whose time to live nobody could be asked for any more; they have a minute. */
  readonly unknownLeases: number;
}

/** Throws BackupError, which names what is damaged, BoltError, and node's errors. */
export async function rebuild(options: RebuildOptions): Promise<Rebuilt> {
  const { disk, store, identities, target, scratch, path, progress } = options;
  const full = scratch("full.db");
  const data = dataOf(target.full);
  const reading = progress(`reading full snapshot ${target.full.number}`, data.plainBytes);
  await writeStream(
    full,
    counting(plainForm(store, data, identities), (bytes) => reading.add(bytes)),
  );
  reading.end();
  verifySnapshotFile(disk, full);
  if (target.deltas.length === 0 && target.revision === target.full.to) {
    // The file is already what it is to be.
    await rename(full, path);
    return { ...rangeOfFile(disk, path), unknownLeases: 0 };
  }
  const spool = scratch("rows");
  const total = target.deltas.reduce((sum, { data: of }) => sum + (of?.plainBytes ?? 0), 0);
  const replaying = progress(`reading ${target.deltas.length} deltas`, Math.max(1, total));
  const leases = new Map<bigint, number>();
  const from = Math.min(target.full.to, target.revision);
  await writeStream(
    spool,
    rowsOf(options, from, leases, (bytes) => replaying.add(bytes)),
  );
  replaying.end();
  try {
    return cutAndExtend(disk, full, spool, path, target.revision, leases, progress);
  } finally {
    await rm(full, { force: true });
    await rm(spool, { force: true });
  }
}

/** The state of a revision that a snapshot file has in its past, as another one. Throws BackupError, BoltError. */
export function cutSnapshot(
  options: Pick<RebuildOptions, "disk" | "path" | "progress">,
  file: string,
  revision: number,
): Rebuilt {
  return cutAndExtend(options.disk, file, undefined, options.path, revision, new Map(), options.progress);
}

/** Seconds of a lease of which only the id is known. */
const UNKNOWN_LEASE_SECONDS = 60;
const KEY = "key";
const LEASE = "lease";

function cutAndExtend(
  disk: Disk,
  full: string,
  spool: string | undefined,
  path: string,
  revision: number,
  leases: Map<bigint, number>,
  progress: RebuildOptions["progress"],
): Rebuilt {
  const { revision: has, compactRevision } = rangeOfFile(disk, full);
  if (revision < compactRevision) {
    const problem = `revision ${revision} is compacted in it: the oldest it can be brought back to is ${compactRevision}`;
    throw new BackupError("ERR_BACKUP_NOT_COVERED", `${full}: ${problem}`);
  }
  if (spool === undefined && revision > has) {
    throw new BackupError("ERR_BACKUP_NOT_COVERED", `${full} ends at revision ${has}: ${revision} is not in it`);
  }
  const reader = new BoltReader({ disk, path: full });
  try {
    const writing = progress(`writing revision ${revision}`, reader.sizeBytes);
    const used = new Set<bigint>();
    const rows = function* (old: Iterable<BoltEntry>): Generator<BoltEntry, void, void> {
      for (const entry of old) {
        if (mainOf(entry.key) > revision) return;
        yield entry;
      }
      if (spool !== undefined) yield* spooledRows(spool, used);
    };
    let unknownLeases = 0;
    const leaseRows = (old: Iterable<BoltEntry>) =>
      withLeases(old, used, (id) => {
        const ttl = leases.get(id) ?? 0;
        if (ttl === 0) unknownLeases++;
        return ttl || UNKNOWN_LEASE_SECONDS;
      });
    const changes = [
      { name: KEY, entries: rows },
      { name: LEASE, entries: leaseRows },
    ];
    writeBoltFile({ disk, path, buckets: changedBuckets(reader, changes, (bytes) => writing.add(bytes)) });
    writing.end();
    appendSha256Trailer(disk, path);
    return { revision, compactRevision, unknownLeases };
  } finally {
    reader.close();
  }
}

/** The rows after revision `from`, as they are spooled: length of key and value, key, value. */
async function* rowsOf(
  { store, identities, target }: RebuildOptions,
  from: number,
  leases: Map<bigint, number>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  let main = from;
  let sub = -1;
  for (const delta of target.deltas) {
    const data = dataOf(delta);
    // Two deltas may overlap: a recorder that does not know whether one was stored sends its changes again.
    const reached = main;
    for await (const record of deltaRecords(data.name, counting(plainForm(store, data, identities), count))) {
      if (record.kind === "lease") {
        if (record.ttl > 0 || !leases.has(record.id)) leases.set(record.id, record.ttl);
      } else if (record.kind === "row" && record.main > reached && record.main <= target.revision) {
        const follows = record.main === main ? record.sub === sub + 1 : record.main === main + 1 && record.sub === 0;
        if (!follows) throw damaged(data.name, `does not follow revision ${main}: it has ${record.main}`);
        main = record.main;
        sub = record.sub;
        const head = Buffer.alloc(SPOOL_HEAD_BYTES);
        head.writeUInt32BE(record.key.length, 0);
        head.writeUInt32BE(record.value.length, 4);
        yield Buffer.concat([head, record.key, record.value]);
      }
    }
  }
  if (main < target.revision) {
    throw new BackupError("ERR_BACKUP_DAMAGED", `the deltas end at revision ${main}, not at ${target.revision}`);
  }
}

const SPOOL_HEAD_BYTES = 8;
const SPOOL_READ_BYTES = 1024 * 1024;

function* spooledRows(path: string, leases: Set<bigint>): Generator<BoltEntry, void, void> {
  const header = kvHeader();
  const file = openSync(path, "r");
  try {
    let bytes = Buffer.alloc(0);
    let at = 0;
    let position = 0;
    const need = (length: number): boolean => {
      if (bytes.length - at >= length) return true;
      const more = Buffer.allocUnsafeSlow(Math.max(SPOOL_READ_BYTES, length));
      const count = readSync(file, more, 0, more.length, position);
      position += count;
      bytes = Buffer.concat([bytes.subarray(at), more.subarray(0, count)]);
      at = 0;
      return bytes.length >= length;
    };
    while (need(SPOOL_HEAD_BYTES)) {
      const keyBytes = bytes.readUInt32BE(at);
      const length = SPOOL_HEAD_BYTES + keyBytes + bytes.readUInt32BE(at + 4);
      if (keyBytes < REVISION_BYTES || keyBytes > TOMBSTONE_BYTES || !need(length)) {
        throw damaged(path, "was changed while it was read");
      }
      const key = bytes.subarray(at + SPOOL_HEAD_BYTES, at + SPOOL_HEAD_BYTES + keyBytes);
      const value = bytes.subarray(at + SPOOL_HEAD_BYTES + keyBytes, at + length);
      if (!isTombstone(key)) {
        readKvHeader(value, 0, value.length, header);
        if (header.lease !== 0n) leases.add(header.lease);
      }
      yield { key, value };
      at += length;
    }
  } finally {
    closeSync(file);
  }
}

/** The leases of the snapshot, and those that later keys name, with all of their time. */
function* withLeases(
  old: Iterable<BoltEntry>,
  used: ReadonlySet<bigint>,
  ttlOf: (id: bigint) => number,
): Generator<BoltEntry, void, void> {
  const keyOf = (id: bigint): Buffer => {
    const key = Buffer.alloc(8);
    key.writeBigInt64BE(id);
    return key;
  };
  const added = [...used].map(keyOf).sort(Buffer.compare);
  const entryOf = (key: Buffer): BoltEntry => {
    const id = key.readBigInt64BE();
    return { key, value: Lease.encode(Lease.create({ id, ttl: ttlOf(id) })) };
  };
  let next = 0;
  for (const entry of old) {
    while (next < added.length && Buffer.compare(added[next]!, entry.key) < 0) yield entryOf(added[next++]!);
    if (next < added.length && added[next]!.equals(entry.key)) next++;
    yield entry;
  }
  while (next < added.length) yield entryOf(added[next++]!);
}

function dataOf({ number, data }: Manifest) {
  if (data === undefined) throw damaged(`object ${number}`, "names no data");
  return data;
}
