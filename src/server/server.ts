import { type AuthInfo, NOBODY } from "../auth/auth-info.ts";
import type { AuthStore } from "../auth/store.ts";
import type { Timer } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { formatVersion } from "../base/semver.ts";
import { Lessor, minimumLeaseTtl } from "../lease/lessor.ts";
import { Cluster } from "../membership/cluster.ts";
import { formatId } from "../membership/member.ts";
import type { Backend } from "../mvcc/backend.ts";
import { MvccStore } from "../mvcc/store.ts";
import { WatchHub } from "../mvcc/watch-hub.ts";
import { AlarmRequest_AlarmAction as AlarmAction, AlarmRequest, AlarmType } from "../proto/etcdserverpb.ts";
import type { Entry, Message, Snapshot } from "../proto/raftpb.ts";
import type { MemoryStorage } from "../raft/memory-storage.ts";
import { isLocalMsgTarget } from "../raft/messages.ts";
import { AlarmStore } from "./alarms.ts";
import { AppliedWaiters } from "./applied-waiters.ts";
import { Applier, Op, type Outcome } from "./apply.ts";
import type { Bootstrapped } from "./bootstrap.ts";
import { ConfChanges } from "./conf-changes.ts";
import { Duties } from "./duties.ts";
import { startElectionTicks } from "./election-ticks.ts";
import { EtcdError, errors } from "./errors.ts";
import { LeaderTransfer } from "./leader-transfer.ts";
import { compactionOf, Leadership } from "./leadership.ts";
import { MembershipRequests } from "./membership-requests.ts";
import type { ServerMetrics } from "./metrics.ts";
import type { DatabaseSink, NetworkReceiver } from "./network.ts";
import { openAuth } from "./open-auth.ts";
import { ETCD_VERSION, requestTimeoutMs, type ServerOptions } from "./options.ts";
import { Outbox } from "./outbox.ts";
import { InternalProposal, type Proposal } from "./proposal.ts";
import { ProposalQueue } from "./proposal-queue.ts";
import { Publisher } from "./publisher.ts";
import { BackendQuota, QUOTA_SUGGESTED_MAX_BYTES } from "./quota.ts";
import { RaftLoop, type RaftLoopHooks } from "./raft-loop.ts";
import { type Read, ReadQueue } from "./read-queue.ts";
import { RequestIdGenerator } from "./request-id.ts";
import { importReceived, switchBackend } from "./snapshot-installer.ts";
import { SnapshotReceiver } from "./snapshot-receiver.ts";
import { SnapshotSender } from "./snapshot-sender.ts";
import { Snapshots } from "./snapshots.ts";
import { StateMachine } from "./state-machine.ts";
import { TimeoutReasons } from "./timeout-reasons.ts";

