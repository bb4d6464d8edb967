import type { AuthInfo } from "../../auth/auth-info.ts";
import type { AuthProblem } from "../../auth/problems.ts";
import type { AuthStore } from "../../auth/store.ts";
import type { SliceBudget } from "../../base/slice-budget.ts";
import type { Slices } from "../../base/slices.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import { AuthenticateResponse, ResponseHeader, type TxnRequest } from "../../proto/etcdserverpb.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import { Op } from "../log/op.ts";
import type { HeaderOnly, RequestOf } from "../log/operations.ts";
import type { Appliers } from "./appliers.ts";
import { mayBeLong } from "./long-apply.ts";
import { PermissionChecker } from "./permissions.ts";

/**
 * The part of the replicated state machine for users: permission checks of requests, and the requests that change users
 * and roles. Source: etcd `server/etcdserver/apply/auth.go`.
 */
export class AuthApplier {
  readonly appliers: Pick<Appliers, AuthOp>;
  readonly #permissions: PermissionChecker;
  readonly #permitted: Permitted;
  readonly #store: MvccStore;

  constructor(auth: AuthStore, lessor: Lessor, store: MvccStore) {
    this.#permissions = new PermissionChecker(auth, lessor);
    this.#permitted = permittedBy(this.#permissions, auth);
    this.#store = store;
    this.appliers = this.#makeAppliers(auth);
  }

  /** Why the user may not do this; null when permitted. Call it when authentication is enabled. */
  refusal<O extends Op>(op: O, request: RequestOf<O>, user: AuthInfo): EtcdError | null {
    const problem = this.#permitted[op](user, request);
    return problem === null ? null : errors[problem];
  }

  /** The same in slices, for a long transaction. */
  *txnRefusal(request: TxnRequest, user: AuthInfo, budget: SliceBudget): Slices<EtcdError | null> {
    const problem = yield* this.#permissions.txnInSlices(user, request, budget);
    return problem === null ? null : errors[problem];
  }

  /** The response of a change is its header; queries change nothing and are answered elsewhere. */
  #makeAppliers(auth: AuthStore): Pick<Appliers, AuthOp> {
    const changed = (problem: AuthProblem | null): HeaderOnly | EtcdError =>
      problem === null ? { header: this.#header() } : errors[problem];
    const asked = (): HeaderOnly => ({ header: this.#header() });
    return {
      [Op.AUTH_ENABLE]: () => changed(auth.authEnable()),
      [Op.AUTH_DISABLE]: () => changed(auth.authDisable()),
      [Op.AUTHENTICATE]: ({ name, simpleToken }, _reads, index) => {
        const done = auth.authenticate(name, simpleToken, index);
        if (typeof done === "string") return errors[done];
        return AuthenticateResponse.create({ header: this.#header(), token: done.token });
      },
      [Op.AUTH_STATUS]: asked,
      [Op.AUTH_USER_ADD]: (request) => changed(auth.userAdd(request)),
      [Op.AUTH_USER_DELETE]: (request) => changed(auth.userDelete(request)),
      [Op.AUTH_USER_GET]: asked,
      [Op.AUTH_USER_LIST]: asked,
      [Op.AUTH_USER_CHANGE_PASSWORD]: (request) => changed(auth.userChangePassword(request)),
      [Op.AUTH_USER_GRANT_ROLE]: (request) => changed(auth.userGrantRole(request)),
      [Op.AUTH_USER_REVOKE_ROLE]: (request) => changed(auth.userRevokeRole(request)),
      [Op.AUTH_ROLE_ADD]: (request) => changed(auth.roleAdd(request)),
      [Op.AUTH_ROLE_DELETE]: (request) => changed(auth.roleDelete(request)),
      [Op.AUTH_ROLE_GET]: asked,
      [Op.AUTH_ROLE_LIST]: asked,
      [Op.AUTH_ROLE_GRANT_PERMISSION]: (request) => changed(auth.roleGrantPermission(request)),
      [Op.AUTH_ROLE_REVOKE_PERMISSION]: (request) => changed(auth.roleRevokePermission(request)),
    };
  }

  #header(): ResponseHeader {
    return ResponseHeader.create({ revision: this.#store.currentRevision });
  }
}

/** The operations on users and roles. */
type AuthOp = {
  [Name in keyof typeof Op]: Name extends `AUTH${string}` ? (typeof Op)[Name] : never;
}[keyof typeof Op];

/**
 * Why a user may not do this; null when permitted. Every operation is listed, so that a new one cannot be forgotten.
 */
type Permitted = { readonly [O in Op]: (user: AuthInfo, request: RequestOf<O>) => AuthProblem | null };

function permittedBy(permissions: PermissionChecker, auth: AuthStore): Permitted {
  /** Checked where it is requested, or a request of the server itself. */
  const anybody = (): null => null;
  const administrators = (user: AuthInfo): AuthProblem | null => auth.mayAdminister(user);
  return {
    [Op.V2]: anybody,
    [Op.RANGE]: (user, request) => permissions.range(user, request),
    [Op.PUT]: (user, request) => permissions.put(user, request),
    [Op.DELETE_RANGE]: (user, request) => permissions.deleteRange(user, request),
    // A long one is checked in slices, when it is applied.
    [Op.TXN]: (user, request) => (mayBeLong(request) ? null : permissions.txn(user, request)),
    [Op.COMPACTION]: anybody,
    [Op.LEASE_GRANT]: anybody,
    [Op.LEASE_REVOKE]: (user, request) => permissions.leaseRevoke(user, request),
    [Op.LEASE_CHECKPOINT]: anybody,
    [Op.ALARM]: anybody,
    [Op.AUTH_ENABLE]: administrators,
    [Op.AUTH_DISABLE]: administrators,
    [Op.AUTHENTICATE]: anybody,
    [Op.AUTH_STATUS]: anybody,
    [Op.AUTH_USER_ADD]: administrators,
    [Op.AUTH_USER_DELETE]: administrators,
    [Op.AUTH_USER_GET]: anybody,
    [Op.AUTH_USER_LIST]: anybody,
    [Op.AUTH_USER_CHANGE_PASSWORD]: administrators,
    [Op.AUTH_USER_GRANT_ROLE]: administrators,
    [Op.AUTH_USER_REVOKE_ROLE]: administrators,
    [Op.AUTH_ROLE_ADD]: administrators,
    [Op.AUTH_ROLE_DELETE]: administrators,
    [Op.AUTH_ROLE_GET]: anybody,
    [Op.AUTH_ROLE_LIST]: anybody,
    [Op.AUTH_ROLE_GRANT_PERMISSION]: administrators,
    [Op.AUTH_ROLE_REVOKE_PERMISSION]: administrators,
    [Op.CLUSTER_VERSION_SET]: anybody,
    [Op.CLUSTER_MEMBER_ATTR_SET]: anybody,
    [Op.DOWNGRADE_INFO_SET]: anybody,
    [Op.DOWNGRADE_VERSION_TEST]: anybody,
  };
}
