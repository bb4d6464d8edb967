import type { AuthStore } from "../../auth/store.ts";
import type { Timer } from "../../base/clock.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { Cluster } from "../../membership/cluster.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import type { ConfChange, Entry, Message, Snapshot } from "../../proto/raftpb.ts";
import type { Status } from "../../raft/status.ts";
import type { AlarmStore } from "../apply/alarms.ts";
import type { Applier } from "../apply/apply.ts";
import { type ConfChangeOutcome, ConfChanges } from "../apply/conf-changes.ts";
import type { BackendQuota } from "../apply/quota.ts";
import { StateMachine } from "../apply/state-machine.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import { READ_SLICE, requestTimeoutMs, type ServerOptions } from "../contract/options.ts";
import type { QueuedProposal } from "../log/proposal.ts";
import { ProposalQueue } from "../log/proposal-queue.ts";
import { type Read, ReadQueue } from "../log/read-queue.ts";
import type { RequestIdGenerator } from "../log/request-id.ts";
import { checkDatabase } from "../snapshot/database-import.ts";
import { importReceived, switchBackend } from "../snapshot/installer.ts";
import { SnapshotReceiver } from "../snapshot/receiver.ts";
import { SnapshotSender } from "../snapshot/sender.ts";
import { Snapshots } from "../snapshot/snapshots.ts";
import type { Bootstrapped } from "../start/bootstrap.ts";
import { LostLogError } from "../start/lost-log.ts";
import { AppliedWaiters } from "./applied-waiters.ts";
import { startElectionTicks } from "./election-ticks.ts";
import { BEYOND_LOG } from "./message-check.ts";
import { Outbox } from "./outbox.ts";
import { PeerReceiver } from "./peer-receiver.ts";
import { RaftLoop, type RaftLoopHooks } from "./raft-loop.ts";
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

/** The state that the log is applied to. All of it goes on with another backend when a snapshot brings one. */
export interface ReplicatedState {
  readonly applier: Applier;
  readonly store: MvccStore;
  readonly lessor: Lessor;
  readonly auth: AuthStore;
  readonly alarms: AlarmStore;
  readonly quota: BackendQuota;
  readonly cluster: Cluster;
}

export interface ReplicationEvents {
  /** This member leads, and has applied everything of earlier leaders. */
  onLeading(): void;
  /** It does not any more. */
  onDeposed(): void;
  /** There has been no leader for three election timeouts; called after each further one too. */
  onLeaderLost(): void;
  /** The cluster goes on without this member. */
  onRemoved(): void;
  /** A request did not fit any more: raises the alarm, and resolves when that is known. */
  onNoSpace(): Promise<unknown>;
}

/**
 * The way of requests through the log: proposals and reads in, and out again when the members agree. Owns raft's loop and
 * what feeds it, the applied position, snapshots, and the network; knows who leads.
 */
export class Replication {
  /** Those who wait for an entry to be applied here. */
  readonly appliedWaiters = new AppliedWaiters();
  readonly #options: ServerOptions;
  readonly #parts: Bootstrapped;
  readonly #state: ReplicatedState;
  readonly #events: ReplicationEvents;
  readonly #machine: StateMachine;
  readonly #loop: RaftLoop;
  readonly #outbox: Outbox;
  readonly #proposals: ProposalQueue;
  readonly #reads: ReadQueue;
  readonly #confChanges: ConfChanges;
  readonly #snapshots: Snapshots;
  readonly #snapshotSender: SnapshotSender;
  readonly #receiver: PeerReceiver;
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
  /** The last entry in the log when that began. */
  #soloFrom = 0;
  /** The backend lags. */
  #paused = false;
  /** A full batch of proposals was handed in in this turn. */
  #handedIn = false;
  #stopped = false;

