import type { Clock } from "../../base/clock.ts";
import { codeOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { loadConfState } from "../../membership/cluster.ts";
import { byId } from "../../membership/initial.ts";
import { decodeMember, encodeMember, formatId, type Member } from "../../membership/member.ts";
import { type Backend, metaKeys } from "../../mvcc/backend/backend.ts";
import { Metadata } from "../../proto/etcdserverpb.ts";
import { ConfChangeType, ConfState, type Entry, type HardState, type Snapshot } from "../../proto/raftpb.ts";
import { asV2, confChangeOf } from "../../raft/confchange/change.ts";
import type { RaftConfig } from "../../raft/config.ts";
import type { RaftLogger } from "../../raft/logger.ts";
import { MemoryStorage } from "../../raft/memory-storage.ts";
import { RawNode } from "../../raft/rawnode.ts";
import type { RaftStorage } from "../../raft/storage.ts";
import { type SnapshotTiming, Snapshotter } from "../../wal/snapshotter.ts";
import { Wal, type WalOptions } from "../../wal/wal.ts";
import { ServerMetrics } from "../contract/metrics.ts";
import type { PeerClient } from "../contract/network.ts";
import type { BootstrapOptions } from "../contract/options.ts";
import { type OpenBackend, openReceived } from "../snapshot/installer.ts";
import { type DataDir, DataDirError, openDataDir } from "./data-dir.ts";
import { type ForcedLog, forceNewCluster } from "./force-new-cluster.ts";
import { checkLearnerCount, foundCluster, joinCluster } from "./initial-cluster.ts";
import { backendOpener, openDatabase } from "./open-database.ts";

/** Source of the limits: etcd `server/etcdserver/raft.go`. */
const MESSAGE_BYTES_MAX = 1024 * 1024;
const INFLIGHT_MESSAGES_MAX = 4096 / 8;

/** A member ready to start: its identity and its durable state, assembled and checked. */
export interface Bootstrapped extends DataDir {
  readonly metrics: ServerMetrics;
  /** It was a member before: there was a log. */
  readonly restarted: boolean;
  readonly memberId: bigint;
  readonly clusterId: bigint;
  /**
   * The members (including this one) to communicate with from the start, ascending by id: from the flags, or from the
   * backend.
   */
  readonly members: readonly Member[];
  /** For a joining member: the cluster's members, which can be answered before the log names them. */
  readonly remotes: readonly Member[];
  readonly backend: Backend;
  /** Opens another backend, for a received database. */
  readonly openBackend: OpenBackend;
  readonly node: RawNode;
  readonly storage: MemoryStorage;
  readonly wal: Wal;
  readonly snapshotter: Snapshotter;
  /** Raft's configuration at the snapshot; the backend may have a later one. */
  readonly confState: ConfState;
  /** Entries up to this index are already in the backend. */
  readonly consistentIndex: number;
  readonly appliedIndex: number;
  readonly appliedTerm: number;
  readonly snapshotIndex: number;
}

/**
 * Opens the data directory: creates a new member in an empty one, or assembles log, snapshots and backend of an
 * existing one. Throws an error that names the file, what is lost if anything, and what to do.
 */
export async function bootstrap(options: BootstrapOptions, peerClient: PeerClient): Promise<Bootstrapped> {
  const { disk, clock, logger } = options;
  const dir = await openDataDir(options.dataDir, options.walDir, {
    disk,
    clock,
    logger,
    lockDataDir: options.seams?.lockDataDir,
  });
  try {
    const metrics = new ServerMetrics();
    const haveWal = Wal.exists(disk, dir.walDir);
    const openBackend = backendOpener(options, metrics);
    let backend = await openDatabase(dir.dbPath, openBackend, options);
    try {
      const snapshotter = new Snapshotter({ disk, dir: dir.snapDir, logger });
      const snapshot = haveWal ? newestSnapshot(snapshotter, dir, options) : undefined;
      if (haveWal) backend = await finishInstallation(snapshotter, snapshot, dir, backend, openBackend, options);
      await defragmentIfWorthIt(backend, options);
      const found = haveWal
        ? restart(options, dir, backend, snapshotter, snapshot)
        : await create(options, dir, backend, snapshotter, peerClient);
      found.snapshotter.timing = snapshotTiming(options.clock, metrics);
      return { ...found, metrics, openBackend, restarted: haveWal };
    } catch (error) {
      await backend.close();
      throw error;
    }
  } catch (error) {
    dir.unlock();
    throw error;
  }
}

async function defragmentIfWorthIt(backend: Backend, options: BootstrapOptions): Promise<void> {
  const threshold = options.bootstrapDefragThresholdBytes;
  if (threshold === 0) return;
  const [size, inUse] = [backend.sizeBytes(), backend.sizeInUseBytes()];
  if (size - inUse >= threshold) return await backend.defragment();
  options.logger.info("Skipping defragmentation", {
    "current-db-size-bytes": size,
    "current-db-size-in-use-bytes": inUse,
    "bootstrap-defrag-threshold-bytes": threshold,
  });
}

async function create(
  options: BootstrapOptions,
  dir: DataDir,
  backend: Backend,
  snapshotter: Snapshotter,
  peerClient: PeerClient,
): Promise<Found> {
  const { logger, newCluster } = options;
  const { index } = readConsistentIndex(backend);
  if (index > 0) {
    throw new DataDirError(
      `${dir.dbPath} holds the state up to log index ${index}, but there is no write-ahead log in ${dir.walDir}. ` +
        "If the log was moved, start with --wal-dir pointing at it. If it is lost, the writes after the last snapshot of the " +
        "database may be lost with it: restore a backup (etcdutl snapshot restore) into a new data directory",
    );
  }
  const { clusterId, local, members, remotes } = await (newCluster ? foundCluster : joinCluster)(options, peerClient);
  // Where etcd stores the auth revision: 1 without users.
  backend.put("auth", AUTH_REVISION_KEY, AUTH_REVISION_FIRST);
  const metadata = Metadata.encode(Metadata.create({ nodeId: local.id, clusterId }));
  const wal = Wal.create({ ...walOptions(options, dir), metadata });
  const storage = new MemoryStorage();
  const node = new RawNode(raftConfig(options, local.id, storage, 0));
  // A joining member learns the members from the others' log.
  if (newCluster) {
    const failed = node.bootstrap(members.map((member) => ({ id: member.id, context: encodeContext(member) })));
    if (failed !== undefined) throw failed;
  }
  logger.info("starting local member", { "local-member-id": formatId(local.id), "cluster-id": formatId(clusterId) });
  return {
    ...dir,
    memberId: local.id,
    clusterId,
    members,
    remotes,
    backend,
    node,
    storage,
    wal,
    snapshotter,
    confState: ConfState.create({ voters: newCluster ? members.map((member) => member.id) : [] }),
    consistentIndex: 0,
    appliedIndex: 0,
    appliedTerm: 0,
    snapshotIndex: 0,
  };
}

function snapshotTiming(clock: Clock, metrics: ServerMetrics): SnapshotTiming {
  return {
    nowMs: () => clock.nowMs(),
    saved(encodeMs, syncMs, totalMs) {
      metrics.snapshotEncode.observe(encodeMs / 1000);
      metrics.snapshotSync.observe(syncMs / 1000);
      metrics.snapshotSave.observe(totalMs / 1000);
    },
    received(syncMs, totalMs) {
      metrics.receivedSync.observe(syncMs / 1000);
      metrics.receivedSave.observe(totalMs / 1000);
    },
  };
}

const encodeContext = (member: Member): Uint8Array => Buffer.from(encodeMember(member));

type Found = Omit<Bootstrapped, "metrics" | "openBackend" | "restarted">;

/** The snapshot that the member continues from; undefined when it is the beginning of the log. */
function newestSnapshot(snapshotter: Snapshotter, dir: DataDir, options: BootstrapOptions): Snapshot | undefined {
  const oldest = snapshotter.oldestIndex();
  if (oldest === undefined) return undefined;
  const { disk, logger } = options;
  return snapshotter.loadNewestAvailable(Wal.validSnapshotEntries(disk, dir.walDir, logger, oldest));
}

/** A snapshot was received and saved, but the member ended before its database replaced the old one. */
async function finishInstallation(
  snapshotter: Snapshotter,
  snapshot: Snapshot | undefined,
  dir: DataDir,
  backend: Backend,
  openBackend: OpenBackend,
  options: BootstrapOptions,
): Promise<Backend> {
  const { disk, logger } = options;
  const index = snapshot?.metadata?.index ?? 0;
  snapshotter.removeOrphans();
  const isBehind = readConsistentIndex(backend).index < index;
  if (snapshot === undefined || !isBehind || !disk.exists(snapshotter.dbPath(index))) {
    // Later ones stay: their snapshot may be saved, but not yet known as committed.
    snapshotter.releaseSnapDbs(isBehind ? index : index + 1);
    return backend;
  }
  logger.info("the database of a received snapshot is not installed yet; installing it", { "snapshot-index": index });
  const next = await openReceived(snapshotter, snapshot, openBackend);
  await backend.close();
  next.moveTo(dir.dbPath);
  snapshotter.releaseSnapDbs(index + 1);
  return next;
}

function restart(
  options: BootstrapOptions,
  dir: DataDir,
  backend: Backend,
  snapshotter: Snapshotter,
  snapshot: Snapshot | undefined,
): Found {
  const { logger } = options;
  const snapshotIndex = snapshot?.metadata?.index ?? 0;
  const { wal, metadata, ...log } = readLog(options, dir, snapshot);
  const { nodeId: memberId, clusterId } = Metadata.decode(metadata);
  const consistent = readConsistentIndex(backend);
  const members = readMembers(backend);
  try {
    checkNotRemoved(backend, memberId, dir);
    checkTogether({
      dir,
      members,
      memberId,
      clusterId,
      entries: log.entries,
      confState: snapshot?.metadata?.confState,
      snapshotIndex,
      consistentIndex: consistent.index,
    });
    checkLearnerCount(members, options.maxLearners);
  } catch (error) {
    wal.close();
    throw error;
  }
  if (options.discover !== undefined) {
    logger.warn("discovery token is ignored since cluster already initialized; valid logs are found", {
      "wal-dir": dir.walDir,
    });
  }
  const { hardState, entries } = options.forceNewCluster ? force() : log;

  const confState =
    (consistent.index > snapshotIndex ? loadConfState(backend) : undefined) ??
    snapshot?.metadata?.confState ??
    ConfState.create();
  const storage = new MemoryStorage();
  if (snapshot !== undefined) storage.applySnapshot(snapshot);
  // What the backend has applied was committed, even if that was not logged before the crash.
  storage.setHardState({ ...hardState, commit: Math.max(hardState.commit, consistent.index, snapshotIndex) });
  storage.append(entries);
  const applied = Math.max(consistent.index, snapshotIndex);
  const node = new RawNode(raftConfig(options, memberId, withConfState(storage, confState), applied));
  logger.info(options.forceNewCluster ? "forcing restart member" : "restarting local member", {
    "cluster-id": formatId(clusterId),
    "local-member-id": formatId(memberId),
    "wal-commit-index": log.hardState.commit,
    "commit-index": hardState.commit,
    "consistent-index": consistent.index,
    "snapshot-index": snapshotIndex,
    "last-index": storage.lastIndex(),
  });
  return {
    ...dir,
    memberId,
    clusterId,
    members,
    remotes: [],
    backend,
    node,
    storage,
    wal,
    snapshotter,
    confState,
    consistentIndex: consistent.index,
    appliedIndex: applied,
    appliedTerm: applied === consistent.index ? consistent.term : (snapshot?.metadata?.term ?? 0),
    snapshotIndex,
  };

  /** The new end of the log is made durable before anything else happens. */
  function force(): ForcedLog {
    const forced = forceNewCluster({
      log,
      confState: snapshot?.metadata?.confState ?? ConfState.create(),
      consistentIndex: consistent.index,
      localId: memberId,
      peerUrls: options.initialCluster.get(options.name) ?? [],
      logger,
    });
    wal.append(forced.hardState, forced.added);
    wal.sync();
    return forced;
  }
}

interface LogContent {
  readonly wal: Wal;
  readonly metadata: Uint8Array;
  readonly hardState: HardState;
  readonly entries: Entry[];
}

/** Opens the log after the snapshot; repairs a torn tail, as left by a crash, once. */
function readLog(options: BootstrapOptions, dir: DataDir, snapshot: Snapshot | undefined): LogContent {
  const { disk, logger } = options;
  const { index, term } = snapshot?.metadata ?? { index: 0, term: 0 };
  for (let repaired = false; ; repaired = true) {
    const wal = Wal.open({ ...walOptions(options, dir), snapshot: { index, term } });
    try {
      const { metadata, hardState, entries } = wal.readAll();
      return { wal, metadata, hardState: hardState ?? { term: 0, vote: 0n, commit: 0 }, entries };
    } catch (error) {
      wal.close();
      if (repaired || !isTornTail(error)) throw error;
      Wal.repair(disk, dir.walDir, logger);
    }
  }
}

function isTornTail(error: unknown): boolean {
  return codeOf(error) === "WAL_TORN_TAIL";
}

/** Log, snapshot and backend must belong to one member and be consistent. */
function checkTogether(found: {
  dir: DataDir;
  members: readonly Member[];
  memberId: bigint;
  clusterId: bigint;
  entries: readonly Entry[];
  /** Raft's configuration at the snapshot. */
  confState: ConfState | undefined;
  snapshotIndex: number;
  consistentIndex: number;
}): void {
  const { dir, members, memberId, snapshotIndex, consistentIndex } = found;
  if (consistentIndex < snapshotIndex) {
    throw new DataDirError(
      "failed to find database snapshot file (snap: snapshot file doesn't exist): " +
        `${dir.dbPath} ends at log index ${consistentIndex}, but the newest snapshot in ${dir.snapDir} is of index ${snapshotIndex}, ` +
        "and the log before it is gone: the database is missing or older than its log. Nothing was changed. " +
        "Put the database back that belongs to this log, or restore a backup (etcdutl snapshot restore) into a new data directory",
    );
  }
  const lastIndex = Math.max(found.entries.at(-1)?.index ?? 0, snapshotIndex);
  if (consistentIndex > lastIndex) {
    throw new DataDirError(
      `${dir.dbPath} holds the state up to log index ${consistentIndex}, but the log in ${dir.walDir} ends at ${lastIndex}: ` +
        "the log is older than the database or belongs to another member. Nothing was changed. Put the log back that belongs " +
        "to this database (--wal-dir), or restore a backup (etcdutl snapshot restore) into a new data directory",
    );
  }
  // A joining member applies the log from its beginning: until it reaches its own addition it is not among the members.
  const isMissing = members.length > 0 && !members.some((member) => member.id === memberId);
  if (isMissing && wasAdded(found)) {
    throw new DataDirError(
      `the log in ${dir.walDir} is of member ${formatId(memberId)} in cluster ${formatId(found.clusterId)}, but ${dir.dbPath} is of a ` +
        "cluster that this member is not in: the two come from different data directories. Nothing was changed. " +
        "Put the ones together that belong together (--data-dir, --wal-dir)",
    );
  }
}

/** According to the database, the member had been added. */
function wasAdded({ memberId, entries, confState, consistentIndex }: Parameters<typeof checkTogether>[0]): boolean {
  const { voters = [], votersOutgoing = [], learners = [], learnersNext = [] } = confState ?? {};
  if ([voters, votersOutgoing, learners, learnersNext].some((ids) => ids.includes(memberId))) return true;
  return entries.some((entry) => {
    const change = entry.index <= consistentIndex ? confChangeOf(entry) : undefined;
    return (
      change !== undefined && asV2(change).changes.some(({ type, nodeId }) => ADDS.has(type) && nodeId === memberId)
    );
  });
}

const ADDS: ReadonlySet<ConfChangeType> = new Set([
  ConfChangeType.ConfChangeAddNode,
  ConfChangeType.ConfChangeAddLearnerNode,
]);

/** Removal is permanent: the others would refuse it. */
function checkNotRemoved(backend: Backend, memberId: bigint, dir: DataDir): void {
  if (backend.get("members_removed", Buffer.from(formatId(memberId))) === undefined) return;
  throw new DataDirError(
    `the member ${formatId(memberId)} has been permanently removed from the cluster. To bring this machine back, move ${dir.dataDir} ` +
      "away, add a new member (etcdctl member add), and start it with --initial-cluster-state=existing",
  );
}

function readMembers(backend: Backend): Member[] {
  const members: Member[] = [];
  backend.forEach("members", (key, value) => {
    const id = BigInt(`0x${Buffer.from(key).toString("latin1")}`);
    members.push(decodeMember(id, Buffer.from(value).toString("utf8")));
  });
  return byId(members);
}

function readConsistentIndex(backend: Backend): { index: number; term: number } {
  const index = backend.get("meta", metaKeys.consistentIndex);
  const term = backend.get("meta", metaKeys.term);
  return { index: readUint64(index), term: readUint64(term) };
}

const AUTH_REVISION_KEY = Buffer.from("authRevision");
const AUTH_REVISION_FIRST = Buffer.from([0, 0, 0, 0, 0, 0, 0, 1]);

function readUint64(bytes: Uint8Array | undefined): number {
  return bytes === undefined || bytes.length !== 8 ? 0 : Number(Buffer.from(bytes).readBigUInt64BE(0));
}

function walOptions(options: BootstrapOptions, dir: DataDir): WalOptions {
  return {
    disk: options.disk,
    dir: dir.walDir,
    logger: options.logger,
    clock: options.clock,
    unsafeNoSync: options.unsafeNoFsync,
    ...(options.walSegmentSizeBytes === undefined ? {} : { segmentSizeBytes: options.walSegmentSizeBytes }),
  };
}

function raftConfig(options: BootstrapOptions, id: bigint, storage: RaftStorage, applied: number): RaftConfig {
  return {
    id,
    electionTicks: options.electionTicks,
    heartbeatTicks: 1,
    storage,
    applied,
    random: options.random,
    messageBytesMax: MESSAGE_BYTES_MAX,
    inflightMessagesMax: INFLIGHT_MESSAGES_MAX,
    ...options.raftLimits,
    checkQuorum: true,
    preVote: options.preVote,
    asyncStorageWrites: true,
    logger: raftLogger(options.raftLogger ?? options.logger),
  };
}

/** The storage with the backend's configuration, which may be later than the snapshot's. */
function withConfState(storage: MemoryStorage, confState: ConfState): RaftStorage {
  return {
    initialState: () => ({ hardState: storage.initialState().hardState, confState }),
    entries: (low, high, bytesMax) => storage.entries(low, high, bytesMax),
    term: (index) => storage.term(index),
    lastIndex: () => storage.lastIndex(),
    firstIndex: () => storage.firstIndex(),
    snapshot: () => storage.snapshot(),
  };
}

function raftLogger(logger: Logger): RaftLogger {
  return {
    debug: logger.debugEnabled ? (text) => logger.debug(text) : undefined,
    info: (text) => logger.info(text),
    warn: (text) => logger.warn(text),
    error: (text) => logger.error(text),
  };
}
