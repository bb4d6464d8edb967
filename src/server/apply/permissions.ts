import type { AuthInfo } from "../../auth/auth-info.ts";
import type { AuthProblem } from "../../auth/problems.ts";
import type { AuthStore } from "../../auth/store.ts";
import type { SliceBudget } from "../../base/slice-budget.ts";
import { nextSlice, type Slices } from "../../base/slices.ts";
import type { Lessor } from "../../lease/lessor.ts";
import { toByteString } from "../../mvcc/model/types.ts";
import type {
  DeleteRangeRequest,
  LeaseRevokeRequest,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
} from "../../proto/etcdserverpb.ts";
import { LeaseRights } from "./lease-rights.ts";

/**
 * Whether the user of a request has the permissions it needs, at the moment it is executed: the same on every member,
 * because users, leases and requests are the same. Call it when authentication is enabled; null means permitted.
 * Source: etcd `server/etcdserver/apply/auth.go`.
 */
export class PermissionChecker {
  readonly #auth: AuthStore;
  readonly #lessor: Lessor;
  readonly #leaseRights: LeaseRights;

  constructor(auth: AuthStore, lessor: Lessor) {
    this.#auth = auth;
    this.#lessor = lessor;
    this.#leaseRights = new LeaseRights(auth);
  }

  range(user: AuthInfo, { key, rangeEnd }: Pick<RangeRequest, "key" | "rangeEnd">): AuthProblem | null {
    return this.#auth.mayRead(user, toByteString(key), toByteString(rangeEnd));
  }

  put(user: AuthInfo, request: PutRequest): AuthProblem | null {
    const key = toByteString(request.key);
    return (
      this.#auth.mayWrite(user, key, "") ??
      // A user who may not revoke a lease may not attach a key to it either.
      this.lease(user, request.lease) ??
      (request.prevKv ? this.#auth.mayRead(user, key, "") : null)
    );
  }

  deleteRange(user: AuthInfo, request: DeleteRangeRequest): AuthProblem | null {
    const key = toByteString(request.key);
    const end = toByteString(request.rangeEnd);
    return this.#auth.mayWrite(user, key, end) ?? (request.prevKv ? this.#auth.mayRead(user, key, end) : null);
  }

  /** Every comparison and both branches, executed or not. */
  txn(user: AuthInfo, request: TxnRequest): AuthProblem | null {
    for (const compare of request.compare) {
      const problem = this.range(user, compare);
      if (problem !== null) return problem;
    }
    return this.#ops(user, request.success) ?? this.#ops(user, request.failure);
  }

  /** The same in slices, for many operations. Users and leases must not change meanwhile. */
  *txnInSlices(user: AuthInfo, request: TxnRequest, budget: SliceBudget): Slices<AuthProblem | null> {
    for (const compare of request.compare) {
      const problem = this.range(user, compare);
      if (problem !== null) return problem;
      budget.spend(1, 0);
      if (budget.isSpent) yield* nextSlice(budget);
    }
    for (const ops of [request.success, request.failure]) {
      for (const op of ops) {
        const { requestTxn } = op;
        const problem: AuthProblem | null =
          requestTxn === undefined ? this.#op(user, op) : yield* this.txnInSlices(user, requestTxn, budget);
        if (problem !== null) return problem;
        budget.spend(1, 0);
        if (budget.isSpent) yield* nextSlice(budget);
      }
    }
    return null;
  }

  leaseRevoke(user: AuthInfo, request: LeaseRevokeRequest): AuthProblem | null {
    return this.lease(user, request.id);
  }

  /** Changing what a lease does needs write permission on all its keys. */
  lease(user: AuthInfo, id: bigint): AuthProblem | null {
    const lease = this.#lessor.lookup(id);
    if (lease === undefined || this.#auth.mayAdminister(user) === null) return null;
    return this.#leaseRights.check(user, lease, "write");
  }

  /** Seeing the keys of a lease needs read permission on them. */
  leaseKeys(user: AuthInfo, id: bigint): AuthProblem | null {
    const lease = this.#lessor.lookup(id);
    if (lease === undefined || this.#auth.mayAdminister(user) === null) return null;
    return this.#leaseRights.check(user, lease, "read");
  }

  #ops(user: AuthInfo, ops: readonly RequestOp[]): AuthProblem | null {
    for (const op of ops) {
      const problem = this.#op(user, op);
      if (problem !== null) return problem;
    }
    return null;
  }

  #op(user: AuthInfo, op: RequestOp): AuthProblem | null {
    if (op.requestRange !== undefined) return this.range(user, op.requestRange);
    if (op.requestPut !== undefined) return this.put(user, op.requestPut);
    if (op.requestDeleteRange !== undefined) return this.deleteRange(user, op.requestDeleteRange);
    return op.requestTxn === undefined ? null : this.txn(user, op.requestTxn);
  }
}
