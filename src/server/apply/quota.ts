import type { Backend } from "../../mvcc/backend/backend.ts";
import type { PutRequest, RequestOp, TxnRequest } from "../../proto/etcdserverpb.ts";

/** Default quota in bytes of the backend. Source: etcd `server/storage/quota.go`. */
export const QUOTA_DEFAULT_BYTES = 2 * 1024 * 1024 * 1024;
/** etcd warns above this. */
export const QUOTA_SUGGESTED_MAX_BYTES = 8 * 1024 * 1024 * 1024;

/** How much a snapshot may exceed twice the quota: a few large requests exceed small quotas. */
const SNAPSHOT_SURPLUS_BYTES = 512 * 1024 * 1024;

const KEY_OVERHEAD_BYTES = 256;
export const LEASE_OVERHEAD_BYTES = 64;

/** The limit on the backend's size (`--quota-backend-bytes`): 0 is the default, a negative one none. */
export class BackendQuota {
  #backend: Backend;
  /** 0 for none. */
  readonly limitBytes: number;

  constructor(backend: Backend, configuredBytes: number) {
    this.#backend = backend;
    this.limitBytes = configuredBytes < 0 ? 0 : configuredBytes || QUOTA_DEFAULT_BYTES;
  }

  /** Switches to another backend, brought by a snapshot. */
  use(backend: Backend): void {
    this.#backend = backend;
  }

  /**
   * Maximum size of a database received from another member; 0 for no limit. Requests in progress exceed the sender's
   * quota when it is reached, and free pages add to it, so this only prevents a sender from filling
   * the disk: etcd accepts a snapshot of any size.
   */
  get snapshotBytesMax(): number {
    return this.limitBytes === 0 ? 0 : 2 * this.limitBytes + SNAPSHOT_SURPLUS_BYTES;
  }

  /** Whether a request that adds about `costBytes` still fits. A request that adds nothing always does. */
  admits(costBytes: number): boolean {
    if (this.limitBytes === 0 || costBytes === 0) return true;
    return this.#backend.sizeBytes() + costBytes < this.limitBytes;
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
