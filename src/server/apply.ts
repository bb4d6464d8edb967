import type { Logger } from "../base/log.ts";
import { LessorError } from "../lease/errors.ts";
import type { Lessor } from "../lease/lessor.ts";
import type { Cluster } from "../membership/cluster.ts";
import type { MvccStore } from "../mvcc/store.ts";
import { CompactedError, FutureRevisionError } from "../mvcc/types.ts";
import {
  AlarmRequest_AlarmAction as AlarmAction,
  type AlarmRequest,
  AlarmResponse,
  AlarmType,
  type CompactionRequest,
  CompactionResponse,
  type DeleteRangeRequest,
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
} from "../proto/etcdserverpb.ts";
import type {
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  DowngradeInfoSetRequest,
} from "../proto/membershippb.ts";
import type { AlarmStore } from "./alarms.ts";
import { EtcdError, errors } from "./errors.ts";
import type { ServerMetrics } from "./metrics.ts";
import { type BackendQuota, costOfPut, costOfTxn, LEASE_OVERHEAD_BYTES } from "./quota.ts";
import { executeRange } from "./range.ts";
import { checkPath, checkPutPossible, decidePath, executeDeleteRange, executePut, executeTxn } from "./txn.ts";

/** The field of InternalRaftRequest that a request travels in, which is also its kind. */
export const Op = {
  RANGE: 3,
  PUT: 4,
  DELETE_RANGE: 5,
  TXN: 6,
  COMPACTION: 7,
  LEASE_GRANT: 8,
  LEASE_REVOKE: 9,
  ALARM: 10,
  LEASE_CHECKPOINT: 11,
  CLUSTER_VERSION_SET: 1300,
  CLUSTER_MEMBER_ATTR_SET: 1301,
  DOWNGRADE_INFO_SET: 1302,
  DOWNGRADE_VERSION_TEST: 9900,
} as const;
export type Op = (typeof Op)[keyof typeof Op];

/** Names of the requests in metrics and logs. */
export const opNames: Readonly<Record<Op, string>> = {
  [Op.RANGE]: "Range",
  [Op.PUT]: "Put",
  [Op.DELETE_RANGE]: "DeleteRange",
  [Op.TXN]: "Txn",
  [Op.COMPACTION]: "Compaction",
  [Op.LEASE_GRANT]: "LeaseGrant",
  [Op.LEASE_REVOKE]: "LeaseRevoke",
  [Op.ALARM]: "Alarm",
  [Op.LEASE_CHECKPOINT]: "LeaseCheckpoint",
  [Op.CLUSTER_VERSION_SET]: "ClusterVersionSet",
  [Op.CLUSTER_MEMBER_ATTR_SET]: "ClusterMemberAttrSet",
  [Op.DOWNGRADE_INFO_SET]: "DowngradeInfoSet",
  [Op.DOWNGRADE_VERSION_TEST]: "DowngradeVersionTest",
};

/** What a committed request did: its response, or the error that the client gets. */
export type Outcome = object | EtcdError;

