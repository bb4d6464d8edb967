/**
 * Creates a member of a new cluster from a snapshot: its database, a log that begins with the members, and raft's
 * snapshot of both. Source: etcd `etcdutl/snapshot/v3_snapshot.go`.
 *
 * The database is copied as it is, and its checksum computed on the way, so memory does not depend on its size; then
 * data that the new cluster must not inherit (members, log position) is replaced in the copy. Everything is created in a
 * directory that is renamed when it is complete: an interrupted restore leaves nothing that a server would start on, and
 * can be repeated.
 */
import { dirname } from "node:path";
import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import { checkBolt } from "../bolt/check.ts";
import { BoltEngine, openBoltFile } from "../bolt/engine.ts";
import type { BoltError } from "../bolt/format.ts";
import { BoltReader } from "../bolt/reader.ts";
import { copySnapshot } from "../bolt/snapshot-file.ts";
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
const PROBLEMS_MAX = 20;

/** Throws ExitError, BoltError, WalError and node's errors; the directories are then unchanged. */
export function restoreSnapshot(options: RestoreOptions): void {
  const { io, dataDir, walDir, snapshotPath } = options;
  const { disk } = io;
  const part = `${dataDir}/member.part`;
  checkFree(options, part);
  removeTree(disk, part);
  if (walDir !== undefined) removeTree(disk, `${walDir}.part`);
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

interface Position {
  readonly index: number;
  readonly term: number;
}

function writeDatabase(options: RestoreOptions, path: string, position: Position, confState: ConfState): void {
  const { io, skipHashCheck } = options;
  copyDatabase(options, path);
  const reader = new BoltReader({ disk: io.disk, path });
  let changes: readonly BucketChange[];
  try {
    if (skipHashCheck) checkPages(reader, options.snapshotPath);
    changes = changesOf(options, reader, position, confState);
  } finally {
    reader.close();
  }
  changeDatabase(io.disk, path, changes);
}

/** Copies the database, without the checksum behind it, and compares that if required. */
function copyDatabase({ io, snapshotPath, skipHashCheck }: RestoreOptions, path: string): void {
  try {
    copySnapshot({
      disk: io.disk,
      from: snapshotPath,
      to: path,
      verify: !skipHashCheck,
      progress: (totalBytes) => new Progress(io, "restoring the database", totalBytes),
    });
  } catch (error) {
    const { code, message } = error as BoltError;
    if (code !== "hash-mismatch" && code !== "hash-missing") throw error;
    throw new ExitError(EXIT.error, message.slice(snapshotPath.length + 2));
  }
}

/** Without a checksum, only the pages themselves show that they are whole. */
function checkPages(reader: BoltReader, snapshotPath: string): void {
  const problems = [...take(checkBolt(reader), PROBLEMS_MAX)];
  if (problems.length > 0) {
    throw new ExitError(EXIT.error, `${snapshotPath} is damaged and cannot be restored:\n${problems.join("\n")}`);
  }
}

/** Changes of one bucket: every key of it goes first, if it is replaced. */
interface BucketChange {
  readonly bucket: string;
  readonly remove: readonly Uint8Array[];
  readonly put: readonly (readonly [key: Uint8Array, value: Uint8Array])[];
}

function changesOf(
  { members, bumpRevision, logger }: RestoreOptions,
  reader: BoltReader,
  position: Position,
  confState: ConfState,
): BucketChange[] {
  const keysOf = (bucket: string): Uint8Array[] =>
    [...(reader.bucket(Buffer.from(bucket))?.entries() ?? [])].map(({ key }) => Buffer.from(key));
  const meta: [Buffer, Uint8Array][] = [
    // The position in the new cluster's log, which is unrelated to the old one's.
    [metaKeys.consistentIndex, uint64(position.index)],
    [metaKeys.term, uint64(position.term)],
    [metaKeys.confState, encodeConfState(confState)],
  ];
  const changes: BucketChange[] = [
    {
      bucket: "members",
      remove: keysOf("members"),
      put: members.map((member) => [Buffer.from(formatId(member.id)), Buffer.from(encodeMember(member))]),
    },
    { bucket: "members_removed", remove: keysOf("members_removed"), put: [] },
    { bucket: "meta", remove: [], put: meta },
    { bucket: "cluster", remove: [], put: [] },
  ];
  if (bumpRevision > 0) {
    const bumped = bumpedRevision(reader, bumpRevision, logger);
    meta.push([metaKeys.scheduledCompact, revisionBytes(bumped, 0)]);
    // A row without a key, whose revision is the one that clients see from now on.
    changes.push({ bucket: "key", remove: [], put: [[revisionBytes(bumped, 0), Buffer.alloc(0)]] });
  }
  return changes;
}

function bumpedRevision(reader: BoltReader, amount: number, logger: Logger): number {
  const last = reader.bucket(Buffer.from("key"))?.last();
  const latest = last === undefined ? 0 : mainOf(last.key);
  const bumped = latest + amount;
  logger.info("bumping latest revision", {
    "latest-revision": latest,
    "bump-amount": amount,
    "new-latest-revision": bumped,
  });
  logger.info("marking revision compacted", { revision: bumped });
  return bumped;
}

/** Applies the changes in one durable transaction; a list of free pages is left for the first start. */
function changeDatabase(disk: Disk, path: string, changes: readonly BucketChange[]): void {
  const { file, meta } = openBoltFile(disk, path);
  try {
    const engine = new BoltEngine(file, meta);
    const transaction = engine.begin();
    for (const { bucket, remove, put } of changes) {
      const target = transaction.bucket(bucket, bucket === "key");
      for (const key of remove) target.delete(key, 0, key.length);
      for (const [key, value] of put) {
        const entry = Buffer.concat([key, value]);
        target.put(entry, 0, key.length, entry.length);
      }
    }
    engine.commit(transaction, { writeFreeList: true });
  } finally {
    file.close();
  }
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

function* take<T>(items: Iterable<T>, most: number): Generator<T, void, void> {
  for (const item of items) {
    yield item;
    if (--most === 0) return;
  }
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
