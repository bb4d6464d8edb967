import type { AuthStore } from "../../auth/store.ts";
import type { Timer } from "../../base/clock.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { Cluster } from "../../membership/cluster.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import type { ConfChange, Entry, Snapshot } from "../../proto/raftpb.ts";
import type { Status } from "../../raft/status.ts";
import type { AlarmStore } from "../apply/alarms.ts";
import type { Applier } from "../apply/apply.ts";
import { type ConfChangeOutcome, ConfChanges } from "../apply/conf-changes.ts";
import type { BackendQuota } from "../apply/quota.ts";
import { StateMachine } from "../apply/state-machine.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import { APPLY_SLICE, READ_SLICE, requestTimeoutMs, type ServerOptions } from "../contract/options.ts";
import { type Op, opNames } from "../log/op.ts";
import type { QueuedProposal } from "../log/proposal.ts";
import { ProposalQueue } from "../log/proposal-queue.ts";
import { type Read, ReadQueue } from "../log/read-queue.ts";
import type { RequestIdGenerator } from "../log/request-id.ts";
import { openReceived, switchBackend } from "../snapshot/installer.ts";
import { Snapshots } from "../snapshot/snapshots.ts";
import type { Bootstrapped } from "../start/bootstrap.ts";
import { AppliedWaiters } from "./applied-waiters.ts";
import { Backpressure } from "./backpressure.ts";
import { startElectionTicks } from "./election-ticks.ts";
import { Peers } from "./peers.ts";
import { ProposalFeed } from "./proposal-feed.ts";
import { RaftLoop, type RaftLoopHooks } from "./raft-loop.ts";
import { Role } from "./role.ts";
import { TimeoutReasons } from "./timeout-reasons.ts";

/** Maximum committed but unapplied entries before requests are refused. Source: etcd `v3_server.go`. */
const APPLY_GAP_MAX = 5000;
const SWEEP_MS = 500;
const READ_RETRY_MS = 500;
const PURGE_INTERVAL_MS = 30_000;

/** The state that the log is applied to. All of it switches to another backend when a snapshot brings one. */
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
  /** This member is leader and has applied all entries of earlier leaders. */
  onLeading(): void;
  /** It is no longer leader. */
  onDeposed(): void;
  /** There has been no leader for three election timeouts; called after each further one too. */
  onLeaderLost(): void;
  /** This member was removed from the cluster. */
  onRemoved(): void;
  /** A request no longer fits: raises the alarm, and resolves when that is known. */
  onNoSpace(): Promise<unknown>;
}

/**
 * The path of requests through the log: proposals and reads go in, and come out when the members agree. Owns raft's
 * loop and its inputs, the applied index and snapshots; knows the leader.
 */
export class Replication {
  /** Callers waiting for an entry to be applied here. */
  readonly appliedWaiters = new AppliedWaiters();
  readonly #options: ServerOptions;
  readonly #parts: Bootstrapped;
  readonly #state: ReplicatedState;
  readonly #events: ReplicationEvents;
  readonly #machine: StateMachine;
  readonly #role: Role;
  readonly #loop: RaftLoop;
  readonly #peers: Peers;
  readonly #backpressure: Backpressure;
  readonly #proposals: ProposalQueue;
  readonly #feed: ProposalFeed;
  readonly #reads: ReadQueue;
  readonly #confChanges: ConfChanges;
  readonly #snapshots: Snapshots;
  readonly #timeouts: TimeoutReasons;
  readonly #timeoutMs: number;
  readonly #timers: Timer[] = [];
  #backend: Backend;
  #stopped = false;

