import { type AuthInfo, NOBODY } from "../auth/auth-info.ts";
import type { AuthStore } from "../auth/store.ts";
import type { Timer } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { formatVersion } from "../base/semver.ts";
import { Subscribers } from "../base/subscribers.ts";
import type { Turns } from "../base/turns.ts";
import { ETCD_VERSION } from "../base/versions.ts";
import { Lessor, minimumLeaseTtl } from "../lease/lessor.ts";
import { Cluster } from "../membership/cluster.ts";
import type { Backend } from "../mvcc/backend/backend.ts";
import { dropUnfinished } from "../mvcc/backend/long-write.ts";
import { MvccStore } from "../mvcc/store/store.ts";
import { WatchHub } from "../mvcc/watch/hub.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmRequest,
  AlarmType,
  type CompactionRequest,
} from "../proto/etcdserverpb.ts";
import type { Entry } from "../proto/raftpb.ts";
import type { MemoryStorage } from "../raft/memory-storage.ts";
import { AlarmStore } from "./apply/alarms.ts";
import { Applier } from "./apply/apply.ts";
import { BackendQuota, QUOTA_SUGGESTED_MAX_BYTES } from "./apply/quota.ts";
import { EtcdError } from "./contract/errors.ts";
import type { ServerMetrics } from "./contract/metrics.ts";
import { APPLY_SLICE, requestTimeoutMs, type ServerOptions } from "./contract/options.ts";
import { Duties } from "./duties/duties.ts";
import { LeaderTransfer } from "./duties/leader-transfer.ts";
import { compactionOf, Leadership } from "./duties/leadership.ts";
import { MembershipRequests } from "./duties/membership-requests.ts";
import { Publisher } from "./duties/publisher.ts";
import { Op } from "./log/op.ts";
import type { RequestOf } from "./log/operations.ts";
import type { Outcome } from "./log/outcome.ts";
import { InternalProposal } from "./log/proposal.ts";
import { RequestIdGenerator } from "./log/request-id.ts";
import { Replication } from "./replication/replication.ts";
import type { Bootstrapped } from "./start/bootstrap.ts";
import { openAuth } from "./start/open-auth.ts";
import { openTurns } from "./start/open-turns.ts";

/** A removed member keeps running this long, so that the others learn of it. */
const REMOVED_DELAY_MS = 1000;

/**
 * One member of a cluster: the replicated state, and everything that serves it. Requests arrive as proposals, pass the
 * log, and are applied in its order. It owns the store, the leases and the alarms; `Replication` is the way to them.
 */
export class EtcdServer {
  readonly options: ServerOptions;
  /** The version reported to clients and peers. */
  readonly serverVersion: string;
  readonly memberId: bigint;
  readonly cluster: Cluster;
  readonly store: MvccStore;
  readonly lessor: Lessor;
  readonly auth: AuthStore;
  readonly watchHub: WatchHub;
  readonly alarms: AlarmStore;
  readonly quota: BackendQuota;
  readonly metrics: ServerMetrics;
  readonly ids: RequestIdGenerator;
  /** Long work for clients, in slices. */
  readonly turns: Turns;
  /** The path of requests through the log, and this member's knowledge of it: the leader, the applied index. */
  readonly replication: Replication;
  /** Membership changes. */
  readonly membership: MembershipRequests;
  readonly leaderTransfer: LeaderTransfer;
  /** This member's duties for its cluster besides raft. */
  readonly duties: Duties;

  readonly #parts: Bootstrapped;
  readonly #logger: Logger;
  readonly #applier: Applier;
  readonly #leaderLost = new Subscribers();
  readonly #leadership: Leadership;
  readonly #publisher: Publisher;
  #raisingNoSpace: Promise<Outcome<typeof Op.ALARM>> | null = null;
  #removed: Timer | undefined;
  #stopping: Promise<void> | undefined;
  #stopped = false;

