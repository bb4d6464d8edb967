import type { AuthInfo } from "../../auth/auth-info.ts";
import type { AuthProblem } from "../../auth/problems.ts";
import type { AuthStore } from "../../auth/store.ts";
import type { Lessor } from "../../lease/lessor.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import {
  AuthenticateResponse,
  type AuthRoleAddRequest,
  type AuthRoleDeleteRequest,
  type AuthRoleGrantPermissionRequest,
  type AuthRoleRevokePermissionRequest,
  type AuthUserAddRequest,
  type AuthUserChangePasswordRequest,
  type AuthUserDeleteRequest,
  type AuthUserGrantRoleRequest,
  type AuthUserRevokeRoleRequest,
  type DeleteRangeRequest,
  type InternalAuthenticateRequest,
  type LeaseRevokeRequest,
  type PutRequest,
  type RangeRequest,
  ResponseHeader,
  type TxnRequest,
} from "../../proto/etcdserverpb.ts";
import { type EtcdError, errors } from "../contract/errors.ts";
import { Op, type Outcome } from "../log/op.ts";
import { PermissionChecker } from "./permissions.ts";

/**
 * The part of the replicated state machine that is about users: may the user of a request do it, and the requests that
 * change users and roles. Source: etcd `server/etcdserver/apply/auth.go`.
 */
export class AuthApplier {
  readonly #auth: AuthStore;
  readonly #permissions: PermissionChecker;
  readonly #store: MvccStore;

  constructor(auth: AuthStore, lessor: Lessor, store: MvccStore) {
    this.#auth = auth;
    this.#permissions = new PermissionChecker(auth, lessor);
    this.#store = store;
  }

  /** Why the user may not do this; null when he may. For when authentication is on. */
  refusal(op: Op, request: unknown, user: AuthInfo): EtcdError | null {
    const problem = this.#problem(op, request, user);
    return problem === null ? null : errors[problem];
  }

  #problem(op: Op, request: unknown, user: AuthInfo): AuthProblem | null {
    switch (op) {
      case Op.PUT:
        return this.#permissions.put(user, request as PutRequest);
      case Op.TXN:
        return this.#permissions.txn(user, request as TxnRequest);
      case Op.RANGE:
        return this.#permissions.range(user, request as RangeRequest);
      case Op.DELETE_RANGE:
        return this.#permissions.deleteRange(user, request as DeleteRangeRequest);
      case Op.LEASE_REVOKE:
        return this.#permissions.leaseRevoke(user, request as LeaseRevokeRequest);
      case Op.AUTH_ENABLE:
      case Op.AUTH_DISABLE:
      case Op.AUTH_USER_ADD:
      case Op.AUTH_USER_DELETE:
      case Op.AUTH_USER_CHANGE_PASSWORD:
      case Op.AUTH_USER_GRANT_ROLE:
      case Op.AUTH_USER_REVOKE_ROLE:
      case Op.AUTH_ROLE_ADD:
      case Op.AUTH_ROLE_DELETE:
      case Op.AUTH_ROLE_GRANT_PERMISSION:
      case Op.AUTH_ROLE_REVOKE_PERMISSION:
        return this.#auth.mayAdminister(user);
      default:
        return null;
    }
  }

  /** The response of a change is its header; what only asks changes nothing, and who asked is answered elsewhere. */
  apply(op: Op, request: unknown, index: number): Outcome {
    const done = this.#change(op, request, index);
    if (typeof done === "string") return errors[done];
    const header = ResponseHeader.create({ revision: this.#store.currentRevision });
    return done === null ? { header } : AuthenticateResponse.create({ header, token: done.token });
  }

  #change(op: Op, request: unknown, index: number): { readonly token: string } | AuthProblem | null {
    const auth = this.#auth;
    switch (op) {
      case Op.AUTH_ENABLE:
        return auth.authEnable();
      case Op.AUTH_DISABLE:
        return auth.authDisable();
      case Op.AUTHENTICATE: {
        const { name, simpleToken } = request as InternalAuthenticateRequest;
        return auth.authenticate(name, simpleToken, index);
      }
      case Op.AUTH_USER_ADD:
        return auth.userAdd(request as AuthUserAddRequest);
      case Op.AUTH_USER_DELETE:
        return auth.userDelete(request as AuthUserDeleteRequest);
      case Op.AUTH_USER_CHANGE_PASSWORD:
        return auth.userChangePassword(request as AuthUserChangePasswordRequest);
      case Op.AUTH_USER_GRANT_ROLE:
        return auth.userGrantRole(request as AuthUserGrantRoleRequest);
      case Op.AUTH_USER_REVOKE_ROLE:
        return auth.userRevokeRole(request as AuthUserRevokeRoleRequest);
      case Op.AUTH_ROLE_ADD:
        return auth.roleAdd(request as AuthRoleAddRequest);
      case Op.AUTH_ROLE_DELETE:
        return auth.roleDelete(request as AuthRoleDeleteRequest);
      case Op.AUTH_ROLE_GRANT_PERMISSION:
        return auth.roleGrantPermission(request as AuthRoleGrantPermissionRequest);
      case Op.AUTH_ROLE_REVOKE_PERMISSION:
        return auth.roleRevokePermission(request as AuthRoleRevokePermissionRequest);
      default:
        return null;
    }
  }
}
