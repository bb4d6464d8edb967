import type { Backend } from "../../mvcc/backend/backend.ts";
import type { PutRequest, RequestOp, TxnRequest } from "../../proto/etcdserverpb.ts";

/** Bytes of the backend when no quota is set. Source: etcd `server/storage/quota.go`. */
export const QUOTA_DEFAULT_BYTES = 2 * 1024 * 1024 * 1024;
/** Above this etcd warns. */
export const QUOTA_SUGGESTED_MAX_BYTES = 8 * 1024 * 1024 * 1024;

/**
 * Not counted: what a file of LMDB takes more than one of bbolt that holds the same few rows. bbolt keeps a small bucket
 * inside the page of its parent, LMDB gives each its own pages and copies them at each commit; with this, quotas as tight as
 * those of etcd's own tests (13 pages) can be met again after compaction and defragmentation.
 */
const FILE_OVERHEAD_BYTES = 32 * 1024;

/** By how much a snapshot may pass even twice the quota: small quotas are passed by a few large requests. */
const SNAPSHOT_SURPLUS_BYTES = 512 * 1024 * 1024;

const KEY_OVERHEAD_BYTES = 256;
export const LEASE_OVERHEAD_BYTES = 64;

/** The limit on the backend's size (`--quota-backend-bytes`): 0 is the default, a negative one none. */
export class BackendQuota {
  #backend: Backend;
  /** 0 when there is none. */
  readonly limitBytes: number;

  constructor(backend: Backend, configuredBytes: number) {
    this.#backend = backend;
    this.limitBytes = configuredBytes < 0 ? 0 : configuredBytes || QUOTA_DEFAULT_BYTES;
  }

  /** Goes on with another backend, which a snapshot brought. */
  use(backend: Backend): void {
    this.#backend = backend;
  }

  /**
   * How large a database may be that another member sends; 0 when any. Its quota is passed by what is under way when it is
   * reached, and free pages and what a file takes anyway come on top, so this only keeps a sender from filling the disk:
   * etcd takes a snapshot of any size.
   */
  get snapshotBytesMax(): number {
    return this.limitBytes === 0 ? 0 : 2 * this.limitBytes + SNAPSHOT_SURPLUS_BYTES;
  }

  /** Whether a request that adds about `costBytes` still fits. One that adds nothing always does. */
  admits(costBytes: number): boolean {
    if (this.limitBytes === 0 || costBytes === 0) return true;
    return this.#backend.sizeBytes() - FILE_OVERHEAD_BYTES + costBytes < this.limitBytes;
  }
}

export function costOfPut(request: PutRequest): number {
  return KEY_OVERHEAD_BYTES + request.key.length + request.value.length;
}

export function costOfTxn(request: TxnRequest): number {
  return Math.max(costOfOps(request.success), costOfOps(request.failure));
}

function costOfOps(ops: readonly RequestOp[]): number {
  let cost = 0;
  for (const op of ops) {
    if (op.requestPut !== undefined) cost += costOfPut(op.requestPut);
    else if (op.requestTxn !== undefined) cost += costOfTxn(op.requestTxn);
  }
  return cost;
}