  /** Builds the state from the disk. Start it once its events have a receiver. */
  static async create(options: ServerOptions, parts: Bootstrapped): Promise<EtcdServer> {
    const lessor = new Lessor({
      clock: options.clock,
      logger: options.logger,
      backend: parts.backend,
      minTtl: minimumLeaseTtl(options.electionTicks, options.tickMs),
      expiredRetryIntervalMs: requestTimeoutMs(options),
      persistCheckpoints: () => options.leaseCheckpointPersist,
      ...(options.leaseCheckpointIntervalMs !== undefined && {
        checkpointIntervalMs: options.leaseCheckpointIntervalMs,
      }),
      onExpired: () => server.#leadership.revokeExpired(),
    });
    // Before the first view of the backend, which must not show them.
    await dropUnfinished(parts.backend, options.clock, options.logger);
    await lessor.recover(parts.backend);
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
    const { clock, logger, tickMs, electionTicks } = options;
    const { memberId, backend, metrics, node } = parts;
    this.options = options;
    this.serverVersion = options.serverVersion ?? ETCD_VERSION;
    this.lessor = lessor;
    this.store = store;
    this.memberId = memberId;
    this.metrics = metrics;
    this.#parts = parts;
    this.#logger = logger;
    this.ids = new RequestIdGenerator(memberId, clock.wallMs());
    this.turns = openTurns(options);
    this.cluster = this.#openCluster();
    this.watchHub = new WatchHub({
      store,
      clock,
      logger,
      ...(options.watchPage === undefined ? {} : { page: options.watchPage }),
    });
    this.alarms = new AlarmStore(backend);
    this.quota = openQuota(options, backend);
    this.auth = openAuth(options, backend);
    this.#applier = this.#openApplier();
    this.replication = this.#openReplication();
    this.#leadership = this.#openLeadership();
    this.membership = new MembershipRequests({
      network: options.network,
      peerClient: options.peerClient,
      logger,
      clock,
      strictReconfigCheck: options.strictReconfigCheck,
      tickMs,
      memberId,
      cluster: this.cluster,
      node,
      ids: this.ids,
      metrics,
      appliedIndex: () => this.replication.appliedIndex,
      propose: (change, done) => this.replication.proposeConfChange(change, done),
      requestTimeoutMs: requestTimeoutMs(options),
      electionMs: electionTicks * tickMs,
    });
    this.leaderTransfer = this.#openLeaderTransfer();
    this.duties = this.#openDuties();
    this.#publisher = this.#openPublisher();
  }

  #openCluster(): Cluster {
    const { clusterId: id, memberId: localId, backend } = this.#parts;
    return new Cluster({ id, localId, backend, logger: this.#logger, serverVersion: this.serverVersion });
  }

  #openApplier(): Applier {
    return new Applier({
      auth: this.auth,
      metrics: this.metrics,
      store: this.store,
      lessor: this.lessor,
      alarms: this.alarms,
      quota: this.quota,
      cluster: this.cluster,
      logger: this.#logger,
      onVersionLowered: () => {
        this.#logger.info("Cluster version downgrade detected, forcing snapshot");
        this.replication.forceSnapshot();
      },
      onLogMarked: (version, index) => this.duties.logVersion.mark(version, index),
      slice: this.options.applySlice ?? APPLY_SLICE,
    });
  }

