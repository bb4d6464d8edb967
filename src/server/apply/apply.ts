import { AuthInfo, NOBODY } from "../../auth/auth-info.ts";
import type { AuthStore } from "../../auth/store.ts";
import type { Logger } from "../../base/log.ts";
import { parseVersion } from "../../base/semver.ts";
import { SliceBudget } from "../../base/slice-budget.ts";
import type { Slices } from "../../base/slices.ts";
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
  type InternalRaftRequest,
  type LeaseCheckpointRequest,
  LeaseCheckpointResponse,
  type LeaseGrantRequest,
  LeaseGrantResponse,
  type LeaseRevokeRequest,
  LeaseRevokeResponse,
  type PutRequest,
  ResponseHeader,
  type TxnRequest,
} from "../../proto/etcdserverpb.ts";
import type { ClusterVersionSetRequest } from "../../proto/membershippb.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { ServerMetrics } from "../contract/metrics.ts";
import type { ApplySlice } from "../contract/options.ts";
import { decodeLogEntry, decodeLongEntry, LogEntryError } from "../log/entry.ts";
import { Op } from "../log/op.ts";
import { EMPTY, type Empty, operationOf, type RequestOf } from "../log/operations.ts";
import type { Applied, Outcome } from "../log/outcome.ts";
import { holdsLongTxn } from "../log/txn-size.ts";
import type { AlarmStore } from "./alarms.ts";
import type { Appliers, Progress } from "./appliers.ts";
import { AuthApplier } from "./auth-applier.ts";
import { decideInSlices, decidePath } from "./compare.ts";
import {
  begin,
  deleteRangeInSlices,
  executeTxnInSlices,
  isLongResponse,
  LongApply,
  mayBeLong,
  revokeInSlices,
} from "./long-apply.ts";
import { type BackendQuota, costOfPut, costOfTxn, LEASE_OVERHEAD_BYTES } from "./quota.ts";
import type { ResponseReads } from "./response-reads.ts";
import { checkPath, checkPathInSlices, checkPutPossible, executeDeleteRange, executePut, executeTxn } from "./txn.ts";