/** Entries that may be committed but not applied before requests are refused. Source: etcd `v3_server.go`. */
const APPLY_GAP_MAX = 5000;
const SWEEP_MS = 500;
const READ_RETRY_MS = 500;
const PURGE_INTERVAL_MS = 30_000;
/** Bytes of proposals that a follower sends to the leader in one message. */
const FORWARD_BYTES_MAX = 1024 * 1024;
/** Source: etcd `server/etcdserver/api/v3rpc/grpc.go`, maxNoLeaderCnt. */
const LEADERLESS_MAX = 3;
/** A removed member goes on so long, for the others to hear of it. */
const REMOVED_DELAY_MS = 1000;

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
  readonly auth: AuthStore;
  /** Those who wait for an entry to be applied here. */
  readonly appliedWaiters = new AppliedWaiters();
  readonly watchHub: WatchHub;
  readonly alarms: AlarmStore;
  readonly quota: BackendQuota;
  readonly metrics: ServerMetrics;
  readonly ids: RequestIdGenerator;
  /** Changes of who belongs to the cluster. */
  readonly membership: MembershipRequests;
  readonly leaderTransfer: LeaderTransfer;
  /** Called when there has been no leader for three election timeouts, and after each further one. */
  onLeaderLost: (() => void) | null = null;
  /** What this member does for its cluster beside raft. */
  readonly duties: Duties;

  readonly #parts: Bootstrapped;
  readonly #logger: Logger;
  readonly #applier: Applier;
  readonly #machine: StateMachine;
  readonly #loop: RaftLoop;
  readonly #outbox: Outbox;
  readonly #proposals: ProposalQueue;
  readonly #reads: ReadQueue;
  readonly #confChanges: ConfChanges;
  readonly #snapshots: Snapshots;
  readonly #snapshotSender: SnapshotSender;
  readonly #snapshotReceiver: SnapshotReceiver;
  readonly #leadership: Leadership;
  readonly #publisher: Publisher;
  readonly #timeouts: TimeoutReasons;
  readonly #timeoutMs: number;
  readonly #timers: Timer[] = [];
  #backend: Backend;

  #term = 0;
  #leader = 0n;
  #isLearner = false;
  /** Looks for a leader, an election timeout apart, that found none. */
  #leaderless = 0;
  /** This member leads and has applied an entry of its term: its state is at least as new as any earlier leader's. */
  #leadsInTerm = false;
  /** It is also the only voter: its committed index is the cluster's. */
  #solo = false;
  #paused = false;
  #raisingNoSpace: Promise<Outcome> | null = null;
  #removed = false;
  #stopping: Promise<void> | undefined;
  #stopped = false;

  /** Builds the state from what the disk holds. Start it when its events have a receiver. */
  static async create(options: ServerOptions, parts: Bootstrapped): Promise<EtcdServer> {
    const lessor = new Lessor({
      clock: options.clock,
      logger: options.logger,
      backend: parts.backend,
      minTtl: minimumLeaseTtl(options.electionTicks, options.tickMs),
      expiredRetryIntervalMs: requestTimeoutMs(options),
      persistCheckpoints: () => options.leaseCheckpointPersist,
      onExpired: () => server.#leadership.revokeExpired(),
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
    const { clock, logger, network, tickMs, electionTicks } = options;
    const { node, memberId, backend } = parts;
    const electionMs = electionTicks * tickMs;
    this.options = options;
    this.lessor = lessor;
    this.store = store;
    this.memberId = memberId;
    this.metrics = parts.metrics;
    this.#parts = parts;
    this.#logger = logger;
    this.#backend = backend;
    this.#timeoutMs = requestTimeoutMs(options);
    this.ids = new RequestIdGenerator(memberId, clock.wallMs());
    this.#proposals = new ProposalQueue(this.ids);
    this.#reads = new ReadQueue(this.ids);
    this.cluster = new Cluster({
      id: parts.clusterId,
      localId: memberId,
      backend,
      logger,
      serverVersion: ETCD_VERSION,
    });
    this.watchHub = new WatchHub({ store, clock, logger });
    this.alarms = new AlarmStore(backend);
    this.quota = new BackendQuota(backend, options.quotaBackendBytes);
    if (options.quotaBackendBytes > QUOTA_SUGGESTED_MAX_BYTES) {
      logger.warn("quota exceeds the maximum value", {
        "quota-size-bytes": options.quotaBackendBytes,
        "quota-maximum-size-bytes": QUOTA_SUGGESTED_MAX_BYTES,
      });
    }
    this.auth = openAuth(options, backend);
    this.#timeouts = new TimeoutReasons({ cluster: this.cluster, network, electionMs });
    this.#snapshots = new Snapshots({
      ...parts,
      options,
      cluster: this.cluster,
      backend: () => this.#backend,
      logger,
    });
    this.#applier = new Applier({
      auth: this.auth,
      metrics: this.metrics,
      store,
      lessor,
      alarms: this.alarms,
      quota: this.quota,
      cluster: this.cluster,
      logger,
      onVersionLowered: () => {
        logger.info("Cluster version downgrade detected, forcing snapshot");
        this.#snapshots.force();
      },
      onLogMarked: (version, index) => this.duties.logVersion.mark(version, index),
    });
    this.#confChanges = new ConfChanges({
      node,
      cluster: this.cluster,
      network,
      logger,
      clock,
      maxLearners: options.maxLearners,
      onRemoved: () => this.#endRemoved(),
    });
    this.#machine = new StateMachine({
      applier: this.#applier,
      confChanges: this.#confChanges,
      proposals: this.#proposals,
      backend,
      idPrefix: this.ids.prefix,
      applied: { index: parts.appliedIndex, term: parts.appliedTerm },
      consistentIndex: parts.consistentIndex,
      confState: parts.confState,
      metrics: this.metrics,
      logger,
      clock,
      warningApplyDurationMs: options.warningApplyDurationMs,
      warningRequestDurationMs: options.warningUnaryRequestDurationMs,
      onTermStarted: (term) => this.#startLeading(term),
      isNoSpace: () => this.alarms.noSpace,
      onNoSpace: () => this.raiseNoSpace(),
      onConfState: () => this.#stateChanged(),
    });
    this.#snapshotSender = new SnapshotSender({
      backend: () => this.#backend,
      network,
      clock,
      logger,
      localId: memberId,
      onFailed: (to) => this.#loop.reportSnapshot(to, false),
    });
    this.#snapshotReceiver = new SnapshotReceiver({
      snapshotter: parts.snapshotter,
      bytesMax: this.quota.limitBytes,
      logger,
      onReceived: (message) => this.#loop.receive(message),
    });
    this.#outbox = new Outbox({
      network,
      isRemoved: (id) => this.cluster.isRemoved(id),
      sendSnapshot: (message) => this.#snapshotSender.send(message),
      metrics: this.metrics,
      logger,
      clock,
      heartbeatMs: tickMs,
    });
    this.#loop = new RaftLoop({ node, storage: parts.storage, wal: parts.wal, clock, hooks: this.#hooks() });
    this.#leadership = new Leadership({
      options,
      lessor,
      store,
      metrics: this.metrics,
      isLeader: () => this.isLeader,
      lastTickMs: () => this.#loop.lastTickMs,
      confirm: (done) => this.read({ serve: done }),
      propose: (op, request, payload, done) => this.#proposeAsServer(op, request, payload, done),
      compact: (revision) => {
        const { request, payload } = compactionOf(revision);
        return this.compact(request, payload);
      },
    });
    this.membership = new MembershipRequests({
      ...options,
      memberId,
      cluster: this.cluster,
      node,
      ids: this.ids,
      metrics: this.metrics,
      appliedIndex: () => this.appliedIndex,
      propose: (change, done) => {
        if (this.#stopped) done(errors.stopped);
        else this.#confChanges.propose(change, done);
        this.#loop.schedule();
      },
      requestTimeoutMs: this.#timeoutMs,
      electionMs,
    });
    this.leaderTransfer = new LeaderTransfer({
      cluster: this.cluster,
      network,
      clock,
      logger,
      leader: () => this.#leader,
      transfer: (target) => {
        node.transferLeader(target);
        this.#loop.schedule();
      },
      tickMs,
      timeoutMs: this.#timeoutMs,
    });
    this.duties = new Duties(this, {
      restarted: parts.restarted,
      logEntries: entriesOf(parts.storage),
      initialMembers: parts.members,
      snapshotIndex: () => this.#snapshots.index,
      lastTickMs: () => this.#loop.lastTickMs,
      isStopped: () => this.#stopped,
    });
    this.#publisher = new Publisher({
      memberId,
      clusterId: parts.clusterId,
      name: options.name,
      clientUrls: options.advertiseClientUrls,
      propose: (request, payload) => this.duties.legacyRequests.setAttributes(request, payload),
      clock,
      logger,
    });
  }

  /** Before the start, if it was asked for: rejects when this member's data is not that of the others. */
  async checkData(): Promise<void> {
    if (!this.#parts.restarted || this.options.checks?.initialCorruptCheck !== true) return;
    await this.duties.corruption.checkInitially().catch((error: unknown) => {
      this.#logger.error("checkInitialHashKV failed", { error: (error as Error).message });
      throw error;
    });
  }

  start(): void {
    const { clock, tickMs, electionTicks, network } = this.options;
    const { members, remotes, clusterId } = this.#parts;
    const local = members.find(({ id }) => id === this.memberId);
    network.start(this.#receiver(), { id: this.memberId, clusterId, urls: local?.peerUrls ?? [] });
    for (const { id, peerUrls } of remotes) if (id !== this.memberId) network.addRemote({ id, urls: peerUrls });
    for (const { id, peerUrls } of members) if (id !== this.memberId) network.addPeer({ id, urls: peerUrls });
    this.#timers.push(clock.every(SWEEP_MS, () => this.#sweep()));
    this.#timers.push(clock.every(electionTicks * tickMs, () => this.#lookForLeader()));
    this.#timers.push(clock.every(PURGE_INTERVAL_MS, () => this.#snapshots.purge()));
    this.#timers.push(
      startElectionTicks({
        server: this.options,
        memberId: this.memberId,
        memberCount: members.length,
        activePeers: () => members.filter(({ id }) => network.activeSince(id) !== undefined).length,
        advance: (ticks) => this.#loop.advanceTicks(ticks),
      }),
    );
    this.#loop.start(tickMs);
    this.#campaignIfAlone();
    this.duties.start();
    this.#publisher.start();
  }

  /** Resolves when the member serves: it knows a leader and has published itself. */
  get ready(): Promise<void> {
    return this.#publisher.published;
  }

  /** The one in use: a received snapshot brings another. */
  get backend(): Backend {
    return this.#backend;
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
    return this.#isLearner;
  }

  get appliedIndex(): number {
    return this.#machine.index;
  }

  /** Of the last entry that was applied. */
  get appliedTerm(): number {
    return this.#machine.term;
  }

  get committedIndex(): number {
    return this.#parts.node.committed;
  }

  get pendingProposals(): number {
    return this.#proposals.pendingCount;
  }

  /** Version of etcd that can read the stored state, like "3.7.0". */
  get storageVersion(): string | undefined {
    const { detected } = this.duties.storageVersion;
    return detected === undefined ? undefined : formatVersion(detected);
  }

  /** Puts a request into the log; it is answered when it has been applied, or refused. */
  propose(proposal: Proposal): void {
    if (this.#stopped) proposal.finish(errors.stopped);
    else if (this.#proposals.sizeOf(proposal) > this.options.maxRequestBytes) proposal.finish(errors.requestTooLarge);
    else if (this.#proposals.full || this.committedIndex - this.appliedIndex > APPLY_GAP_MAX) {
      this.metrics.proposalsFailed++;
      proposal.finish(errors.tooManyRequests);
    } else {
      proposal.sinceMs = this.options.clock.nowMs();
      this.#proposals.add(proposal);
      this.#loop.schedule();
    }
  }

  /** The same for requests that the server or a slow path makes. */
  request(op: Op, request: object, payload: Uint8Array, user: AuthInfo = NOBODY): Promise<Outcome> {
    return new Promise((resolve) => {
      const proposal = new InternalProposal(op, request, payload, resolve);
      proposal.user = user;
      this.propose(proposal);
    });
  }

  #proposeAsServer(op: Op, request: object, payload: Uint8Array, done: (outcome: Outcome) => void): void {
    const proposal = new InternalProposal(op, request, payload, done);
    if (this.auth.enabled) proposal.user = this.auth.root;
    this.propose(proposal);
  }

  /** True when a linearizable read may be served at once: this member alone decides what is committed, and has applied it. */
  get canReadNow(): boolean {
    return this.#solo && this.#leadsInTerm && !this.#stopped && this.#machine.index === this.committedIndex;
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
  async compact(
    request: { revision: number; physical: boolean },
    payload: Uint8Array,
    user?: AuthInfo,
  ): Promise<Outcome> {
    const outcome = await this.request(Op.COMPACTION, request, payload, user);
    if (request.physical && !(outcome instanceof EtcdError)) {
      await this.#applier.compactionDone;
      await this.#backend.commit();
    }
    return outcome;
  }

  /** Raises NOSPACE for this member: writes are refused until an operator made room and lifted it. */
  raiseNoSpace(): Promise<Outcome> {
    this.#raisingNoSpace ??= this.#raiseNoSpace().finally(() => {
      this.#raisingNoSpace = null;
    });
    return this.#raisingNoSpace;
  }

  #raiseNoSpace(): Promise<Outcome> {
    const { limitBytes } = this.quota;
    this.#logger.warn("message exceeded backend quota; raising alarm", { "quota-size-bytes": limitBytes });
    const request = AlarmRequest.create({
      action: AlarmAction.ACTIVATE,
      memberId: this.memberId,
      alarm: AlarmType.NOSPACE,
    });
    return this.request(Op.ALARM, request, AlarmRequest.encode(request));
  }

  /** Hands a leadership over, then closes everything. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    if (!this.#removed) await this.leaderTransfer.handOver();
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#leadership.stop();
    this.duties.stop();
    this.#publisher.stop();
    this.#snapshots.stop();
    this.#snapshotSender.stop();
    this.watchHub.close();
    this.#proposals.clear(errors.stopped);
    this.#confChanges.expire(Number.POSITIVE_INFINITY, () => errors.stopped);
    this.#reads.expire(Number.POSITIVE_INFINITY, errors.stopped);
    this.lessor.stop();
    this.auth.close();
    await this.#loop.stop();
    await this.options.network.stop();
    this.#parts.wal.close();
    await this.store.close();
    await this.#backend.close();
    this.#parts.unlock();
  }

  #hooks(): RaftLoopHooks {
    return {
      apply: (entries) => this.#apply(entries),
      propose: () => this.#handIn(),
      askReads: () => this.#askReads(),
      readState: (context, index) => {
        if (!this.#reads.confirmed(context, index)) this.metrics.slowReadIndexes++;
        this.#reads.applied(this.appliedIndex);
      },
      stateChanged: () => this.#stateChanged(),
      saveSnapshot: (snapshot) => this.#snapshots.saveReceived(snapshot),
      installSnapshot: (snapshot, done) => {
        this.#install(snapshot).then(done, (error: unknown) => {
          this.options.onFailure(error);
          done();
        });
      },
      send: (messages) => this.#outbox.send(messages),
      blocked: () => this.#isBlocked(),
      fail: (error) => this.options.onFailure(error),
      observeSync: (ms) => this.metrics.walSync.observe(ms / 1000),
    };
  }

  #receiver(): NetworkReceiver {
    return {
      receive: (message) => this.#receive(message),
      beginSnapshot: (message) => this.#beginSnapshot(message),
      isRemoved: (id) => this.cluster.isRemoved(id),
      reportUnreachable: (id) => this.#loop.reportUnreachable(id),
      reportSnapshot: (id, received) => {
        this.#snapshotSender.finished(id, received);
        this.#loop.reportSnapshot(id, received);
      },
      removed: () => this.#endRemoved(),
    };
  }

  #receive(message: Message): void {
    if (this.#isForUs(message)) this.#loop.receive(message);
  }

  #isForUs({ from, to }: Message): boolean {
    if (isLocalMsgTarget(from)) return false;
    const local = formatId(this.memberId);
    if (this.cluster.isRemoved(from)) {
      this.#logger.warn("rejected Raft message from removed member", {
        "local-member-id": local,
        "removed-member-id": formatId(from),
      });
      return false;
    }
    if (to === this.memberId) return true;
    this.#logger.warn("rejected Raft message to mismatch member", {
      "local-member-id": local,
      "mismatch-member-id": formatId(to),
    });
    return false;
  }

  #beginSnapshot(message: Message): DatabaseSink {
    if (this.#stopped) throw new Error("the member is stopping");
    if (!this.#isForUs(message)) throw new Error("the snapshot is not from a member of this cluster to this one");
    return this.#snapshotReceiver.begin(message);
  }

  /** While the disk under the backend lags, the loop waits: what was applied must not pile up in memory. */
  #isBlocked(): boolean {
    if (this.#paused) return true;
    if (!this.#backend.overloaded) return false;
    this.#paused = true;
    void this.#backend.drained().then(
      () => {
        this.#paused = false;
        this.#loop.run();
      },
      (error: unknown) => this.options.onFailure(error),
    );
    return true;
  }

  #askReads(): void {
    if (this.#leader === 0n) return;
    const context = this.#reads.startRound(this.options.clock.nowMs(), READ_RETRY_MS);
    if (context !== undefined) this.#parts.node.readIndex(context);
  }

  #handIn(): void {
    const { node } = this.#parts;
    if (!this.#loop.takesProposals) return;
    this.#confChanges.handIn();
    if (this.#proposals.waitingCount === 0) return;
    const datas = this.#proposals.encodeWaiting();
    if (node.isLeader) {
      if (node.proposeBatch(datas) === undefined) this.#proposals.proposed(node.raft.log.lastIndex(), node.term);
    } else if (this.#forward(datas)) this.#proposals.forwarded();
  }

  /** Sends proposals to the leader. False when it is not known; the state does not change in between, so it is all or none. */
  #forward(datas: readonly Uint8Array[]): boolean {
    const { node } = this.#parts;
    let start = 0;
    let bytes = 0;
    for (let i = 0; i < datas.length; i++) {
      bytes += datas[i]!.length;
      if (bytes < FORWARD_BYTES_MAX && i < datas.length - 1) continue;
      if (node.proposeBatch(datas.slice(start, i + 1)) !== undefined) return false;
      start = i + 1;
      bytes = 0;
    }
    return true;
  }

  #stateChanged(): void {
    const { leader, term } = this.#parts.node;
    const { confState } = this.#machine;
    const led = this.isLeader;
    if (leader !== this.#leader || term !== this.#term) this.#leadsInTerm = false;
    const isNewLeader = leader !== 0n && leader !== this.#leader;
    this.#leader = leader;
    this.#term = term;
    this.#solo = confState.voters.length === 1 && confState.voters[0] === this.memberId;
    this.#isLearner = this.cluster.member(this.memberId)?.isLearner ?? false;
    if (led && !this.isLeader) this.#leadership.end();
    if (!isNewLeader) return;
    this.metrics.leaderChanges++;
    this.#timeouts.leaderElected(this.options.clock.nowMs());
    this.#outbox.reset();
    this.#confChanges.leaderChanged();
    this.metrics.readIndexesFailed += this.#reads.leaderChanged(errors.leaderChanged);
  }

  #apply(entries: readonly Entry[]): void {
    this.#machine.apply(entries);
    this.#reads.applied(this.appliedIndex);
    this.appliedWaiters.applied(this.appliedIndex);
    this.#snapshots.applied(this.#machine, this.#machine.confState, this.#solo, this.#snapshotSender.isActive);
  }

  async #install(snapshot: Snapshot): Promise<void> {
    const { clock, disk, network } = this.options;
    const { index = 0, term = 0 } = snapshot.metadata ?? {};
    const fields = { "current-applied-index": this.appliedIndex, "incoming-leader-snapshot-index": index };
    this.#logger.info("applying snapshot", { ...fields, "incoming-leader-snapshot-term": term });
    this.metrics.applyingSnapshot = 1;
    const next = await importReceived({
      snapshotter: this.#parts.snapshotter,
      snapshot,
      dbPath: this.#parts.dbPath,
      openBackend: this.#parts.openBackend,
      disk,
      clock,
      logger: this.#logger,
    });
    const old = this.#backend;
    await switchBackend(next, snapshot, { ...this, machine: this.#machine, network });
    this.#backend = next;
    await old.close();
    next.moveTo(this.#parts.dbPath);
    this.#snapshots.installed(index);
    this.#proposals.overtaken(index, (sinceMs) => this.#expiryError(sinceMs));
    this.metrics.applyingSnapshot = 0;
    this.#stateChanged();
    this.#reads.applied(this.appliedIndex);
    this.appliedWaiters.applied(this.appliedIndex);
    this.#logger.info("applied snapshot", { ...fields, "incoming-leader-snapshot-term": term });
  }

  /** The first entry of a leader's term is empty: once it is applied, so is everything of earlier terms. */
  #startLeading(term: number): void {
    if (!this.isLeader || term !== this.#term) return;
    this.#leadsInTerm = true;
    this.#leadership.begin();
    this.duties.leads();
  }

  /** Ending streams makes clients connect anew, so it waits longer than refusing requests does. */
  #lookForLeader(): void {
    this.#leaderless = this.#leader === 0n ? this.#leaderless + 1 : 0;
    if (this.#leaderless >= LEADERLESS_MAX) this.onLeaderLost?.();
  }

  /** A cluster of one need not wait for an election timeout to know that it hears of no leader. */
  #campaignIfAlone(): void {
    const { voters } = this.#machine.confState;
    if (voters.length !== 1 || voters[0] !== this.memberId) return;
    this.#parts.node.campaign();
    this.#loop.run();
  }

  /** The cluster goes on without this member, for good. */
  #endRemoved(): void {
    if (this.#removed || this.#stopped) return;
    this.#removed = true;
    this.#timers.push(
      this.options.clock.after(REMOVED_DELAY_MS, () => {
        this.#logger.warn("server error", { error: "the member has been permanently removed from the cluster" });
        this.#logger.warn("data-dir used by this member must be removed");
        this.options.onRemoved?.();
      }),
    );
  }

  #sweep(): void {
    const before = this.options.clock.nowMs() - this.#timeoutMs;
    const errorOf = (sinceMs: number): EtcdError => this.#expiryError(sinceMs);
    this.#proposals.expire(before, errorOf);
    this.#confChanges.expire(before, errorOf);
    this.metrics.slowReadIndexes += this.#reads.expire(before, errors.timeout);
    this.appliedWaiters.expire(before);
  }

  #expiryError(sinceMs: number): EtcdError {
    this.metrics.proposalsFailed++;
    return this.#timeouts.errorFor(sinceMs, this.#leader);
  }
}

/** What is in the log behind the last snapshot. */
function entriesOf(storage: MemoryStorage): Entry[] {
  const first = storage.firstIndex();
  const last = storage.lastIndex();
  return last < first ? [] : storage.entries(first, last + 1, Number.POSITIVE_INFINITY);
}
