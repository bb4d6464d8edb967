import { AuthInfo, NOBODY } from "../../auth/auth-info.ts";
import type { AuthStore } from "../../auth/store.ts";
import type { Logger } from "../../base/log.ts";
import { parseVersion } from "../../base/semver.ts";
import { SliceBudget } from "../../base/slice-budget.ts";
import { LessorError } from "../../lease/errors.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { Cluster } from "../../membership/cluster.ts";
import { CompactedError, FutureRevisionError } from "../../mvcc/model/types.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  type AlarmRequest,
  AlarmResponse,
  AlarmType,
  type CompactionRequest,
  CompactionResponse,
  type DeleteRangeRequest,
  type DowngradeVersionTestRequest,
  type InternalRaftRequest,
  type LeaseCheckpointRequest,
  LeaseCheckpointResponse,
  type LeaseGrantRequest,
  LeaseGrantResponse,
  type LeaseRevokeRequest,
  LeaseRevokeResponse,
  type PutRequest,
  type RangeRequest,
  ResponseHeader,
  type TxnRequest,
} from "../../proto/etcdserverpb.ts";
import type {
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  DowngradeInfoSetRequest,
} from "../../proto/membershippb.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { ServerMetrics } from "../contract/metrics.ts";
import type { ApplySlice } from "../contract/options.ts";
import { Op, type Outcome, opOf } from "../log/op.ts";
import type { AlarmStore } from "./alarms.ts";
import { AuthApplier } from "./auth-applier.ts";
import { decideInSlices, decidePath } from "./compare.ts";
import {
  begin,
  deleteRangeInSlices,
  executeTxnInSlices,
  type LongApply,
  mayBeLong,
  revokeInSlices,
  type Slices,
} from "./long-apply.ts";
import { type BackendQuota, costOfPut, costOfTxn, LEASE_OVERHEAD_BYTES } from "./quota.ts";
import type { ResponseReads } from "./response-reads.ts";
import { checkPath, checkPutPossible, executeDeleteRange, executePut, executeTxn } from "./txn.ts";

export { Op, type Outcome, opNames } from "../log/op.ts";

/**
 * The replicated state machine: applies committed requests, one after the other, in the order of the log. The same
 * requests give the same state on every member, errors included; nothing here may depend on time or on the member.
 *
 * What changes more than one turn has time for is only begun here: whoever calls gets a LongApply, and does the rest.
 * Source: etcd `server/etcdserver/apply/`.
 */
export class Applier {
  readonly #store: MvccStore;
  readonly #lessor: Lessor;
  readonly #alarms: AlarmStore;
  readonly #quota: BackendQuota;
  readonly #cluster: Cluster;
  readonly #logger: Logger;
  readonly #metrics: ServerMetrics;
  readonly #onVersionLowered: () => void;
  readonly #onLogMarked: (version: string, index: number) => void;
  readonly #auth: AuthStore;
  readonly #authApplier: AuthApplier;
  /** Of the long request that is being applied, if any. */
  readonly #budget: SliceBudget;
  /** Resolves when the compaction that was applied last is physically done. */
  compactionDone: Promise<void> = Promise.resolve();

  constructor(options: {
    auth: AuthStore;
    store: MvccStore;
    lessor: Lessor;
    alarms: AlarmStore;
    quota: BackendQuota;
    cluster: Cluster;
    logger: Logger;
    metrics: ServerMetrics;
    /** The cluster's version went down: older servers will want to read what this one leaves behind. */
    onVersionLowered: () => void;
    /** A request says that only servers of this version and later can read the log. */
    onLogMarked: (version: string, index: number) => void;
    /** What one turn does of a long request. */
    slice: ApplySlice;
  }) {
    this.#budget = new SliceBudget(options.slice.rows, options.slice.bytes);
    this.#auth = options.auth;
    this.#authApplier = new AuthApplier(options.auth, options.lessor, options.store);
    this.#onVersionLowered = options.onVersionLowered;
    this.#onLogMarked = options.onLogMarked;
    this.#metrics = options.metrics;
    this.#store = options.store;
    this.#lessor = options.lessor;
    this.#alarms = options.alarms;
    this.#quota = options.quota;
    this.#cluster = options.cluster;
    this.#logger = options.logger;
  }

