import { inBackground } from "../../base/background.ts";
import { formatId, type Member } from "../../membership/member.ts";
import { AlarmRequest_AlarmAction as AlarmAction, AlarmRequest, AlarmType } from "../../proto/etcdserverpb.ts";
import type { Entry } from "../../proto/raftpb.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import { CHECK_DEFAULTS, requestTimeoutMs } from "../contract/options.ts";
import { Op, type Outcome } from "../log/op.ts";
import type { EtcdServer } from "../server.ts";
import { CorruptionChecker } from "./corruption.ts";
import { CorruptionMonitor } from "./corruption-monitor.ts";
import { Downgrades } from "./downgrade.ts";
import { LeaseForwarding } from "./lease-forwarding.ts";
import { LegacyRequests } from "./legacy-requests.ts";
import { LogVersion } from "./log-version.ts";
import { StorageVersion } from "./storage-version.ts";
import { VersionMonitor } from "./version-monitor.ts";

/** What only the server itself can tell. */
export interface DutiesState {
  readonly restarted: boolean;
  /** What a restart found in the log. */
  readonly logEntries: readonly Entry[];
  /** Who the members are while the log has not said so. */
  readonly initialMembers: readonly Member[];
  readonly snapshotIndex: () => number;
  /** False after this process has stood still. */
  readonly isSteady: () => boolean;
  readonly isStopped: () => boolean;
}

/** Source: etcd `server/etcdserver/v3_server.go`, applyTimeout. */
const APPLY_TIMEOUT_MS = 1000;

/**
 * What a member does for its cluster beside raft: it keeps versions in step, runs downgrades, looks for corruption and
 * serves leases, whoever leads. Each has a class of its own; this one makes them from a server and starts and stops them.
 */
export class Duties {
  readonly storageVersion: StorageVersion;
  readonly logVersion: LogVersion;
  readonly downgrades: Downgrades;
  readonly corruption: CorruptionChecker;
  readonly leases: LeaseForwarding;
  readonly legacyRequests: LegacyRequests;
  readonly #server: EtcdServer;
  readonly #state: DutiesState;
  readonly #versions: VersionMonitor;
  readonly #corruptionMonitor: CorruptionMonitor;

  constructor(server: EtcdServer, state: DutiesState) {
    const { options, cluster, store, lessor, serverVersion } = server;
    const { clock, logger, peerClient } = options;
    const checks = options.checks ?? CHECK_DEFAULTS;
    const timeoutMs = requestTimeoutMs(options);
    const isLeader = (): boolean => server.isLeader;
    const propose = (op: Op, request: object, payload: Uint8Array): Promise<Outcome> =>
      server.request(op, request, payload);
    const readIndex = (): Promise<void> => this.#readIndex();
    this.#server = server;
    this.#state = state;
    this.logVersion = new LogVersion(state.logEntries);
    this.storageVersion = new StorageVersion({
      backend: () => server.backend,
      logger,
      term: () => server.appliedTerm,
      logVersion: () => this.logVersion.since(state.snapshotIndex()),
    });
    if (state.restarted) this.storageVersion.check(serverVersion);
    this.legacyRequests = new LegacyRequests({
      cluster,
      initialMembers: state.initialMembers,
      peerClient,
      serverVersion,
      clock,
      logger,
      request: propose,
      leader: () => server.leader,
      isStopped: state.isStopped,
    });
    this.#versions = new VersionMonitor({
      clock,
      logger,
      cluster,
      peerClient,
      storageVersion: this.storageVersion,
      serverVersion,
      // A new leader may not know yet that its predecessor has set the version, and would set a lower one.
      isLeader: () => server.leadsInTerm,
      propose,
      setClusterVersion: (request, payload, isWanted) =>
        this.legacyRequests.setClusterVersion(request, payload, isWanted),
      downgradeCheckMs: checks.downgradeCheckMs,
    });
    this.downgrades = new Downgrades({ logger, cluster, readIndex, propose });
    this.corruption = new CorruptionChecker({
      logger,
      cluster,
      store,
      peerClient,
      readIndex,
      raiseAlarm: (memberId) => this.#raiseCorrupt(memberId),
      requestTimeoutMs: timeoutMs,
    });
    this.#corruptionMonitor = new CorruptionMonitor({
      checker: this.corruption,
      clock,
      logger,
      localId: formatId(server.memberId),
      isLeader,
      checkMs: checks.corruptCheckMs,
      compactHashCheckMs: checks.compactHashCheckMs,
    });
    this.leases = new LeaseForwarding({
      clock,
      lessor,
      cluster,
      peerClient,
      server,
      isStopped: state.isStopped,
      isSteady: state.isSteady,
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

  /** This member leads, and has applied everything of earlier leaders. */
  leads(): void {
    this.#versions.look();
  }

  /** Calls back when everything is applied that is committed now, or with an error after a second. */
  whenApplied(done: (error: EtcdError | null) => void): void {
    const { committedIndex, appliedIndex, appliedWaiters, options } = this.#server;
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

  #readIndex(): Promise<void> {
    return new Promise((resolve, reject) =>
      this.#server.read({ serve: (error) => (error === null ? resolve() : reject(error)) }),
    );
  }

  #raiseCorrupt(memberId: bigint): void {
    if (this.#state.isStopped()) return;
    const request = AlarmRequest.create({ action: AlarmAction.ACTIVATE, memberId, alarm: AlarmType.CORRUPT });
    const raised = this.#server.request(Op.ALARM, request, AlarmRequest.encode(request));
    inBackground(raised, "raise the alarm CORRUPT", this.#server.options.logger);
  }
}