  #openReplication(): Replication {
    const { store, lessor, auth, alarms, quota, cluster } = this;
    const state = { applier: this.#applier, store, lessor, auth, alarms, quota, cluster };
    return new Replication(this.options, this.#parts, this.ids, state, {
      onLeading: () => {
        this.#leadership.begin();
        this.duties.leads();
      },
      onDeposed: () => this.#leadership.end(),
      onLeaderLost: () => this.#leaderLost.tell(),
      onRemoved: () => this.#endRemoved(),
      onNoSpace: () => this.raiseNoSpace(),
    });
  }

  #openLeadership(): Leadership {
    return new Leadership({
      options: this.options,
      lessor: this.lessor,
      store: this.store,
      metrics: this.metrics,
      isLeader: () => this.replication.isLeader,
      isSteady: () => this.replication.isSteady,
      confirm: (done) => this.replication.read({ serve: done }),
      propose: (op, request, payload, done) => this.#proposeAsLeader(op, request, payload, done),
      compact: (revision) => {
        const { request, payload } = compactionOf(revision);
        return this.compact(request, payload);
      },
    });
  }

  #openLeaderTransfer(): LeaderTransfer {
    const { network, clock, tickMs, electionTicks } = this.options;
    return new LeaderTransfer({
      cluster: this.cluster,
      network,
      clock,
      logger: this.#logger,
      leader: () => this.replication.leader,
      transfer: (target) => this.replication.transferLeader(target),
      tickMs,
      electionMs: electionTicks * tickMs,
      timeoutMs: requestTimeoutMs(this.options),
    });
  }

  #openDuties(): Duties {
    const { restarted, storage, members } = this.#parts;
    return new Duties({
      options: this.options,
      serverVersion: this.serverVersion,
      memberId: this.memberId,
      cluster: this.cluster,
      store: this.store,
      lessor: this.lessor,
      replication: this.replication,
      request: (op, request, payload) => this.request(op, request, payload),
      restarted,
      logEntries: entriesOf(storage),
      initialMembers: members,
      isStopped: () => this.#stopped,
    });
  }

  #openPublisher(): Publisher {
    const { name, advertiseClientUrls, clock } = this.options;
    return new Publisher({
      memberId: this.memberId,
      clusterId: this.#parts.clusterId,
      name,
      clientUrls: advertiseClientUrls,
      propose: (request, payload) => this.duties.legacyRequests.setAttributes(request, payload),
      clock,
      logger: this.#logger,
    });
  }

  /** Before the start, if configured: rejects when this member's data differs from the others'. */
  async checkData(): Promise<void> {
    if (!this.#parts.restarted || this.options.checks?.initialCorruptCheck !== true) return;
    await this.duties.corruption.checkInitially().catch((error: unknown) => {
      this.#logger.error("checkInitialHashKV failed", { error: messageOf(error) });
      throw error;
    });
  }

  /**
   * Called when there has been no leader for three election timeouts, and after each further one. Returns a function
   * that unsubscribes.
   */
  onLeaderLost(listener: () => void): () => void {
    return this.#leaderLost.add(listener);
  }

  start(): void {
    this.replication.start();
    this.duties.start();
    this.#publisher.start();
  }

  /** Resolves when the member serves: it knows a leader and has published its attributes. */
  get ready(): Promise<void> {
    return this.#publisher.published;
  }

  /** The etcd version that can read the stored state, like "3.7.0". */
  get storageVersion(): string | undefined {
    const { detected } = this.duties.storageVersion;
    return detected === undefined ? undefined : formatVersion(detected);
  }

  /** Proposes a request of the server, or of a path that need not be fast; resolves when it is applied or refused. */
  request<O extends Op>(
    op: O,
    request: RequestOf<O>,
    payload: Uint8Array,
    user: AuthInfo = NOBODY,
  ): Promise<Outcome<O>> {
    return new Promise((resolve) => {
      const proposal = new InternalProposal(op, request, payload, resolve);
      proposal.user = user;
      this.replication.propose(proposal);
    });
  }

  /**
   * For requests that only the leader may make. Bound to this term: a member replaced as leader without knowing it has
   * outdated lease expiries, and its proposals must not reach its successor.
   */
  #proposeAsLeader<O extends Op>(
    op: O,
    request: RequestOf<O>,
    payload: Uint8Array,
    done: (outcome: Outcome<O>) => void,
  ): void {
    const proposal = new InternalProposal(op, request, payload, done);
    if (this.auth.enabled) proposal.user = this.auth.root;
    proposal.leaderTerm = this.replication.term;
    this.replication.propose(proposal);
  }

  /** Compacts through the log; with `physical` it resolves when the old revisions are gone from the backend's pages. */
  async compact(
    request: CompactionRequest,
    payload: Uint8Array,
    user?: AuthInfo,
  ): Promise<Outcome<typeof Op.COMPACTION>> {
    const outcome = await this.request(Op.COMPACTION, request, payload, user);
    if (request.physical && !(outcome instanceof EtcdError)) {
      await this.#applier.compactionDone;
      await this.replication.backend.commit();
    }
    return outcome;
  }

  /** Raises NOSPACE for this member: writes are refused until an operator has made room and disarmed it. */
  raiseNoSpace(): Promise<Outcome<typeof Op.ALARM>> {
    this.#raisingNoSpace ??= this.#raiseNoSpace().finally(() => {
      this.#raisingNoSpace = null;
    });
    return this.#raisingNoSpace;
  }

  #raiseNoSpace(): Promise<Outcome<typeof Op.ALARM>> {
    const { limitBytes } = this.quota;
    this.#logger.warn("message exceeded backend quota; raising alarm", { "quota-size-bytes": limitBytes });
    const request = AlarmRequest.create({
      action: AlarmAction.ACTIVATE,
      memberId: this.memberId,
      alarm: AlarmType.NOSPACE,
    });
    return this.request(Op.ALARM, request, AlarmRequest.encode(request));
  }

  /** Transfers leadership, then closes everything. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    this.#removed?.cancel();
    if (this.#removed === undefined) await this.leaderTransfer.handOver();
    this.#stopped = true;
    this.#leadership.stop();
    this.duties.stop();
    this.#publisher.stop();
    this.watchHub.close();
    this.lessor.stop();
    this.auth.close();
    await this.replication.stop();
    await this.store.close();
    await this.replication.backend.close();
    this.#parts.unlock();
  }

  /** The cluster has removed this member permanently. */
  #endRemoved(): void {
    if (this.#stopped) return;
    this.#removed ??= this.options.clock.after(REMOVED_DELAY_MS, () => this.#leave());
  }

  #leave(): void {
    this.#logger.warn("server error", { error: "the member has been permanently removed from the cluster" });
    this.#logger.warn("data-dir used by this member must be removed", { "data-dir": this.options.dataDir });
    this.options.onRemoved?.();
  }
}

function openQuota({ quotaBackendBytes, logger }: ServerOptions, backend: Backend): BackendQuota {
  if (quotaBackendBytes > QUOTA_SUGGESTED_MAX_BYTES) {
    logger.warn("quota exceeds the maximum value", {
      "quota-size-bytes": quotaBackendBytes,
      "quota-maximum-size-bytes": QUOTA_SUGGESTED_MAX_BYTES,
    });
  }
  return new BackendQuota(backend, quotaBackendBytes);
}

/** The log entries after the last snapshot. */
function entriesOf(storage: MemoryStorage): Entry[] {
  const first = storage.firstIndex();
  const last = storage.lastIndex();
  return last < first ? [] : storage.entries(first, last + 1, Number.POSITIVE_INFINITY);
}