  /**
   * Applies a request that is known in its decoded form: `user` makes it, the entry at `index` of the log holds it. When
   * its response is not wanted, nothing is read that is only for it: every member applies what others were asked, and
   * again after a restart, and what is read changes nothing.
   */
  apply(op: Op, request: unknown, user: AuthInfo, index: number, reads: ResponseReads | null): Outcome | LongApply {
    if (op === Op.V2) return this.applyInternal(request as InternalRaftRequest, index);
    if (this.#alarms.corrupt && op <= Op.LEASE_REVOKE) return errors.corrupt;
    if (this.#auth.enabled) {
      const refusal = this.#authApplier.refusal(op, request, user);
      // A full cluster says so first, whoever asks.
      if (refusal !== null) return this.#alarms.noSpace && takesSpace(op, request) ? errors.noSpace : refusal;
    }
    try {
      switch (op) {
        case Op.PUT:
          return this.#put(request as PutRequest, reads);
        case Op.TXN:
          return this.#txn(request as TxnRequest, reads);
        case Op.RANGE:
          return reads === null ? NOT_WANTED : reads.complete(reads.range(this.#store, request as RangeRequest));
        case Op.DELETE_RANGE:
          return this.#deleteRange(request as DeleteRangeRequest, reads);
        case Op.COMPACTION:
          return this.#compact(request as CompactionRequest);
        case Op.LEASE_GRANT:
          return this.#leaseGrant(request as LeaseGrantRequest);
        case Op.LEASE_REVOKE:
          return this.#leaseRevoke(request as LeaseRevokeRequest);
        case Op.LEASE_CHECKPOINT:
          return this.#leaseCheckpoint(request as LeaseCheckpointRequest);
        case Op.ALARM:
          return this.#alarm(request as AlarmRequest);
        case Op.CLUSTER_VERSION_SET:
          return this.#setClusterVersion(request as ClusterVersionSetRequest);
        case Op.CLUSTER_MEMBER_ATTR_SET: {
          const { memberId, memberAttributes } = request as ClusterMemberAttrSetRequest;
          this.#cluster.applyAttributes(memberId, memberAttributes?.name ?? "", memberAttributes?.clientUrls ?? []);
          return {};
        }
        case Op.DOWNGRADE_INFO_SET: {
          const { enabled, ver } = request as DowngradeInfoSetRequest;
          this.#cluster.agreed.setDowngrade({ enabled, targetVersion: ver });
          return {};
        }
        case Op.DOWNGRADE_VERSION_TEST:
          // Only marks the log as one that older versions cannot read.
          this.#onLogMarked((request as DowngradeVersionTestRequest).ver, index);
          return {};
        default:
          return this.#authApplier.apply(op, request, index);
      }
    } catch (error) {
      return toEtcdError(error);
    }
  }

  /** Applies a request as it was found in the log: nobody here waits for it. */
  applyInternal(internal: InternalRaftRequest, index: number): Outcome | LongApply {
    const found = opOf(internal);
    if (found === undefined) throw new Error("the log has a request that this version cannot apply: it is newer");
    const { username, authRevision } = internal.header ?? {};
    const user = authRevision ? new AuthInfo(username ?? "", authRevision) : NOBODY;
    return this.apply(found[0], found[1], user, index, null);
  }

  #setClusterVersion({ ver }: ClusterVersionSetRequest): Outcome {
    if (parseVersion(ver) === undefined) {
      this.#logger.error("the log sets a version of the cluster that is none; passing over it", { version: ver });
    } else if (this.#cluster.agreed.set(ver)) this.#onVersionLowered();
    return {};
  }

  #put(request: PutRequest, reads: ResponseReads | null): Outcome {
    if (this.#alarms.noSpace) return errors.noSpace;
    const fits = this.#quota.admits(costOfPut(request));
    if (request.lease !== 0n || request.ignoreValue || request.ignoreLease) {
      const error = checkPutPossible(this.#store, this.#lessor, request);
      if (error !== null) return error;
    }
    this.#metrics.puts++;
    this.#metrics.putBytes += request.key.length + request.value.length;
    const txn = this.#store.begin();
    const response = executePut(txn, request, reads);
    txn.end();
    return fits ? (reads?.complete(response) ?? NOT_WANTED) : errors.noSpace;
  }

  #deleteRange(request: DeleteRangeRequest, reads: ResponseReads | null): Outcome | LongApply {
    this.#metrics.deletes++;
    if (request.rangeEnd.length > 0) return this.#begin(this.#deleteRangeInSlices(request, reads));
    const txn = this.#store.begin();
    const response = executeDeleteRange(txn, request, reads);
    txn.end();
    return reads?.complete(response) ?? NOT_WANTED;
  }

  *#deleteRangeInSlices(request: DeleteRangeRequest, reads: ResponseReads | null): Slices<Outcome> {
    const txn = this.#store.begin();
    const response = yield* deleteRangeInSlices(txn, request, reads, this.#budget);
    txn.end();
    return reads?.complete(response) ?? NOT_WANTED;
  }

  #txn(request: TxnRequest, reads: ResponseReads | null): Outcome | LongApply {
    const cost = costOfTxn(request);
    if (this.#alarms.noSpace && cost > 0) return errors.noSpace;
    const fits = this.#quota.admits(cost);
    if (mayBeLong(request)) return this.#begin(this.#txnInSlices(request, fits, reads));
    const path = decidePath(this.#store, request);
    const error = checkPath(this.#store, this.#lessor, request, path);
    if (error !== null) return error;
    this.#metrics.txns++;
    const txn = this.#store.begin();
    const response = executeTxn(txn, request, path, reads);
    txn.end();
    return fits ? (reads?.complete(response) ?? NOT_WANTED) : errors.noSpace;
  }

  *#txnInSlices(request: TxnRequest, fits: boolean, reads: ResponseReads | null): Slices<Outcome> {
    const path = yield* decideInSlices(this.#store, request, this.#budget, this.#store);
    const error = checkPath(this.#store, this.#lessor, request, path);
    if (error !== null) return error;
    this.#metrics.txns++;
    const txn = this.#store.begin();
    const response = yield* executeTxnInSlices(txn, request, path, reads, this.#budget);
    txn.end();
    return fits ? (reads?.complete(response) ?? NOT_WANTED) : errors.noSpace;
  }

  #begin(slices: Slices<Outcome>): Outcome | LongApply {
    this.#budget.refill();
    return begin(slices);
  }

  #compact(request: CompactionRequest): Outcome {
    this.compactionDone = this.#store.compact(request.revision);
    // Whoever waits gets the error too; this keeps it from being nobody's.
    this.compactionDone.catch((error: unknown) => this.#logger.error("compaction failed", { error: `${error}` }));
    return CompactionResponse.create({ header: this.#header() });
  }

  #leaseGrant(request: LeaseGrantRequest): Outcome {
    if (this.#alarms.noSpace) return errors.noSpace;
    const fits = this.#quota.admits(LEASE_OVERHEAD_BYTES);
    const lease = this.#lessor.grant(request.id, request.ttl);
    this.#metrics.leasesGranted++;
    this.#metrics.leaseTtl.observe(lease.ttl);
    if (!fits) return errors.noSpace;
    return LeaseGrantResponse.create({ header: this.#header(), id: lease.id, ttl: lease.ttl });
  }

  #leaseRevoke(request: LeaseRevokeRequest): Outcome | LongApply {
    const lease = this.#lessor.lookup(request.id);
    if (lease !== undefined && lease.keyCount > KEYS_AT_ONCE) return this.#begin(this.#leaseRevokeInSlices(request));
    this.#lessor.revoke(request.id, (keys) => {
      const txn = this.#store.begin();
      for (const key of keys) txn.deleteKey(key);
      txn.end();
    });
    this.#metrics.leasesRevoked++;
    return LeaseRevokeResponse.create({ header: this.#header() });
  }

  *#leaseRevokeInSlices(request: LeaseRevokeRequest): Slices<Outcome> {
    yield* revokeInSlices(this.#store, this.#lessor, request.id, this.#budget);
    this.#metrics.leasesRevoked++;
    return LeaseRevokeResponse.create({ header: this.#header() });
  }

  #leaseCheckpoint(request: LeaseCheckpointRequest): Outcome {
    for (const { id, remainingTtl } of request.checkpoints) this.#lessor.checkpoint(id, remainingTtl);
    return LeaseCheckpointResponse.create({ header: this.#header() });
  }

  #alarm(request: AlarmRequest): Outcome {
    const response = AlarmResponse.create();
    switch (request.action) {
      case AlarmAction.GET:
        response.alarms = this.#alarms.get(request.alarm);
        break;
      case AlarmAction.ACTIVATE:
        if (request.alarm !== AlarmType.NONE) {
          response.alarms = [this.#alarms.activate(request.memberId, request.alarm)];
          this.#logger.warn("alarm raised", { alarm: alarmName(request.alarm), from: request.memberId.toString(16) });
        }
        break;
      case AlarmAction.DEACTIVATE: {
        const lifted = this.#alarms.deactivate(request.memberId, request.alarm);
        if (lifted !== undefined) {
          response.alarms = [lifted];
          this.#logger.warn("alarm disarmed", { alarm: alarmName(request.alarm), from: request.memberId.toString(16) });
        }
        break;
      }
    }
    return response;
  }

  #header(): ResponseHeader {
    return ResponseHeader.create({ revision: this.#store.currentRevision });
  }
}

/** A lease with more is revoked in slices, if they do not fit into one. */
const KEYS_AT_ONCE = 1;

/** The outcome of a read that nobody waits for. */
const NOT_WANTED: Outcome = {};

/** What is refused while there is no space. */
function takesSpace(op: Op, request: unknown): boolean {
  return op === Op.PUT || op === Op.LEASE_GRANT || (op === Op.TXN && costOfTxn(request as TxnRequest) > 0);
}

export function alarmName(type: AlarmType): string {
  return Object.entries(AlarmType).find(([, value]) => value === type)?.[0] ?? `${type}`;
}

/** The operating errors of the store and the lessor as clients see them; anything else is a broken invariant and thrown on. */
export function toEtcdError(error: unknown): EtcdError {
  if (error instanceof EtcdError) return error;
  if (error instanceof CompactedError) return errors.compacted;
  if (error instanceof FutureRevisionError) return errors.futureRevision;
  if (error instanceof LessorError) {
    if (error.code === "ERR_LEASE_NOT_FOUND") return errors.leaseNotFound;
    if (error.code === "ERR_LEASE_EXISTS") return errors.leaseExists;
    if (error.code === "ERR_LEASE_TTL_TOO_LARGE") return errors.leaseTtlTooLarge;
  }
  throw error;
}
