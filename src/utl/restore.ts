/**
 * Creates a member of a new cluster from a snapshot: its database, a log that begins with the members, and raft's
 * snapshot of both. Source: etcd `etcdutl/snapshot/v3_snapshot.go`.
 *
 * The database is read and written once, entry by entry, so memory does not depend on its size; data that the new
 * cluster must not inherit (members, log position) is replaced on the way. Everything is created in a directory that is
 * renamed when it is complete: an interrupted restore leaves nothing that a server would start on, and can be repeated.
 */
import { dirname } from "node:path";
import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import type { BoltEntry, BoltError } from "../bolt/format.ts";
import { BoltReader } from "../bolt/reader.ts";
import { hasTrailer, verifySnapshotFile } from "../bolt/snapshot-file.ts";
import { writeBoltFile } from "../bolt/writer.ts";
import { encodeConfState, encodeV2Snapshot } from "../membership/cluster.ts";
import { additionOf } from "../membership/conf-change.ts";
import { clusterId, encodeMember, formatId, type Member } from "../membership/member.ts";
import { metaKeys } from "../mvcc/backend/backend.ts";
import { mainOf, revisionBytes } from "../mvcc/model/revision.ts";
import { Metadata } from "../proto/etcdserverpb.ts";
import { ConfChange, ConfState, Entry, EntryType, HardState, Snapshot } from "../proto/raftpb.ts";
import { Snapshot as WalSnapshot } from "../proto/walpb.ts";
import { Snapshotter } from "../wal/snapshotter.ts";
import { Wal } from "../wal/wal.ts";
import { type BucketChange, changedBuckets } from "./database.ts";
import { Progress } from "./progress.ts";
import { EXIT, ExitError, type UtlIo } from "./utl.ts";

export interface RestoreOptions {
  readonly io: UtlIo;
  readonly logger: Logger;
  readonly snapshotPath: string;
  readonly dataDir: string;
  /** `<data-dir>/member/wal` unless the log is elsewhere. */
  readonly walDir: string | undefined;
  /** All members of the new cluster, ascending by id, and the one created here. */
  readonly members: readonly Member[];
  readonly local: Member;
  readonly skipHashCheck: boolean;
  /** How much the revision is increased, with everything before it marked as compacted; 0 for not at all. */
  readonly bumpRevision: number;
}

/** The first term of a cluster's log, which has only its members. */
const FIRST_TERM = 1;
const PRIVATE_MODE = 0o700;

/** Throws ExitError, BoltError, WalError and node's errors; the directories are then unchanged. */
export function restoreSnapshot(options: RestoreOptions): void {
  const { io, dataDir, walDir, snapshotPath } = options;
  const { disk } = io;
  const part = `${dataDir}/member.part`;
  checkFree(options, part);
  removeTree(disk, part);
  if (walDir !== undefined) removeTree(disk, `${walDir}.part`);
  checkSnapshot(options);
  const snapDir = `${part}/snap`;
  const walPart = walDir === undefined ? `${part}/wal` : `${walDir}.part`;
  disk.makeDir(snapDir, PRIVATE_MODE);
  disk.makeDir(dirname(walPart), PRIVATE_MODE);
  const position = { index: options.members.length, term: FIRST_TERM };
  const confState = ConfState.create({ voters: options.members.map(({ id }) => id) });
  writeDatabase(options, `${snapDir}/db`, position, confState);
  for (const member of options.members) logMember(options, member);
  writeLog(options, walPart, snapDir, position, confState);
  if (walDir !== undefined) {
    disk.rename(walPart, walDir);
    disk.syncDir(dirname(walDir));
  }
  disk.rename(part, `${dataDir}/member`);
  disk.syncDir(dataDir);
  options.logger.info("restored snapshot", { path: snapshotPath, "data-dir": dataDir });
}

/** Leftovers of an interrupted restore may be there, and nothing else. */
function checkFree({ io: { disk }, dataDir, walDir }: RestoreOptions, part: string): void {
  const names = disk.exists(dataDir) ? disk.readDir(dataDir) : [];
  if (names.some((name) => `${dataDir}/${name}` !== part)) {
    throw new ExitError(EXIT.error, `data-dir "${dataDir}" not empty or could not be read`);
  }
  if (walDir === undefined || !disk.exists(walDir)) return;
  // The log of a restore that ended between its two last steps: only its owner can tell it from another.
  const hint = names.length > 0 ? ": if the interrupted restore made it, remove it and restore again" : "";
  throw new ExitError(EXIT.error, `wal-dir "${walDir}" exists${hint}`);
}

/** Compares the checksum at the end of the file, if one is required. */
function checkSnapshot({ io: { disk }, snapshotPath, skipHashCheck }: RestoreOptions): void {
  const file = disk.open(snapshotPath, "r");
  const size = file.size();
  file.close();
  if (skipHashCheck) return;
  if (!hasTrailer(size)) throw new ExitError(EXIT.error, "snapshot missing hash but --skip-hash-check=false");
  try {
    verifySnapshotFile(disk, snapshotPath);
  } catch (error) {
    const { code, message } = error as BoltError;
    if (code !== "hash-mismatch") throw error;
    throw new ExitError(EXIT.error, message.slice(snapshotPath.length + 2));
  }
}