  constructor(
    options: ServerOptions,
    parts: Bootstrapped,
    ids: RequestIdGenerator,
    state: ReplicatedState,
    events: ReplicationEvents,
  ) {
    const { clock, disk, trace, network, tickMs, electionTicks } = options;
    const { node, storage, wal, memberId, backend } = parts;
    const { cluster } = state;
    this.#options = options;
    this.#parts = parts;
    this.#state = state;
    this.#events = events;
    this.#backend = backend;
    this.#timeoutMs = requestTimeoutMs(options);
    this.#proposals = new ProposalQueue(ids);
    this.#reads = new ReadQueue(ids, (callback) => clock.defer(callback));
    this.#timeouts = new TimeoutReasons({ cluster, network, electionMs: electionTicks * tickMs });
    this.#snapshots = this.#openSnapshots();
    this.#confChanges = this.#openConfChanges();
    this.#backpressure = this.#openBackpressure();
    this.#machine = this.#openStateMachine(ids.prefix);
    this.#role = new Role(node, memberId, this.#isLearnerNow());
    this.#loop = new RaftLoop({ node, storage, wal, disk, clock, hooks: this.#hooks(), trace });
    this.#feed = new ProposalFeed({ node, clock, proposals: this.#proposals, onTurn: () => this.#loop.run() });
    this.#peers = this.#openPeers();
  }