  constructor(
    options: ServerOptions,
    parts: Bootstrapped,
    ids: RequestIdGenerator,
    state: ReplicatedState,
    events: ReplicationEvents,
  ) {
    const { clock, logger, network, tickMs, electionTicks, maxLearners } = options;
    const { node, storage, wal, metrics, memberId, backend } = parts;
    const { cluster, applier, alarms, quota } = state;
    const getBackend = (): Backend => this.#backend;
    this.#options = options;
    this.#parts = parts;
    this.#state = state;
    this.#events = events;
    this.#backend = backend;
    this.#timeoutMs = requestTimeoutMs(options);
    this.#proposals = new ProposalQueue(ids);
    this.#reads = new ReadQueue(ids, (callback) => options.clock.defer(callback));
    this.#timeouts = new TimeoutReasons({ cluster, network, electionMs: electionTicks * tickMs });
    this.#snapshots = new Snapshots({ ...parts, options, cluster, backend: getBackend, logger });
    this.#confChanges = new ConfChanges({
      node,
      cluster,
      network,
      logger,
      clock,
      maxLearners,
      onRemoved: () => events.onRemoved(),
    });
    this.#machine = new StateMachine({
      applier,
      confChanges: this.#confChanges,
      proposals: this.#proposals,
      backend,
      idPrefix: ids.prefix,
      applied: { index: parts.appliedIndex, term: parts.appliedTerm },
      consistentIndex: parts.consistentIndex,
      confState: parts.confState,
      metrics,
      logger,
      clock,
      readSlice: options.readSlice ?? READ_SLICE,
      warningApplyDurationMs: options.warningApplyDurationMs,
      warningRequestDurationMs: options.warningUnaryRequestDurationMs,
      onTermStarted: (term) => this.#startLeading(term),
      isNoSpace: () => alarms.noSpace,
      onNoSpace: () => events.onNoSpace(),
      onConfState: () => this.#stateChanged(),
      isBlocked: () => this.#isBlocked(),
      onProgress: () => this.#tellApplied(),
      onFailure: options.onFailure,
    });
    this.#isLearner = cluster.member(memberId)?.isLearner ?? false;
    this.#loop = new RaftLoop({ node, storage, wal, clock, hooks: this.#hooks() });
    this.#snapshotSender = new SnapshotSender({
      backend: getBackend,
      network,
      clock,
      logger,
      localId: memberId,
      onFailed: (to) => this.#loop.reportSnapshot(to, false),
    });
    this.#outbox = new Outbox({
      network,
      isRemoved: (id) => cluster.isRemoved(id),
      sendSnapshot: (message) => this.#snapshotSender.send(message),
      metrics,
      logger,
      clock,
      heartbeatMs: tickMs,
    });
    this.#receiver = new PeerReceiver({
      cluster,
      loop: this.#loop,
      snapshots: new SnapshotReceiver({
        snapshotter: parts.snapshotter,
        bytesMax: quota.snapshotBytesMax,
        check: (path) => checkDatabase({ disk: options.disk, clock, path }),
        logger,
        onReceived: (message) => this.#loop.receive(message),
      }),
      sender: this.#snapshotSender,
      clock,
      logger,
      onRemoved: () => events.onRemoved(),
    });
  }

  start(): void {
    const { clock, tickMs, electionTicks, network } = this.#options;
    const { members, remotes, clusterId, memberId } = this.#parts;
    const local = members.find(({ id }) => id === memberId);
    network.start(this.#receiver, { id: memberId, clusterId, urls: local?.peerUrls ?? [] });
    for (const { id, peerUrls } of remotes) if (id !== memberId) network.addRemote({ id, urls: peerUrls });
    for (const { id, peerUrls } of members) if (id !== memberId) network.addPeer({ id, urls: peerUrls });
    // A member that is started again and again would never get to its first interval.
    this.#snapshots.purge();
    this.#timers.push(
      clock.every(SWEEP_MS, () => this.#sweep()),
      clock.every(electionTicks * tickMs, () => this.#lookForLeader()),
      clock.every(PURGE_INTERVAL_MS, () => this.#snapshots.purge()),
      startElectionTicks({
        server: this.#options,
        memberId,
        memberCount: members.length,
        activePeers: () => members.filter(({ id }) => network.activeSince(id) !== undefined).length,
        advance: (ticks) => this.#loop.advanceTicks(ticks),
      }),
    );
    this.#loop.start(tickMs);
    this.#campaignIfAlone();
  }

  /** Refuses all that waits, and ends when the disk is at rest. Log and network are closed then, the backend is not. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#snapshots.stop();
    this.#snapshotSender.stop();
    this.#proposals.clear(errors.stopped);
    this.#confChanges.expire(Number.POSITIVE_INFINITY, () => errors.stopped);
    this.#reads.expire(Number.POSITIVE_INFINITY, errors.stopped);
    this.#machine.stop();
    await this.#loop.stop();
    await this.#options.network.stop();
    this.#parts.wal.close();
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
    return this.#leader === this.#parts.memberId;
  }

  /** This member leads and has applied everything that was committed before. */
  get leadsInTerm(): boolean {
    return this.#leadsInTerm && this.isLeader;
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

  raftStatus(): Status {
    return this.#parts.node.status();
  }

  /** Of the last snapshot on the disk. */
  get snapshotIndex(): number {
    return this.#snapshots.index;
  }

  /**
   * False for two election timeouts after this process has stood still: so long may check-quorum take to notice that
   * another member leads. What a leader answers from its own state needs to be confirmed then.
   */
  get isSteady(): boolean {
    const { electionTicks, tickMs } = this.#options;
    return this.#loop.hasTickedFor(2 * electionTicks * tickMs);
  }

  get pendingProposals(): number {
    return this.#proposals.pendingCount;
  }

  /** Puts a request into the log; it is answered when it has been applied, or refused. */
  propose(proposal: QueuedProposal): void {
    if (this.#stopped) proposal.refuse(errors.stopped);
    else if (this.#proposals.sizeOf(proposal) > this.#options.maxRequestBytes) proposal.refuse(errors.requestTooLarge);
    else if (this.#proposals.full || this.committedIndex - this.#machine.index > APPLY_GAP_MAX) {
      this.#parts.metrics.proposalsFailed++;
      proposal.refuse(errors.tooManyRequests);
    } else {
      proposal.sinceMs = this.#options.clock.nowMs();
      this.#proposals.add(proposal);
      this.#loop.schedule();
    }
  }

  /** Proposes a change of the membership. */
  proposeConfChange(change: ConfChange, done: (outcome: ConfChangeOutcome) => void): void {
    if (this.#stopped) done(errors.stopped);
    else this.#confChanges.propose(change, done);
    this.#loop.schedule();
  }

  /**
   * True when a linearizable read may be served at once: this member alone decides what is committed, and has applied it. What it
   * has not applied yet nobody knows of either, unless it is from a time when there were other voters.
   */
  get canReadNow(): boolean {
    const { index } = this.#machine;
    return (
      this.#solo && this.#leadsInTerm && !this.#stopped && (index >= this.#soloFrom || index === this.committedIndex)
    );
  }

  /** Serves the read as soon as the state is at least as new as now. */
  read(read: Read): void {
    if (this.#stopped) read.serve(errors.stopped);
    else if (this.canReadNow) read.serve(null);
    else if (this.#reads.full) read.serve(errors.tooManyRequests);
    else {
      this.#reads.add(read, this.#options.clock.nowMs());
      this.#loop.schedule();
    }
  }

  /** Makes raft hand the leadership over. */
  transferLeader(target: bigint): void {
    this.#parts.node.transferLeader(target);
    this.#loop.schedule();
  }

  /** Saves a snapshot after the next entries that are applied. */
  forceSnapshot(): void {
    this.#snapshots.force();
  }

  #hooks(): RaftLoopHooks {
    const { onFailure } = this.#options;
    const { metrics } = this.#parts;
    return {
      apply: (entries, done) => this.#apply(entries, done),
      propose: () => this.#handIn(),
      askReads: () => this.#askReads(),
      readState: (context, index) => {
        if (!this.#reads.confirmed(context, index)) metrics.slowReadIndexes++;
        this.#reads.applied(this.#machine.index);
      },
      stateChanged: () => this.#stateChanged(),
      saveSnapshot: (snapshot) => this.#snapshots.saveReceived(snapshot),
      installSnapshot: (snapshot, done) => {
        this.#install(snapshot).then(done, (error: unknown) => {
          onFailure(error);
          done();
        });
      },
      send: (messages) => this.#outbox.send(messages),
      refused: (message, problem) => {
        this.#receiver.refused(message, problem);
        if (problem === BEYOND_LOG && this.#isMember(message.from)) onFailure(this.#lostLog(message));
      },
      blocked: () => this.#isBlocked(),
      fail: onFailure,
      observeSync: (ms) => metrics.walSync.observe(ms / 1000),
      observeWrite: (ms, bytes) => {
        metrics.walWrite.observe(ms / 1000);
        metrics.walWrittenBytes += bytes;
      },
    };
  }

  /** Who joins knows the members from those whom it asked, until the log names them. */
  #isMember(id: bigint): boolean {
    const { members, remotes } = this.#parts;
    return this.#state.cluster.member(id) !== undefined || [...members, ...remotes].some((member) => member.id === id);
  }

  #lostLog({ from, commit }: Message): LostLogError {
    return new LostLogError({ ...this.#parts, leader: from, commit, lastIndex: this.#parts.node.raft.log.lastIndex() });
  }

  /** While the disk under the backend lags, the loop waits: what was applied must not pile up in memory. */
  #isBlocked(): boolean {
    if (this.#paused) return true;
    if (!this.#backend.overloaded) return false;
    this.#paused = true;
    void this.#backend.drained().then(
      () => {
        this.#paused = false;
        this.#machine.resume();
        this.#loop.run();
      },
      (error: unknown) => this.#options.onFailure(error),
    );
    return true;
  }

  #askReads(): void {
    if (this.#leader === 0n) return;
    const context = this.#reads.startRound(this.#options.clock.nowMs(), READ_RETRY_MS);
    if (context !== undefined) this.#parts.node.readIndex(context);
  }

  #handIn(): void {
    const { node } = this.#parts;
    if (!this.#loop.takesProposals) return;
    this.#confChanges.handIn();
    this.#proposals.refuseOutdated(node.isLeader ? node.term : 0, errors.leaderChanged);
    if (this.#proposals.waitingCount === 0 || this.#handedIn) return;
    const datas = this.#proposals.encodeWaiting();
    if (node.isLeader) {
      if (node.proposeBatch(datas) !== undefined) return;
      this.#proposals.proposed(node.raft.log.lastIndex(), node.term);
    } else {
      if (!this.#forward(datas)) return;
      this.#proposals.forwarded();
    }
    if (this.#proposals.waitingCount > 0) this.#goOnLater();
  }

  /** One batch a turn: the next waits until everybody else has had theirs. */
  #goOnLater(): void {
    this.#handedIn = true;
    this.#options.clock.defer(() => {
      this.#handedIn = false;
      this.#loop.run();
    });
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
    const { node, memberId, metrics } = this.#parts;
    const { leader, term } = node;
    const { voters } = this.#machine.confState;
    const led = this.isLeader;
    if (leader !== this.#leader || term !== this.#term) this.#leadsInTerm = false;
    const isNewLeader = leader !== 0n && leader !== this.#leader;
    this.#leader = leader;
    this.#term = term;
    const solo = voters.length === 1 && voters[0] === memberId;
    if (solo && !this.#solo) this.#soloFrom = node.raft.log.lastIndex();
    this.#solo = solo;
    this.#isLearner = this.#state.cluster.member(memberId)?.isLearner ?? false;
    if (led && !this.isLeader) this.#events.onDeposed();
    if (!isNewLeader) return;
    metrics.leaderChanges++;
    this.#timeouts.leaderElected(this.#options.clock.nowMs());
    this.#outbox.reset();
    this.#confChanges.leaderChanged();
    metrics.readIndexesFailed += this.#reads.leaderChanged(errors.leaderChanged);
  }

  #apply(entries: readonly Entry[], done: () => void): boolean {
    const isOver = this.#machine.apply(entries, () => {
      this.#noteApplied(entries);
      done();
    });
    if (isOver) this.#noteApplied(entries);
    return isOver;
  }

  #tellApplied(): void {
    const { index } = this.#machine;
    this.#reads.applied(index);
    this.appliedWaiters.applied(index);
  }

  #noteApplied(entries: readonly Entry[]): void {
    const machine = this.#machine;
    this.#tellApplied();
    this.#snapshots.applied(machine, entries, machine.confState, this.#solo, this.#snapshotSender.isActive);
  }

  /** Replaces the state by that of a received snapshot. The old backend serves reads until the new one is complete. */
  async #install(snapshot: Snapshot): Promise<void> {
    const { clock, disk, network, logger } = this.#options;
    const { snapshotter, dbPath, openBackend, metrics } = this.#parts;
    const { index = 0, term = 0 } = snapshot.metadata ?? {};
    const fields = {
      "current-applied-index": this.#machine.index,
      "incoming-leader-snapshot-index": index,
      "incoming-leader-snapshot-term": term,
    };
    logger.info("applying snapshot", fields);
    metrics.applyingSnapshot = 1;
    const next = await importReceived({ snapshotter, snapshot, dbPath, openBackend, disk, clock, logger });
    const old = this.#backend;
    await switchBackend(next, snapshot, { ...this.#state, machine: this.#machine, network });
    this.#backend = next;
    await old.close();
    next.moveTo(dbPath);
    this.#snapshots.installed(index);
    this.#proposals.overtaken(index, (sinceMs) => this.#expiryError(sinceMs));
    metrics.applyingSnapshot = 0;
    this.#stateChanged();
    this.#reads.applied(index);
    this.appliedWaiters.applied(index);
    logger.info("applied snapshot", fields);
  }

  /** The first entry of a leader's term is empty: once it is applied, so is everything of earlier terms. */
  #startLeading(term: number): void {
    if (!this.isLeader || term !== this.#term) return;
    this.#leadsInTerm = true;
    this.#events.onLeading();
  }

  /** Ending streams makes clients connect anew, so it waits longer than refusing requests does. */
  #lookForLeader(): void {
    this.#leaderless = this.#leader === 0n ? this.#leaderless + 1 : 0;
    if (this.#leaderless >= LEADERLESS_MAX) this.#events.onLeaderLost();
  }

  /** A cluster of one need not wait for an election timeout to know that it hears of no leader. */
  #campaignIfAlone(): void {
    const { voters } = this.#machine.confState;
    if (voters.length !== 1 || voters[0] !== this.#parts.memberId) return;
    this.#parts.node.campaign();
    this.#loop.run();
  }

  #sweep(): void {
    const before = this.#options.clock.nowMs() - this.#timeoutMs;
    const errorOf = (sinceMs: number): EtcdError => this.#expiryError(sinceMs);
    this.#proposals.expire(before, errorOf);
    this.#confChanges.expire(before, errorOf);
    this.#parts.metrics.slowReadIndexes += this.#reads.expire(before, errors.timeout);
    this.appliedWaiters.expire(before);
  }

  #expiryError(sinceMs: number): EtcdError {
    this.#parts.metrics.proposalsFailed++;
    return this.#timeouts.errorFor(sinceMs, this.#leader);
  }
}