/**
 * The replicated state machine: applies committed requests one at a time, in log order. The same requests give the same
 * state on every member, errors included; nothing may depend on time or on the member.
 *
 * A request too large for one turn is only begun here: the caller gets a LongApply and completes it. Source: etcd
 * `server/etcdserver/apply/`.
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
  readonly #appliers: Appliers;
  /** Budget of the long request being applied. */
  readonly #budget: SliceBudget;
  /** Resolves when the compaction applied last is physically done. */
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
    /** The cluster version was lowered: older servers must be able to read what this one leaves behind. */
    onVersionLowered: () => void;
    /** A request marks the log as readable only by servers of this version and later. */
    onLogMarked: (version: string, index: number) => void;
    /** Limit of one turn of a long request. */
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
    this.#appliers = this.#makeAppliers();
  }

  /**
   * Applies a decoded request of `user` from the log entry at `index`. Without a wanted response, reads made only for
   * it are skipped: every member applies the others' requests too, and again after a restart, and reads change nothing.
   * An error of the request is a value; an exception is a fault.
   */
  apply<O extends Op>(
    op: O,
    request: RequestOf<O>,
    user: AuthInfo,
    index: number,
    reads: ResponseReads | null,
  ): Progress<O> {
    if (this.#alarms.corrupt && isRefusedWhenCorrupt(op)) return errors.corrupt;
    if (this.#auth.enabled) {
      const refusal = this.#authApplier.refusal(op, request, user);
      // A full cluster reports that first, for any user.
      if (refusal !== null) return this.#alarms.noSpace && takesSpace(op, request) ? errors.noSpace : refusal;
    }
    try {
      return this.#appliers[op](request, reads, index, user);
    } catch (error) {
      return toEtcdError(error);
    }
  }

  /** Applies an entry without a waiting caller; `onRefused` gets the reason when no version of etcd makes such an entry. */
  applyEntry(data: Uint8Array, index: number, onRefused: (reason: string) => void): Progress<Op> {
    if (holdsLongTxn(data)) return this.#begin(this.#entryInSlices(data, index, onRefused));
    const request = decodeLogEntry(data, onRefused);
    return request === undefined ? null : this.applyInternal(request, index);
  }

  *#entryInSlices(data: Uint8Array, index: number, onRefused: (reason: string) => void): Slices<Applied<Op>> {
    const request = yield* decodeLongEntry(data, onRefused, this.#budget);
    if (request === undefined) return null;
    const progress = this.applyInternal(request, index);
    return progress instanceof LongApply ? yield* progress.slices : progress;
  }

  /** Applies a decoded request from the log without a waiting caller. */
  applyInternal(internal: InternalRaftRequest, index: number): Progress<Op> {
    const found = operationOf(internal);
    if (found === undefined)
      throw new LogEntryError("the log has a request that this version cannot apply: it is newer");
    const { username, authRevision } = internal.header ?? {};
    const user = authRevision ? new AuthInfo(username ?? "", authRevision) : NOBODY;
    return this.apply(found.op, found.request, user, index, null);
  }

  /** An applier for each operation: the only place that lists them all. */
  #makeAppliers(): Appliers {
    const appliers: Appliers = {
      ...this.#authApplier.appliers,
      [Op.V2]: ({ op, request }, reads, index) => this.apply(op, request, NOBODY, index, reads),
      [Op.RANGE]: (request, reads) => reads?.complete(reads.range(this.#store, request)) ?? null,
      [Op.PUT]: (request, reads) => this.#put(request, reads),
      [Op.DELETE_RANGE]: (request, reads) => this.#deleteRange(request, reads),
      [Op.TXN]: (request, reads, _index, user) => this.#txn(request, user, reads),
      [Op.COMPACTION]: (request) => this.#compact(request),
      [Op.LEASE_GRANT]: (request) => this.#leaseGrant(request),
      [Op.LEASE_REVOKE]: (request) => this.#leaseRevoke(request),
      [Op.LEASE_CHECKPOINT]: (request) => this.#leaseCheckpoint(request),
      [Op.ALARM]: (request) => this.#alarm(request),
      [Op.CLUSTER_VERSION_SET]: (request) => this.#setClusterVersion(request),
      [Op.CLUSTER_MEMBER_ATTR_SET]: ({ memberId, memberAttributes }) => {
        this.#cluster.applyAttributes(memberId, memberAttributes?.name ?? "", memberAttributes?.clientUrls ?? []);
        return EMPTY;
      },
      [Op.DOWNGRADE_INFO_SET]: ({ enabled, ver }) => {
        this.#cluster.agreed.setDowngrade({ enabled, targetVersion: ver });
        return EMPTY;
      },
      [Op.DOWNGRADE_VERSION_TEST]: ({ ver }, _reads, index) => {
        // Only marks the log as unreadable for older versions.
        this.#onLogMarked(ver, index);
        return EMPTY;
      },
    };
    // Keys this far apart would make an object a hash table, on the path of every request.
    return Object.assign(new Array(OP_MAX + 1), appliers);
  }

  #setClusterVersion({ ver }: ClusterVersionSetRequest): Empty {
    if (parseVersion(ver) === undefined) {
      this.#logger.error("the log sets a version of the cluster that is none; passing over it", { version: ver });
    } else if (this.#cluster.agreed.set(ver)) this.#onVersionLowered();
    return EMPTY;
  }

  #put(request: PutRequest, reads: ResponseReads | null): Applied<typeof Op.PUT> {
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
    return fits ? (reads?.complete(response) ?? null) : errors.noSpace;
  }

  #deleteRange(request: DeleteRangeRequest, reads: ResponseReads | null): Progress<typeof Op.DELETE_RANGE> {
    this.#metrics.deletes++;
    if (request.rangeEnd.length > 0) return this.#begin(this.#deleteRangeInSlices(request, reads));
    const txn = this.#store.begin();
    const response = executeDeleteRange(txn, request, reads);
    txn.end();
    return reads?.complete(response) ?? null;
  }

  *#deleteRangeInSlices(
    request: DeleteRangeRequest,
    reads: ResponseReads | null,
  ): Slices<Applied<typeof Op.DELETE_RANGE>> {
    const txn = this.#store.begin();
    const response = yield* deleteRangeInSlices(txn, request, reads, this.#budget);
    txn.end();
    return reads?.complete(response) ?? null;
  }

  #txn(request: TxnRequest, user: AuthInfo, reads: ResponseReads | null): Progress<typeof Op.TXN> {
    const cost = costOfTxn(request);
    if (this.#alarms.noSpace && cost > 0) return errors.noSpace;
    const fits = this.#quota.admits(cost);
    if (mayBeLong(request)) return this.#begin(this.#txnInSlices(request, user, fits, reads));
    const path = decidePath(this.#store, request);
    const error = checkPath(this.#store, this.#lessor, request, path);
    if (error !== null) return error;
    this.#metrics.txns++;
    const txn = this.#store.begin();
    const response = executeTxn(txn, request, path, reads);
    txn.end();
    return fits ? (reads?.complete(response) ?? null) : errors.noSpace;
  }

  *#txnInSlices(
    request: TxnRequest,
    user: AuthInfo,
    fits: boolean,
    reads: ResponseReads | null,
  ): Slices<Applied<typeof Op.TXN>> {
    const refusal = this.#auth.enabled ? yield* this.#authApplier.txnRefusal(request, user, this.#budget) : null;
    if (refusal !== null) return refusal;
    const path = yield* decideInSlices(this.#store, request, this.#budget, this.#store);
    const error = yield* checkPathInSlices(this.#store, this.#lessor, request, path, this.#budget);
    if (error !== null) return error;
    this.#metrics.txns++;
    const txn = this.#store.begin();
    const response = yield* executeTxnInSlices(txn, request, path, reads, this.#budget);
    txn.end();
    return fits ? (reads?.complete(response, isLongResponse(response)) ?? null) : errors.noSpace;
  }

  #begin<T>(slices: Slices<T>): T | LongApply<T> {
    this.#budget.refill();
    return begin(slices);
  }

  #compact(request: CompactionRequest): Outcome<typeof Op.COMPACTION> {
    this.compactionDone = this.#store.compact(request.revision);
    // The caller gets the error too; this prevents an unhandled rejection.
    this.compactionDone.catch((error: unknown) => this.#logger.error("compaction failed", { error: `${error}` }));
    return CompactionResponse.create({ header: this.#header() });
  }

  #leaseGrant(request: LeaseGrantRequest): Outcome<typeof Op.LEASE_GRANT> {
    if (this.#alarms.noSpace) return errors.noSpace;
    const fits = this.#quota.admits(LEASE_OVERHEAD_BYTES);
    const lease = this.#lessor.grant(request.id, request.ttl);
    this.#metrics.leasesGranted++;
    this.#metrics.leaseTtl.observe(lease.ttl);
    if (!fits) return errors.noSpace;
    return LeaseGrantResponse.create({ header: this.#header(), id: lease.id, ttl: lease.ttl });
  }

  #leaseRevoke(request: LeaseRevokeRequest): Progress<typeof Op.LEASE_REVOKE> {
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

  *#leaseRevokeInSlices(request: LeaseRevokeRequest): Slices<Outcome<typeof Op.LEASE_REVOKE>> {
    yield* revokeInSlices(this.#store, this.#lessor, request.id, this.#budget);
    this.#metrics.leasesRevoked++;
    return LeaseRevokeResponse.create({ header: this.#header() });
  }

  #leaseCheckpoint(request: LeaseCheckpointRequest): LeaseCheckpointResponse {
    for (const { id, remainingTtl } of request.checkpoints) this.#lessor.checkpoint(id, remainingTtl);
    return LeaseCheckpointResponse.create({ header: this.#header() });
  }

  #alarm(request: AlarmRequest): AlarmResponse {
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

const OP_MAX = Math.max(...Object.values(Op));

/** A lease with more keys is revoked in slices, if they do not fit into one. */
const KEYS_AT_ONCE = 1;

/** Refused while a member is known to be corrupt: client requests for keys and leases. */
const isRefusedWhenCorrupt = (op: Op): boolean => op !== Op.V2 && op <= Op.LEASE_REVOKE;

/** Refused while there is no space. */
function takesSpace<O extends Op>(op: O, request: RequestOf<O>): boolean {
  return SPACE_TAKERS[op]?.(request) === true;
}

const SPACE_TAKERS: { readonly [O in Op]?: (request: RequestOf<O>) => boolean } = {
  [Op.PUT]: () => true,
  [Op.LEASE_GRANT]: () => true,
  [Op.TXN]: (request) => costOfTxn(request) > 0,
};

export function alarmName(type: AlarmType): string {
  return Object.entries(AlarmType).find(([, value]) => value === type)?.[0] ?? `${type}`;
}

/**
 * Converts operating errors of the store and the lessor to client errors; anything else is a broken invariant and is
 * rethrown.
 */
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