/**
 * The replicated state machine: applies committed requests, one after the other, in the order of the log. The same
 * requests give the same state on every member, errors included; nothing here may depend on time or on the member.
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
  /** Resolves when the compaction that was applied last is physically done. */
  compactionDone: Promise<void> = Promise.resolve();

  constructor(options: {
    store: MvccStore;
    lessor: Lessor;
    alarms: AlarmStore;
    quota: BackendQuota;
    cluster: Cluster;
    logger: Logger;
    metrics: ServerMetrics;
    /** The cluster's version went down: older servers will want to read what this one leaves behind. */
    onVersionLowered: () => void;
  }) {
    this.#onVersionLowered = options.onVersionLowered;
    this.#metrics = options.metrics;
    this.#store = options.store;
    this.#lessor = options.lessor;
    this.#alarms = options.alarms;
    this.#quota = options.quota;
    this.#cluster = options.cluster;
    this.#logger = options.logger;
  }

  /** Applies a request that is known in its decoded form. */
  apply(op: Op, request: unknown): Outcome {
    if (this.#alarms.corrupt && op <= Op.LEASE_REVOKE) return errors.corrupt;
    try {
      switch (op) {
        case Op.PUT:
          return this.#put(request as PutRequest);
        case Op.TXN:
          return this.#txn(request as TxnRequest);
        case Op.RANGE:
          return executeRange(this.#store, request as RangeRequest);
        case Op.DELETE_RANGE:
          return this.#deleteRange(request as DeleteRangeRequest);
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
          if (this.#cluster.agreed.set((request as ClusterVersionSetRequest).ver)) this.#onVersionLowered();
          return {};
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
          return {};
      }
    } catch (error) {
      return toEtcdError(error);
    }
  }

  /** Applies a request as it was found in the log. */
  applyInternal(internal: InternalRaftRequest): Outcome {
    const found = opOf(internal);
    if (found === undefined) {
      throw new Error("the log has a request that this version cannot apply (authentication, downgrade or newer)");
    }
    return this.apply(found[0], found[1]);
  }

  #put(request: PutRequest): Outcome {
    if (this.#alarms.noSpace) return errors.noSpace;
    const fits = this.#quota.admits(costOfPut(request));
    if (request.lease !== 0n || request.ignoreValue || request.ignoreLease) {
      const error = checkPutPossible(this.#store, this.#lessor, request);
      if (error !== null) return error;
    }
    this.#metrics.puts++;
    this.#metrics.putBytes += request.key.length + request.value.length;
    const txn = this.#store.begin();
    const response = executePut(txn, request);
    txn.end();
    return fits ? response : errors.noSpace;
  }

  #deleteRange(request: DeleteRangeRequest): Outcome {
    this.#metrics.deletes++;
    const txn = this.#store.begin();
    const response = executeDeleteRange(txn, request);
    txn.end();
    return response;
  }

  #txn(request: TxnRequest): Outcome {
    const cost = costOfTxn(request);
    if (this.#alarms.noSpace && cost > 0) return errors.noSpace;
    const fits = this.#quota.admits(cost);
    const path = decidePath(this.#store, request);
    const error = checkPath(this.#store, this.#lessor, request, path);
    if (error !== null) return error;
    this.#metrics.txns++;
    const txn = this.#store.begin();
    const response = executeTxn(txn, request, path);
    txn.end();
    return fits ? response : errors.noSpace;
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

  #leaseRevoke(request: LeaseRevokeRequest): Outcome {
    this.#lessor.revoke(request.id, (keys) => {
      const txn = this.#store.begin();
      for (const key of keys) txn.deleteKey(key);
      txn.end();
    });
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

export function alarmName(type: AlarmType): string {
  return Object.entries(AlarmType).find(([, value]) => value === type)?.[0] ?? `${type}`;
}

function opOf(internal: InternalRaftRequest): [Op, unknown] | undefined {
  if (internal.put !== undefined) return [Op.PUT, internal.put];
  if (internal.txn !== undefined) return [Op.TXN, internal.txn];
  if (internal.deleteRange !== undefined) return [Op.DELETE_RANGE, internal.deleteRange];
  if (internal.range !== undefined) return [Op.RANGE, internal.range];
  if (internal.compaction !== undefined) return [Op.COMPACTION, internal.compaction];
  if (internal.leaseGrant !== undefined) return [Op.LEASE_GRANT, internal.leaseGrant];
  if (internal.leaseRevoke !== undefined) return [Op.LEASE_REVOKE, internal.leaseRevoke];
  if (internal.leaseCheckpoint !== undefined) return [Op.LEASE_CHECKPOINT, internal.leaseCheckpoint];
  if (internal.alarm !== undefined) return [Op.ALARM, internal.alarm];
  if (internal.clusterVersionSet !== undefined) return [Op.CLUSTER_VERSION_SET, internal.clusterVersionSet];
  if (internal.clusterMemberAttrSet !== undefined) return [Op.CLUSTER_MEMBER_ATTR_SET, internal.clusterMemberAttrSet];
  if (internal.downgradeInfoSet !== undefined) return [Op.DOWNGRADE_INFO_SET, internal.downgradeInfoSet];
  if (internal.downgradeVersionTest !== undefined) return [Op.DOWNGRADE_VERSION_TEST, internal.downgradeVersionTest];
  return undefined;
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
