import type { Timer } from "../base/clock.ts";
import { goDuration } from "../base/duration.ts";
import type { Logger } from "../base/log.ts";
import { Lessor, minimumLeaseTtl } from "../lease/lessor.ts";
import { Cluster, encodeV2Snapshot, loadConfState, saveConfState } from "../membership/cluster.ts";
import { formatId } from "../membership/member.ts";
import { type Backend, metaKeys } from "../mvcc/backend.ts";
import { MvccStore } from "../mvcc/store.ts";
import { WatchHub } from "../mvcc/watch-hub.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmRequest,
  AlarmType,
  CompactionRequest,
  InternalRaftRequest,
  LeaseCheckpointRequest,
  LeaseRevokeRequest,
} from "../proto/etcdserverpb.ts";
import { Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest } from "../proto/membershippb.ts";
import { ConfChange, ConfChangeV2, type ConfState, type Entry, EntryType } from "../proto/raftpb.ts";
import { Snapshot as WalSnapshot } from "../proto/walpb.ts";
import { purgeFiles } from "../wal/purge.ts";
import { AlarmStore } from "./alarms.ts";
import { Applier, Op, type Outcome, opNames } from "./apply.ts";
import { type AutoCompactor, startPeriodicCompaction, startRevisionCompaction } from "./auto-compaction.ts";
import type { Bootstrapped } from "./bootstrap.ts";
import { EtcdError, errors } from "./errors.ts";
import type { ServerMetrics } from "./metrics.ts";
import { CLUSTER_VERSION, ETCD_VERSION, requestTimeoutMs, type ServerOptions } from "./options.ts";
import { InternalProposal, type Proposal } from "./proposal.ts";
import { ProposalQueue } from "./proposal-queue.ts";
import { BackendQuota, QUOTA_SUGGESTED_MAX_BYTES } from "./quota.ts";
import { RaftLoop, type RaftLoopHooks } from "./raft-loop.ts";
import { type Read, ReadQueue } from "./read-queue.ts";
import { RequestIdGenerator } from "./request-id.ts";

/** Entries that may be committed but not applied before requests are refused. Source: etcd `v3_server.go`. */
const APPLY_GAP_MAX = 5000;
const SWEEP_MS = 500;
const READ_RETRY_MS = 500;
const PUBLISH_RETRY_MS = 1000;
const PURGE_INTERVAL_MS = 30_000;
/** The log in memory is trimmed each time this many entries were applied. */
const TRIM_ENTRIES = 1000;
/** Entries kept in memory when no follower could need them. */
const SOLO_CATCH_UP_ENTRIES = 100;
/** Expired leases whose revocation is under way at a time. */
const REVOKES_MAX = 256;

/**
 * One member of a cluster: the replicated state machine and everything that feeds it. Requests come in as proposals,
 * pass the log, and are applied in its order. It owns the store, the leases, the alarms and the loop.
 */
export class EtcdServer {
  readonly options: ServerOptions;
  readonly memberId: bigint;
  readonly cluster: Cluster;
  readonly store: MvccStore;
  readonly lessor: Lessor;
  readonly watchHub: WatchHub;
  readonly alarms: AlarmStore;
  readonly quota: BackendQuota;
  readonly metrics: ServerMetrics;
  readonly backend: Backend;
  readonly ids: RequestIdGenerator;

  readonly #parts: Bootstrapped;
  readonly #logger: Logger;
  readonly #applier: Applier;
  readonly #loop: RaftLoop;
  readonly #proposals: ProposalQueue;
  readonly #reads = new ReadQueue();
  readonly #timeoutMs: number;
  readonly #timers: Timer[] = [];
  #compactor: AutoCompactor | null = null;

  #applyStartMs = 0;
  #appliedIndex: number;
  #appliedTerm: number;
  /** Entries up to this index are already in the backend. */
  readonly #consistentIndex: number;
  #confState: ConfState;
  #snapshotIndex: number;
  #snapshotting = false;
  /** The next snapshot does not wait for the snapshot count. */
  #snapshotForced = false;
  #trimmedIndex: number;
  #revoking = 0;