  #openSnapshots(): Snapshots {
    const { memberId, snapshotter, storage, wal, walDir, snapDir, snapshotIndex } = this.#parts;
    return new Snapshots({
      options: this.#options,
      memberId,
      snapshotter,
      storage,
      wal,
      walDir,
      snapDir,
      snapshotIndex,
      cluster: this.#state.cluster,
      backend: () => this.#backend,
      logger: this.#options.logger,
    });
  }

  #openConfChanges(): ConfChanges {
    const { network, logger, clock, maxLearners } = this.#options;
    return new ConfChanges({
      node: this.#parts.node,
      cluster: this.#state.cluster,
      network,
      logger,
      clock,
      maxLearners,
      onRemoved: () => this.#events.onRemoved(),
    });
  }

  #openBackpressure(): Backpressure {
    return new Backpressure({
      backend: () => this.#backend,
      onEnd: () => {
        this.#machine.resume();
        this.#loop.run();
      },
      onFailure: this.#options.onFailure,
    });
  }

  #openStateMachine(idPrefix: number): StateMachine {
    const { logger, clock, trace, readSlice, applySlice = APPLY_SLICE } = this.#options;
    const { warningApplyDurationMs, warningUnaryRequestDurationMs } = this.#options;
    const { appliedIndex: index, appliedTerm: term, consistentIndex, confState, metrics } = this.#parts;
    return new StateMachine({
      applier: this.#state.applier,
      confChanges: this.#confChanges,
      proposals: this.#proposals,
      backend: this.#backend,
      idPrefix,
      applied: { index, term },
      consistentIndex,
      confState,
      metrics,
      trace,
      logger,
      clock,
      readSlice: readSlice ?? READ_SLICE,
      longTurnMs: applySlice.turnMs ?? 0,
      warningApplyDurationMs,
      warningRequestDurationMs: warningUnaryRequestDurationMs,
      onTermStarted: (started) => this.#startLeading(started),
      isNoSpace: () => this.#state.alarms.noSpace,
      onNoSpace: () => this.#events.onNoSpace(),
      onConfState: () => this.#stateChanged(),
      isBlocked: () => this.#backpressure.isBlocked(),
      onProgress: () => this.#tellApplied(),
      onFailure: this.#options.onFailure,
    });
  }

  #openPeers(): Peers {
    return new Peers({
      server: this.#options,
      parts: this.#parts,
      cluster: this.#state.cluster,
      quota: this.#state.quota,
      loop: this.#loop,
      backend: () => this.#backend,
      onRemoved: () => this.#events.onRemoved(),
    });
  }

  start(): void {
    const { clock, tickMs, electionTicks } = this.#options;
    const { members, memberId } = this.#parts;
    this.#peers.start();
    // A member that restarts repeatedly would never reach its first interval.
    this.#snapshots.purge();
    this.#timers.push(
      clock.every(SWEEP_MS, () => this.#sweep()),
      clock.every(electionTicks * tickMs, () => this.#lookForLeader()),
      clock.every(PURGE_INTERVAL_MS, () => this.#snapshots.purge()),
      startElectionTicks({
        server: this.#options,
        memberId,
        memberCount: members.length,
        activePeers: () => this.#peers.activeCount,
        advance: (ticks) => this.#loop.advanceTicks(ticks),
      }),
    );
    this.#loop.start(tickMs);
    this.#campaignIfAlone();
  }

  /**
   * Fails everything that waits, and ends when the disk is idle. The log and the network are then closed, the backend
   * is not.
   */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#snapshots.stop();
    this.#peers.stopSnapshots();
    this.#proposals.clear(errors.stopped);
    this.#confChanges.expire(Number.POSITIVE_INFINITY, () => errors.stopped);
    this.#reads.expire(Number.POSITIVE_INFINITY, errors.stopped);
    this.#machine.stop();
    await this.#loop.stop();
    await this.#peers.stop();
    this.#parts.wal.close();
  }

  /** The current backend: a received snapshot brings another. */
  get backend(): Backend {
    return this.#backend;
  }

  get term(): number {
    return this.#role.term;
  }

  /** 0n for none. */
  get leader(): bigint {
    return this.#role.leader;
  }

  get isLeader(): boolean {
    return this.#role.isLeader;
  }

  /** This member is leader and has applied everything committed before its term. */
  get leadsInTerm(): boolean {
    return this.#role.leadsInTerm;
  }

  get isLearner(): boolean {
    return this.#role.isLearner;
  }

  get appliedIndex(): number {
    return this.#machine.index;
  }

  /** Term of the last applied entry. */
  get appliedTerm(): number {
    return this.#machine.term;
  }

  get committedIndex(): number {
    return this.#parts.node.committed;
  }

  raftStatus(): Status {
    return this.#parts.node.status();
  }

  /** Index of the last snapshot on disk. */
  get snapshotIndex(): number {
    return this.#snapshots.index;
  }

  /**
   * False for two election timeouts after a pause of this process: check-quorum may take that long to notice that
   * another member is leader. A leader's answers from its own state need confirmation then.
   */
  get isSteady(): boolean {
    const { electionTicks, tickMs } = this.#options;
    return this.#loop.hasTickedFor(2 * electionTicks * tickMs);
  }

  get pendingProposals(): number {
    return this.#proposals.pendingCount;
  }

  /** Proposes a request; it is answered when it is applied or refused. */
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

  /** Proposes a membership change. */
  proposeConfChange(change: ConfChange, done: (outcome: ConfChangeOutcome) => void): void {
    if (this.#stopped) done(errors.stopped);
    else this.#confChanges.propose(change, done);
    this.#loop.schedule();
  }

  /** A linearizable read may be served at once. */
  get canReadNow(): boolean {
    return !this.#stopped && this.#role.canReadNow(this.#machine.index);
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

  /** Starts a leadership transfer in raft. */
  transferLeader(target: bigint): void {
    this.#parts.node.transferLeader(target);
    this.#loop.schedule();
  }

  /** Saves a snapshot after the next applied entries. */
  forceSnapshot(): void {
    this.#snapshots.force();
  }

  #hooks(): RaftLoopHooks {
    const { onFailure } = this.#options;
    const { metrics } = this.#parts;
    return {
      apply: (entries, done) => this.#apply(entries, done),
      propose: () => {
        if (!this.#loop.takesProposals) return;
        this.#confChanges.handIn();
        this.#feed.propose();
      },
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
      send: (messages) => this.#peers.send(messages),
      refused: (message, problem) => this.#peers.refused(message, problem),
      blocked: () => this.#backpressure.isBlocked(),
      fail: onFailure,
      observeSync: (ms) => metrics.walSync.observe(ms / 1000),
      observeWrite: (ms, bytes) => {
        metrics.walWrite.observe(ms / 1000);
        metrics.walWrittenBytes += bytes;
      },
    };
  }

  #askReads(): void {
    if (this.leader === 0n) return;
    const context = this.#reads.startRound(this.#options.clock.nowMs(), READ_RETRY_MS);
    if (context !== undefined) this.#parts.node.readIndex(context);
  }

  #stateChanged(): void {
    const { metrics } = this.#parts;
    const { isDeposed, hasNewLeader } = this.#role.update(this.#machine.confState.voters, this.#isLearnerNow());
    if (isDeposed) this.#events.onDeposed();
    if (!hasNewLeader) return;
    metrics.leaderChanges++;
    this.#timeouts.leaderElected(this.#options.clock.nowMs());
    this.#peers.leaderChanged();
    this.#confChanges.leaderChanged();
    metrics.readIndexesFailed += this.#reads.leaderChanged(errors.leaderChanged);
  }

  #isLearnerNow(): boolean {
    return this.#state.cluster.member(this.#parts.memberId)?.isLearner ?? false;
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
    this.#snapshots.applied(machine, entries, machine.confState, this.#role.isSolo, this.#peers.isSendingSnapshot);
  }

  /** Replaces the state by that of a received snapshot. The old backend serves reads until the new one is complete. */
  async #install(snapshot: Snapshot): Promise<void> {
    const { network, logger } = this.#options;
    const { snapshotter, dbPath, openBackend, metrics } = this.#parts;
    const { index = 0, term = 0 } = snapshot.metadata ?? {};
    const fields = {
      "current-applied-index": this.#machine.index,
      "incoming-leader-snapshot-index": index,
      "incoming-leader-snapshot-term": term,
    };
    logger.info("applying snapshot", fields);
    metrics.applyingSnapshot = 1;
    const next = await openReceived(snapshotter, snapshot, openBackend);
    const old = this.#backend;
    const { lessor, store, alarms, quota, cluster, auth } = this.#state;
    const users = { lessor, store, machine: this.#machine, alarms, quota, cluster, auth, network };
    await switchBackend(next, snapshot, users);
    this.#backend = next;
    await old.close();
    next.moveTo(dbPath);
    this.#snapshots.installed(index);
    this.#proposals.overtaken(index, this.#proposalError);
    metrics.applyingSnapshot = 0;
    this.#stateChanged();
    this.#reads.applied(index);
    this.appliedWaiters.applied(index);
    logger.info("applied snapshot", fields);
  }

  /** The first entry of a leader's term is empty: once it is applied, so is everything of earlier terms. */
  #startLeading(term: number): void {
    if (this.#role.termStarted(term)) this.#events.onLeading();
  }

  /** Ending streams makes clients reconnect, so this waits longer than refusing requests does. */
  #lookForLeader(): void {
    if (this.#role.missesLeader()) this.#events.onLeaderLost();
  }

  /** A single-member cluster need not wait an election timeout to find that there is no leader. */
  #campaignIfAlone(): void {
    const { voters } = this.#machine.confState;
    if (voters.length !== 1 || voters[0] !== this.#parts.memberId) return;
    this.#parts.node.campaign();
    this.#loop.run();
  }

  #sweep(): void {
    const before = this.#options.clock.nowMs() - this.#timeoutMs;
    this.#proposals.expire(before, this.#proposalError);
    this.#confChanges.expire(before, (sinceMs) => this.#expiryError(sinceMs));
    this.#parts.metrics.slowReadIndexes += this.#reads.expire(before, errors.timeout);
    this.appliedWaiters.expire(before);
  }

  readonly #proposalError = (sinceMs: number, op: Op): EtcdError => {
    this.#parts.metrics.observeRequest(opNames[op], false, (this.#options.clock.nowMs() - sinceMs) / 1000);
    return this.#expiryError(sinceMs);
  };

  #expiryError(sinceMs: number): EtcdError {
    this.#parts.metrics.proposalsFailed++;
    return this.#timeouts.errorFor(sinceMs, this.leader);
  }
}