interface Position {
  readonly index: number;
  readonly term: number;
}

function writeDatabase(options: RestoreOptions, path: string, position: Position, confState: ConfState): void {
  const { io, snapshotPath, logger, bumpRevision } = options;
  const reader = new BoltReader({ disk: io.disk, path: snapshotPath });
  try {
    const progress = new Progress(io, "restoring the database", reader.sizeBytes);
    const changes = [
      membersBucket(options.members),
      { name: "members_removed", entries: () => [] },
      metaBucket(position, confState, bumpRevision > 0 ? latestRevision(reader) + bumpRevision : undefined),
      { name: "cluster", entries: (old: Iterable<BoltEntry>) => old },
      ...(bumpRevision > 0 ? [bumpedKeys(reader, bumpRevision, logger)] : []),
    ];
    const buckets = changedBuckets(reader, changes, (bytes) => progress.add(bytes));
    writeBoltFile({ disk: io.disk, path, buckets });
    progress.end();
  } finally {
    reader.close();
  }
}

function membersBucket(members: readonly Member[]): BucketChange {
  const rows = members.map((member) => ({
    key: Buffer.from(formatId(member.id)),
    value: Buffer.from(encodeMember(member)),
  }));
  return { name: "members", entries: () => rows.sort((a, b) => a.key.compare(b.key)) };
}

/** The position in the new cluster's log, which is unrelated to the old one's. */
function metaBucket(position: Position, confState: ConfState, compactRevision: number | undefined): BucketChange {
  const set: [key: Buffer, value: Buffer][] = [
    [metaKeys.consistentIndex, uint64(position.index)],
    [metaKeys.term, uint64(position.term)],
    [metaKeys.confState, encodeConfState(confState)],
  ];
  if (compactRevision !== undefined) set.push([metaKeys.scheduledCompact, revisionBytes(compactRevision, 0)]);
  return {
    name: "meta",
    entries(old) {
      const fields = new Map<string, BoltEntry>();
      for (const { key, value } of old) fields.set(Buffer.from(key).toString("latin1"), { key, value });
      for (const [key, value] of set) fields.set(key.toString("latin1"), { key, value });
      return [...fields.keys()].sort().map((name) => fields.get(name)!);
    },
  };
}

/** A row without a key, whose revision is the one that clients see from now on. */
function bumpedKeys(reader: BoltReader, amount: number, logger: Logger): BucketChange {
  const latest = latestRevision(reader);
  const bumped = latest + amount;
  logger.info("bumping latest revision", {
    "latest-revision": latest,
    "bump-amount": amount,
    "new-latest-revision": bumped,
  });
  logger.info("marking revision compacted", { revision: bumped });
  return {
    name: "key",
    *entries(old) {
      yield* old;
      yield { key: revisionBytes(bumped, 0), value: Buffer.alloc(0) };
    },
  };
}

function latestRevision(reader: BoltReader): number {
  const last = reader.bucket(Buffer.from("key"))?.last();
  return last === undefined ? 0 : mainOf(last.key);
}

/** etcd's texts: tests and scripts search for them. */
function logMember({ logger, members }: RestoreOptions, { id, peerUrls, isLearner }: Member): void {
  logger.info("added member", {
    "cluster-id": formatId(clusterId(members.map((member) => member.id))),
    "local-member-id": "0",
    "added-peer-id": formatId(id),
    "added-peer-peer-urls": peerUrls,
    "added-peer-is-learner": isLearner,
  });
}

function writeLog(
  { io: { disk }, logger, members, local }: RestoreOptions,
  walDir: string,
  snapDir: string,
  position: Position,
  confState: ConfState,
): void {
  const id = clusterId(members.map((member) => member.id));
  const metadata = Metadata.encode(Metadata.create({ nodeId: local.id, clusterId: id }));
  const wal = Wal.create({ disk, dir: walDir, logger, metadata });
  try {
    const entries = members.map((member, i) =>
      Entry.create({
        type: EntryType.EntryConfChange,
        term: FIRST_TERM,
        index: i + 1,
        data: ConfChange.encode(additionOf(0n, member)),
      }),
    );
    wal.append(HardState.create({ term: FIRST_TERM, vote: members[0]!.id, commit: position.index }), entries);
    wal.sync();
    const membership = { members: () => members, removed: () => [], version: undefined };
    const snapshot = Snapshot.create({ data: encodeV2Snapshot(membership), metadata: { ...position, confState } });
    new Snapshotter({ disk, dir: snapDir, logger }).save(snapshot);
    wal.saveSnapshot(WalSnapshot.create({ ...position, confState }));
  } finally {
    wal.close();
  }
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

function removeTree(disk: Disk, path: string): void {
  if (!disk.exists(path)) return;
  let names: string[];
  try {
    names = disk.readDir(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOTDIR") throw error;
    disk.remove(path);
    return;
  }
  for (const name of names) removeTree(disk, `${path}/${name}`);
  disk.removeDir(path);
}