  #term = 0;
  #leader = 0n;
  /** This member leads and has applied an entry of its term: its state is at least as new as any earlier leader's. */
  #leadsInTerm = false;
  /** It is also the only voter: its committed index is the cluster's. */
  #solo = false;
  #paused = false;
  #stopped = false;
  #published: (() => void) | null = null;
  /** Resolves when the member serves: it knows a leader and has published itself. */
  readonly ready: Promise<void>;

  /** Builds the state from what the disk holds. Start it when its events have a receiver. */
  static async create(options: ServerOptions, parts: Bootstrapped): Promise<EtcdServer> {
    const lessor = new Lessor({
      clock: options.clock,
      logger: options.logger,
      backend: parts.backend,
      minTtl: minimumLeaseTtl(options.electionTicks, options.tickMs),
      expiredRetryIntervalMs: requestTimeoutMs(options),
      persistCheckpoints: () => options.leaseCheckpointPersist,
      onExpired: () => server.#revokeExpired(),
    });
    const store = await MvccStore.open({
      backend: parts.backend,
      clock: options.clock,
      logger: options.logger,
      random: options.random,
      leases: lessor,
      compactionBatchLimit: options.compactionBatchLimit,
      compactionSleepMs: options.compactionSleepIntervalMs,
    });
    const server = new EtcdServer(options, parts, lessor, store);
    return server;
  }

