import { inBackground } from "../../base/background.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { formatId, type Member } from "../../membership/member.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import { AlarmRequest_AlarmAction as AlarmAction, AlarmRequest, AlarmType } from "../../proto/etcdserverpb.ts";
import { DowngradeInfoSetRequest } from "../../proto/membershippb.ts";
import type { Entry } from "../../proto/raftpb.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import { CHECK_DEFAULTS, requestTimeoutMs, type ServerOptions } from "../contract/options.ts";
import { Op } from "../log/op.ts";
import type { Empty } from "../log/operations.ts";
import type { Propose } from "../log/proposal.ts";
import { readIndex } from "../log/read-queue.ts";
import type { Replication } from "../replication/replication.ts";
import { CorruptionChecker } from "./corruption.ts";
import { CorruptionMonitor } from "./corruption-monitor.ts";
import { Downgrades } from "./downgrade.ts";
import { LeaseForwarding } from "./lease-forwarding.ts";
import { LegacyRequests } from "./legacy-requests.ts";
import { LogVersion } from "./log-version.ts";
import { StorageVersion } from "./storage-version.ts";
import { VersionMonitor } from "./version-monitor.ts";

export interface DutiesOptions {
  readonly options: ServerOptions;
  readonly serverVersion: string;
  readonly memberId: bigint;
  readonly cluster: Cluster;
  readonly store: MvccStore;
  readonly lessor: Lessor;
  readonly replication: Replication;
  /** Proposes a request of the member itself. */
  readonly request: Propose;
  readonly restarted: boolean;
  /** Entries found in the log at a restart. */
  readonly logEntries: readonly Entry[];
  /** The members, until they are known from the log. */
  readonly initialMembers: readonly Member[];
  readonly isStopped: () => boolean;
}

/** Source: etcd `server/etcdserver/v3_server.go`, applyTimeout. */
const APPLY_TIMEOUT_MS = 1000;

/**
 * A member's duties for its cluster besides raft: versions, downgrades, corruption checks, and leases, on leader and
 * followers. Each has its own class; this one creates, starts and stops them.
 */
export class Duties {
  readonly storageVersion: StorageVersion;
  readonly logVersion: LogVersion;
  readonly downgrades: Downgrades;
  readonly corruption: CorruptionChecker;
  readonly leases: LeaseForwarding;
  readonly legacyRequests: LegacyRequests;
  readonly #o: DutiesOptions;
  readonly #versions: VersionMonitor;
  readonly #corruptionMonitor: CorruptionMonitor;

  constructor(duties: DutiesOptions) {
    const { options, cluster, store, lessor, serverVersion, memberId, replication, request, isStopped } = duties;
    const { clock, logger, peerClient } = options;
    const checks = options.checks ?? CHECK_DEFAULTS;
    const timeoutMs = requestTimeoutMs(options);
    const setDowngrade = (downgrade: DowngradeInfoSetRequest): Promise<Empty | EtcdError> =>
      request(Op.DOWNGRADE_INFO_SET, downgrade, DowngradeInfoSetRequest.encode(downgrade));
    const upToDate = (): Promise<EtcdError | null> => readIndex(replication);
    this.#o = duties;
    this.logVersion = new LogVersion(duties.logEntries);
    this.storageVersion = new StorageVersion({
      backend: () => replication.backend,
      logger,
      term: () => replication.appliedTerm,
      logVersion: () => this.logVersion.since(replication.snapshotIndex),
    });
    if (duties.restarted) this.storageVersion.check(serverVersion);
    this.legacyRequests = new LegacyRequests({
      cluster,
      initialMembers: duties.initialMembers,
      peerClient,
      serverVersion,
      clock,
      logger,
      request,
      leader: () => replication.leader,
      isStopped,
    });
    this.#versions = new VersionMonitor({
      clock,
      logger,
      cluster,
      peerClient,
      storageVersion: this.storageVersion,
      serverVersion,
      // A new leader may not know yet that its predecessor has set the version, and would set a lower one.
      isLeader: () => replication.leadsInTerm,
      setDowngrade,
      setClusterVersion: (request, payload, isWanted) =>
        this.legacyRequests.setClusterVersion(request, payload, isWanted),
      downgradeCheckMs: checks.downgradeCheckMs,
    });
    this.downgrades = new Downgrades({ logger, cluster, readIndex: upToDate, setDowngrade });
    this.corruption = new CorruptionChecker({
      logger,
      cluster,
      store,
      peerClient,
      readIndex: upToDate,
      raiseAlarm: (memberId) => this.#raiseCorrupt(memberId),
      requestTimeoutMs: timeoutMs,
    });
    this.#corruptionMonitor = new CorruptionMonitor({
      checker: this.corruption,
      clock,
      logger,
      localId: formatId(memberId),
      isLeader: () => replication.isLeader,
      checkMs: checks.corruptCheckMs,
      compactHashCheckMs: checks.compactHashCheckMs,
    });
    this.leases = new LeaseForwarding({
      clock,
      lessor,
      cluster,
      peerClient,
      server: replication,
      isStopped,
      isSteady: () => replication.isSteady,
      whenApplied: (done) => this.whenApplied(done),
      timeoutMs,
      fastKeepAlive: options.fastLeaseKeepAlive ?? true,
    });
  }

  start(): void {
    this.#versions.start();
    this.#corruptionMonitor.start();
  }

  stop(): void {
    this.#versions.stop();
    this.#corruptionMonitor.stop();
  }

  /** This member is leader and has applied all entries of earlier leaders. */
  leads(): void {
    this.#versions.look();
  }

  /** Calls back when all currently committed entries are applied, or with an error after a second. */
  whenApplied(done: (error: EtcdError | null) => void): void {
    const { replication, options } = this.#o;
    const { committedIndex, appliedIndex, appliedWaiters } = replication;
    if (committedIndex <= appliedIndex) {
      done(null);
      return;
    }
    let answered = false;
    const finish = (error: EtcdError | null): void => {
      if (answered) return;
      answered = true;
      timer.cancel();
      done(error);
    };
    const timer = options.clock.after(APPLY_TIMEOUT_MS, () => finish(errors.timeoutWaitApplied));
    appliedWaiters.add(committedIndex, options.clock.nowMs(), (applied) =>
      finish(applied ? null : errors.timeoutWaitApplied),
    );
  }

  #raiseCorrupt(memberId: bigint): void {
    if (this.#o.isStopped()) return;
    const request = AlarmRequest.create({ action: AlarmAction.ACTIVATE, memberId, alarm: AlarmType.CORRUPT });
    const raised = this.#o.request(Op.ALARM, request, AlarmRequest.encode(request));
    inBackground(raised, "raise the alarm CORRUPT", this.#o.options.logger);
  }
}