  private constructor(options: ServerOptions, parts: Bootstrapped, lessor: Lessor, store: MvccStore) {
    this.options = options;
    this.lessor = lessor;
    this.store = store;
    this.#parts = parts;
    this.#logger = options.logger;
    this.memberId = parts.memberId;
    this.backend = parts.backend;
    this.#timeoutMs = requestTimeoutMs(options);
    this.ids = new RequestIdGenerator(parts.memberId, options.clock.wallMs());
    this.#proposals = new ProposalQueue(this.ids);
    this.metrics = parts.metrics;
    this.ready = new Promise((resolve) => {
      this.#published = resolve;
    });

    this.#appliedIndex = parts.appliedIndex;
    this.#appliedTerm = parts.appliedTerm;
    this.#consistentIndex = parts.consistentIndex;
    this.#snapshotIndex = parts.snapshotIndex;
    this.#trimmedIndex = parts.snapshotIndex;
    this.#confState = loadConfState(parts.backend) ?? parts.confState;

    this.cluster = new Cluster({
      id: parts.clusterId,
      localId: parts.memberId,
      backend: parts.backend,
      logger: this.#logger,
      serverVersion: ETCD_VERSION,
    });
    this.watchHub = new WatchHub({ store: this.store, clock: options.clock, logger: this.#logger });
    this.alarms = new AlarmStore(parts.backend);
    this.quota = new BackendQuota(parts.backend, options.quotaBackendBytes);
    if (options.quotaBackendBytes > QUOTA_SUGGESTED_MAX_BYTES) {
      this.#logger.warn("quota exceeds the maximum value", {
        "quota-size-bytes": options.quotaBackendBytes,
        "quota-maximum-size-bytes": QUOTA_SUGGESTED_MAX_BYTES,
      });
    }
    this.#applier = new Applier({
      metrics: this.metrics,
      store: this.store,
      lessor: this.lessor,
      alarms: this.alarms,
      quota: this.quota,
      cluster: this.cluster,
      logger: this.#logger,
      onVersionLowered: () => {
        this.#logger.info("Cluster version downgrade detected, forcing snapshot");
        this.#snapshotForced = true;
      },
    });
    parts.backend.setPreCommitHook(() => this.#saveConsistentIndex());
    this.#loop = new RaftLoop({
      node: parts.node,
      storage: parts.storage,
      wal: parts.wal,
      clock: options.clock,
      hooks: this.#hooks(),
    });
  }

  start(): void {
    const { clock, tickMs } = this.options;
    this.#timers.push(clock.every(SWEEP_MS, () => this.#sweep()));
    this.#timers.push(clock.every(PURGE_INTERVAL_MS, () => this.#purge()));
    this.#loop.start(tickMs);
    this.#campaignIfAlone();
  }

  get term(): number {
    return this.#term;
  }

  /** 0n when there is none. */
  get leader(): bigint {
    return this.#leader;
  }

  get isLeader(): boolean {
    return this.#leader === this.memberId;
  }

  get isLearner(): boolean {
    return this.#confState.learners.includes(this.memberId);
  }

  get appliedIndex(): number {
    return this.#appliedIndex;
  }

  get committedIndex(): number {
    return this.#parts.node.committed;
  }

  get pendingProposals(): number {
    return this.#proposals.pendingCount;
  }

  get storageVersion(): string | undefined {
    const version = this.backend.get("meta", metaKeys.storageVersion);
    return version === undefined ? undefined : Buffer.from(version).toString("latin1");
  }

  /** Puts a request into the log; it is answered when it has been applied, or refused. */
  propose(proposal: Proposal): void {
    if (this.#stopped) proposal.finish(errors.stopped);
    else if (this.#proposals.sizeOf(proposal) > this.options.maxRequestBytes) proposal.finish(errors.requestTooLarge);
    else if (this.#proposals.full || this.committedIndex - this.#appliedIndex > APPLY_GAP_MAX) {
      this.metrics.proposalsFailed++;
      proposal.finish(errors.tooManyRequests);
    } else {
      proposal.sinceMs = this.options.clock.nowMs();
      this.#proposals.add(proposal);
      this.#loop.schedule();
    }
  }

  /** The same for requests that the server or a slow path makes. */
  request(op: Op, request: object, payload: Uint8Array): Promise<Outcome> {
    return new Promise((resolve) => {
      this.propose(new InternalProposal(op, request, payload, resolve));
    });
  }

  /** True when a linearizable read may be served at once: this member alone decides what is committed, and has applied it. */
  get canReadNow(): boolean {
    return this.#solo && this.#leadsInTerm && !this.#stopped && this.#appliedIndex === this.committedIndex;
  }

  /** Serves the read as soon as the state is at least as new as now. */
  read(read: Read): void {
    if (this.#stopped) read.serve(errors.stopped);
    else if (this.canReadNow) read.serve(null);
    else if (this.#reads.full) read.serve(errors.tooManyRequests);
    else {
      this.#reads.add(read, this.options.clock.nowMs());
      this.#loop.schedule();
    }
  }

  /** Compacts through the log; with `physical` it resolves when the old revisions are gone from the disk's pages. */
  async compact(request: { revision: number; physical: boolean }, payload: Uint8Array): Promise<Outcome> {
    const outcome = await this.request(Op.COMPACTION, request, payload);
    if (request.physical && !(outcome instanceof EtcdError)) {
      await this.#applier.compactionDone;
      await this.backend.commit();
    }
    return outcome;
  }

  /** Raises NOSPACE for this member: writes are refused until an operator made room and lifted it. */
  raiseNoSpace(): Promise<Outcome> {
    const { limitBytes } = this.quota;
    this.#logger.warn("message exceeded backend quota; raising alarm", { "quota-size-bytes": limitBytes });
    const request = AlarmRequest.create({
      action: AlarmAction.ACTIVATE,
      memberId: this.memberId,
      alarm: AlarmType.NOSPACE,
    });
    return this.request(Op.ALARM, request, AlarmRequest.encode(request));
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#compactor?.stop();
    this.watchHub.close();
    this.#proposals.clear(errors.stopped);
    this.#reads.expire(Number.POSITIVE_INFINITY, errors.stopped);
    this.lessor.stop();
    await this.#loop.stop();
    this.#parts.wal.close();
    await this.store.close();
    await this.backend.close();
    this.#parts.unlock();
  }

  #hooks(): RaftLoopHooks {
    return {
      apply: (entries) => this.#apply(entries),
      propose: () => this.#handIn(),
      readState: (context, index) => {
        this.#reads.confirmed(context, index);
        this.#reads.applied(this.#appliedIndex);
      },
      stateChanged: () => this.#stateChanged(),
      installSnapshot: () => {
        throw new Error("received a snapshot, but this member has no peers");
      },
      send: (messages) => {
        if (messages.length > 0)
          throw new Error(`raft wants to talk to member ${formatId(messages[0]!.to)}, but this member has no peers`);
      },
      blocked: () => this.#isBlocked(),
      fail: (error) => this.options.onFailure(error),
      observeSync: (ms) => this.metrics.walSync.observe(ms / 1000),
    };
  }

  /** While the disk under the backend lags, the loop waits: what was applied must not pile up in memory. */
  #isBlocked(): boolean {
    if (this.#paused) return true;
    if (!this.backend.overloaded) return false;
    this.#paused = true;
    void this.backend.drained().then(
      () => {
        this.#paused = false;
        this.#loop.run();
      },
      (error: unknown) => this.options.onFailure(error),
    );
    return true;
  }

  #handIn(): void {
    const { node } = this.#parts;
    if (this.#leader === 0n) return;
    const context = this.#reads.startRound(this.options.clock.nowMs(), READ_RETRY_MS);
    if (context !== undefined) node.readIndex(context);
    if (this.#proposals.waitingCount === 0) return;
    const error = node.proposeBatch(this.#proposals.encodeWaiting());
    if (error === undefined) this.#proposals.proposed(node.raft.log.lastIndex(), this.#term);
  }

  #stateChanged(): void {
    const { leader, term } = this.#parts.node;
    const led = this.isLeader;
    if (leader !== 0n && leader !== this.#leader) this.metrics.leaderChanges++;
    if (leader !== this.#leader || term !== this.#term) this.#leadsInTerm = false;
    this.#leader = leader;
    this.#term = term;
    this.#solo = this.#confState.voters.length === 1 && this.#confState.voters[0] === this.memberId;
    if (led && !this.isLeader) {
      this.lessor.demote();
      this.#compactor?.stop();
      this.#compactor = null;
    }
  }

  #apply(entries: readonly Entry[]): void {
    this.#applyStartMs = this.options.clock.nowMs();
    for (const entry of entries) {
      if (entry.index <= this.#appliedIndex) continue;
      if (entry.index !== this.#appliedIndex + 1) {
        throw new Error(`entry ${entry.index} was committed, but ${this.#appliedIndex} is the last one applied`);
      }
      this.#appliedIndex = entry.index;
      this.#appliedTerm = entry.term;
      if (entry.type === EntryType.EntryNormal) this.#applyNormal(entry);
      else this.#applyConfChange(entry);
    }
    this.metrics.proposalsApplied += entries.length;
    this.#reads.applied(this.#appliedIndex);
    this.#trimLog();
    if (this.#snapshotForced || this.#appliedIndex - this.#snapshotIndex > this.options.snapshotCount) this.#snapshot();
  }

  #applyNormal(entry: Entry): void {
    if (entry.data.length === 0) {
      this.#startLeading(entry.term);
      return;
    }
    const proposal = this.#proposals.take(entry.index, entry.term, errors.leaderChanged);
    // A restart replays what the backend already holds.
    if (entry.index <= this.#consistentIndex) return;
    const outcome =
      proposal === undefined
        ? this.#applier.applyInternal(InternalRaftRequest.decode(entry.data))
        : this.#applier.apply(proposal.op, proposal.request);
    if (proposal !== undefined) this.#observe(proposal);
    if (outcome === errors.noSpace && !this.alarms.noSpace) {
      void this.raiseNoSpace().then(() => proposal?.finish(outcome));
    } else proposal?.finish(outcome);
  }

  /** Requests are applied back to back, so the end of one is the start of the next. */
  #observe({ op, sinceMs, payload }: Proposal): void {
    const { clock, warningApplyDurationMs, warningUnaryRequestDurationMs } = this.options;
    const nowMs = clock.nowMs();
    const tookMs = nowMs - this.#applyStartMs;
    this.#applyStartMs = nowMs;
    this.metrics.observeApply(opNames[op], tookMs / 1000);
    if (nowMs - sinceMs >= warningUnaryRequestDurationMs) {
      this.#logger.warn("request stats", {
        "time spent": goDuration(nowMs - sinceMs),
        request: opNames[op],
        "request size": payload.length,
      });
    }
    if (tookMs < warningApplyDurationMs) return;
    this.metrics.slowApplies++;
    this.#logger.warn("apply request took too long", {
      took: goDuration(tookMs),
      "expected-duration": goDuration(warningApplyDurationMs),
      request: opNames[op],
    });
  }

  /** The first entry of a leader's term is empty: once it is applied, so is everything of earlier terms. */
  #startLeading(term: number): void {
    if (!this.isLeader || term !== this.#term) return;
    this.#leadsInTerm = true;
    this.lessor.promote(this.options.electionTicks * this.options.tickMs);
    if (this.options.leaseCheckpoint)
      this.lessor.setCheckpointer((checkpoints, done) => {
        const request = LeaseCheckpointRequest.create({ checkpoints });
        void this.request(Op.LEASE_CHECKPOINT, request, LeaseCheckpointRequest.encode(request)).then((outcome) =>
          done(outcome instanceof EtcdError ? new Error(outcome.message) : null),
        );
      });
    this.#startCompactor();
    if (this.#published !== null) void this.#publish();
  }

  #applyConfChange(entry: Entry): void {
    if (entry.index <= this.#consistentIndex) return;
    const { node } = this.#parts;
    if (entry.type === EntryType.EntryConfChange) {
      const change = ConfChange.decode(entry.data);
      this.#confState = node.applyConfChange(change);
      this.cluster.applyConfChange(change);
    } else this.#confState = node.applyConfChange(ConfChangeV2.decode(entry.data));
    saveConfState(this.backend, this.#confState);
    this.#stateChanged();
  }

  /** A cluster of one need not wait for an election timeout to know that it hears of no leader. */
  #campaignIfAlone(): void {
    const { voters } = this.#confState;
    if (voters.length !== 1 || voters[0] !== this.memberId) return;
    this.#parts.node.campaign();
    this.#loop.run();
  }

  async #publish(): Promise<void> {
    const published = this.#published;
    if (published === null || this.#stopped) return;
    this.#published = null;
    const attributes = Attributes.create({
      name: this.options.name,
      clientUrls: [...this.options.advertiseClientUrls],
    });
    const request = ClusterMemberAttrSetRequest.create({ memberId: this.memberId, memberAttributes: attributes });
    const outcome = this.request(Op.CLUSTER_MEMBER_ATTR_SET, request, ClusterMemberAttrSetRequest.encode(request));
    if (this.cluster.version === undefined) {
      this.#logger.info("setting up initial cluster version using v3 API", { "cluster-version": "3.7" });
      const version = ClusterVersionSetRequest.create({ ver: CLUSTER_VERSION });
      await this.request(Op.CLUSTER_VERSION_SET, version, ClusterVersionSetRequest.encode(version));
    }
    if ((await outcome) instanceof EtcdError) {
      this.#published = published;
      this.#logger.warn("failed to publish local member to cluster through raft", {
        "local-member-id": formatId(this.memberId),
        error: `${await outcome}`,
      });
      this.#timers.push(this.options.clock.after(PUBLISH_RETRY_MS, () => void this.#publish()));
      return;
    }
    if (this.storageVersion !== this.cluster.version && this.cluster.version !== undefined) {
      this.backend.put("meta", metaKeys.storageVersion, Buffer.from(this.cluster.version));
      this.#logger.info("updated storage version", { "new-storage-version": this.cluster.version });
    }
    this.#logger.info("published local member to cluster through raft", {
      "local-member-id": formatId(this.memberId),
      "local-member-attributes": `{Name:${attributes.name} ClientURLs:[${attributes.clientUrls.join(" ")}]}`,
      "cluster-id": formatId(this.cluster.id),
    });
    published();
  }

  #startCompactor(): void {
    const { autoCompactionMode: mode, autoCompactionRetention: retention, clock } = this.options;
    if (retention === 0 || this.#compactor !== null) return;
    const common = {
      clock,
      logger: this.#logger,
      revision: () => this.store.currentRevision,
      compact: async (revision: number): Promise<boolean> => {
        const request = CompactionRequest.create({ revision });
        const outcome = await this.compact(request, CompactionRequest.encode(request));
        return !(outcome instanceof EtcdError) || outcome === errors.compacted;
      },
    };
    this.#compactor =
      mode === "periodic"
        ? startPeriodicCompaction({ ...common, periodMs: retention })
        : startRevisionCompaction({ ...common, retention });
  }

  /** Proposes the revocation of what has expired, a bounded number at a time. */
  #revokeExpired(): void {
    if (!this.isLeader || this.#stopped) return;
    for (const id of this.lessor.expired(REVOKES_MAX - this.#revoking)) {
      this.#revoking++;
      const request = LeaseRevokeRequest.create({ id });
      const done = (outcome: Outcome): void => {
        this.#revoking--;
        if (outcome instanceof EtcdError && outcome !== errors.leaseNotFound) {
          this.#logger.warn("failed to revoke lease", {
            "lease-id": formatId(BigInt.asUintN(64, id)),
            error: outcome.message,
          });
        } else this.metrics.leasesExpired++;
        if (this.#revoking === 0) this.#revokeExpired();
      };
      this.propose(new InternalProposal(Op.LEASE_REVOKE, request, LeaseRevokeRequest.encode(request), done));
    }
  }

  #sweep(): void {
    const before = this.options.clock.nowMs() - this.#timeoutMs;
    this.#proposals.expire(before, errors.timeout);
    this.#reads.expire(before, errors.timeout);
  }

  #saveConsistentIndex(): void {
    const index = Buffer.alloc(8);
    index.writeBigUInt64BE(BigInt(Math.max(this.#appliedIndex, this.#consistentIndex)));
    const term = Buffer.alloc(8);
    term.writeBigUInt64BE(BigInt(this.#appliedTerm));
    this.backend.put("meta", metaKeys.consistentIndex, index);
    this.backend.put("meta", metaKeys.term, term);
  }

  #trimLog(): void {
    if (this.#snapshotting || this.#appliedIndex - this.#trimmedIndex < TRIM_ENTRIES) return;
    const keep = this.#solo ? SOLO_CATCH_UP_ENTRIES : this.options.snapshotCatchUpEntries;
    const index = this.#appliedIndex - keep;
    this.#trimmedIndex = this.#appliedIndex;
    if (index > this.#parts.storage.firstIndex()) this.#parts.storage.compact(index);
  }

  /** Saves a raft snapshot once the backend holds everything it stands for; older log segments are then free. */
  #snapshot(): void {
    if (this.#snapshotting) return;
    this.#snapshotting = true;
    this.#snapshotForced = false;
    const { snapshotter, storage, wal } = this.#parts;
    const index = this.#appliedIndex;
    const confState = this.#confState;
    const data = encodeV2Snapshot(this.cluster);
    this.#logger.info("triggering snapshot", {
      "local-member-id": formatId(this.memberId),
      "local-member-applied-index": index,
      "local-member-snapshot-index": this.#snapshotIndex,
      "local-member-snapshot-count": this.options.snapshotCount,
    });
    const save = (): void => {
      this.#snapshotting = false;
      if (this.#stopped) return;
      const snapshot = storage.createSnapshot(index, confState, data);
      snapshotter.save(snapshot);
      wal.saveSnapshot(WalSnapshot.create({ index, term: snapshot.metadata!.term, confState }));
      wal.releaseTo(index);
      this.#snapshotIndex = index;
      this.#logger.info("saved snapshot to disk", { "snapshot-index": index });
    };
    this.backend
      .commit()
      .then(save)
      .catch((error: unknown) => this.options.onFailure(error));
  }

  #purge(): void {
    const { disk, maxSnapFiles, maxWalFiles } = this.options;
    const { walDir, snapDir, wal } = this.#parts;
    try {
      const isNeeded = (file: string): boolean => wal.isHeld(file);
      purgeFiles({ disk, dir: walDir, suffix: ".wal", max: maxWalFiles, logger: this.#logger, isNeeded });
      purgeFiles({ disk, dir: snapDir, suffix: ".snap", max: maxSnapFiles, logger: this.#logger });
    } catch (error) {
      this.#logger.warn("failed to purge files", { error: `${error}` });
    }
  }
}
