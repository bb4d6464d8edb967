/**
 * The operations on the replicated state: one map from each operation to its request and its response. It types
 * proposals, appliers and their callers, so that the request or response of another operation does not compile.
 */
import type {
  AlarmRequest,
  AlarmResponse,
  AuthDisableRequest,
  AuthDisableResponse,
  AuthEnableRequest,
  AuthEnableResponse,
  AuthenticateResponse,
  AuthRoleAddRequest,
  AuthRoleAddResponse,
  AuthRoleDeleteRequest,
  AuthRoleDeleteResponse,
  AuthRoleGetRequest,
  AuthRoleGrantPermissionRequest,
  AuthRoleGrantPermissionResponse,
  AuthRoleListRequest,
  AuthRoleRevokePermissionRequest,
  AuthRoleRevokePermissionResponse,
  AuthStatusRequest,
  AuthUserAddRequest,
  AuthUserAddResponse,
  AuthUserChangePasswordRequest,
  AuthUserChangePasswordResponse,
  AuthUserDeleteRequest,
  AuthUserDeleteResponse,
  AuthUserGetRequest,
  AuthUserGrantRoleRequest,
  AuthUserGrantRoleResponse,
  AuthUserListRequest,
  AuthUserRevokeRoleRequest,
  AuthUserRevokeRoleResponse,
  CompactionRequest,
  CompactionResponse,
  DeleteRangeRequest,
  DeleteRangeResponse,
  DowngradeVersionTestRequest,
  InternalAuthenticateRequest,
  InternalRaftRequest,
  LeaseCheckpointRequest,
  LeaseCheckpointResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseRevokeRequest,
  LeaseRevokeResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  ResponseHeader,
  TxnRequest,
  TxnResponse,
} from "../../proto/etcdserverpb.ts";
import type {
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  DowngradeInfoSetRequest,
} from "../../proto/membershippb.ts";
import { Op } from "./op.ts";

interface Operations {
  /** Its bytes are of the v2 API; this is their meaning. */
  [Op.V2]: { request: LegacyOperation; response: Empty };
  [Op.RANGE]: { request: RangeRequest; response: RangeResponse };
  [Op.PUT]: { request: PutRequest; response: PutResponse };
  [Op.DELETE_RANGE]: { request: DeleteRangeRequest; response: DeleteRangeResponse };
  [Op.TXN]: { request: TxnRequest; response: TxnResponse };
  [Op.COMPACTION]: { request: CompactionRequest; response: CompactionResponse };
  [Op.LEASE_GRANT]: { request: LeaseGrantRequest; response: LeaseGrantResponse };
  [Op.LEASE_REVOKE]: { request: LeaseRevokeRequest; response: LeaseRevokeResponse };
  [Op.ALARM]: { request: AlarmRequest; response: AlarmResponse };
  [Op.LEASE_CHECKPOINT]: { request: LeaseCheckpointRequest; response: LeaseCheckpointResponse };
  [Op.AUTH_ENABLE]: { request: AuthEnableRequest; response: AuthEnableResponse };
  [Op.AUTH_DISABLE]: { request: AuthDisableRequest; response: AuthDisableResponse };
  [Op.AUTHENTICATE]: { request: InternalAuthenticateRequest; response: AuthenticateResponse };
  [Op.AUTH_STATUS]: { request: AuthStatusRequest; response: HeaderOnly };
  [Op.AUTH_USER_ADD]: { request: AuthUserAddRequest; response: AuthUserAddResponse };
  [Op.AUTH_USER_DELETE]: { request: AuthUserDeleteRequest; response: AuthUserDeleteResponse };
  [Op.AUTH_USER_GET]: { request: AuthUserGetRequest; response: HeaderOnly };
  [Op.AUTH_USER_CHANGE_PASSWORD]: { request: AuthUserChangePasswordRequest; response: AuthUserChangePasswordResponse };
  [Op.AUTH_USER_GRANT_ROLE]: { request: AuthUserGrantRoleRequest; response: AuthUserGrantRoleResponse };
  [Op.AUTH_USER_REVOKE_ROLE]: { request: AuthUserRevokeRoleRequest; response: AuthUserRevokeRoleResponse };
  [Op.AUTH_USER_LIST]: { request: AuthUserListRequest; response: HeaderOnly };
  [Op.AUTH_ROLE_LIST]: { request: AuthRoleListRequest; response: HeaderOnly };
  [Op.AUTH_ROLE_ADD]: { request: AuthRoleAddRequest; response: AuthRoleAddResponse };
  [Op.AUTH_ROLE_DELETE]: { request: AuthRoleDeleteRequest; response: AuthRoleDeleteResponse };
  [Op.AUTH_ROLE_GET]: { request: AuthRoleGetRequest; response: HeaderOnly };
  [Op.AUTH_ROLE_GRANT_PERMISSION]: {
    request: AuthRoleGrantPermissionRequest;
    response: AuthRoleGrantPermissionResponse;
  };
  [Op.AUTH_ROLE_REVOKE_PERMISSION]: {
    request: AuthRoleRevokePermissionRequest;
    response: AuthRoleRevokePermissionResponse;
  };
  [Op.CLUSTER_VERSION_SET]: { request: ClusterVersionSetRequest; response: Empty };
  [Op.CLUSTER_MEMBER_ATTR_SET]: { request: ClusterMemberAttrSetRequest; response: Empty };
  [Op.DOWNGRADE_INFO_SET]: { request: DowngradeInfoSetRequest; response: Empty };
  [Op.DOWNGRADE_VERSION_TEST]: { request: DowngradeVersionTestRequest; response: Empty };
}

export type RequestOf<O extends Op> = Operations[O]["request"];
export type ResponseOf<O extends Op> = Operations[O]["response"];

/** The response carries no information but success. */
export type Empty = Readonly<Record<string, never>>;
export const EMPTY: Empty = Object.freeze({});

/** Queries change nothing when applied, and are answered elsewhere. */
export interface HeaderOnly {
  header: ResponseHeader | undefined;
}

/** An operation with its request: a union over all `O`, so that checking `op` narrows `request`. */
export type Operation<O extends Op = Op> = {
  [P in O]: { readonly op: P; readonly request: RequestOf<P> };
}[O];

/** The requests that 3.4 members can read only in the v2 API's form. */
export type LegacyOperation = Operation<typeof Op.CLUSTER_VERSION_SET | typeof Op.CLUSTER_MEMBER_ATTR_SET>;

/** The operation in a log entry; undefined when this version knows none in it. The most frequent first. */
export function operationOf(entry: InternalRaftRequest): Operation | undefined {
  if (entry.put !== undefined) return { op: Op.PUT, request: entry.put };
  if (entry.txn !== undefined) return { op: Op.TXN, request: entry.txn };
  if (entry.deleteRange !== undefined) return { op: Op.DELETE_RANGE, request: entry.deleteRange };
  if (entry.range !== undefined) return { op: Op.RANGE, request: entry.range };
  if (entry.compaction !== undefined) return { op: Op.COMPACTION, request: entry.compaction };
  if (entry.leaseGrant !== undefined) return { op: Op.LEASE_GRANT, request: entry.leaseGrant };
  if (entry.leaseRevoke !== undefined) return { op: Op.LEASE_REVOKE, request: entry.leaseRevoke };
  if (entry.leaseCheckpoint !== undefined) return { op: Op.LEASE_CHECKPOINT, request: entry.leaseCheckpoint };
  if (entry.alarm !== undefined) return { op: Op.ALARM, request: entry.alarm };
  return authOperationOf(entry) ?? clusterOperationOf(entry);
}

function authOperationOf(entry: InternalRaftRequest): Operation | undefined {
  if (entry.authenticate !== undefined) return { op: Op.AUTHENTICATE, request: entry.authenticate };
  if (entry.authEnable !== undefined) return { op: Op.AUTH_ENABLE, request: entry.authEnable };
  if (entry.authDisable !== undefined) return { op: Op.AUTH_DISABLE, request: entry.authDisable };
  if (entry.authStatus !== undefined) return { op: Op.AUTH_STATUS, request: entry.authStatus };
  if (entry.authUserAdd !== undefined) return { op: Op.AUTH_USER_ADD, request: entry.authUserAdd };
  if (entry.authUserDelete !== undefined) return { op: Op.AUTH_USER_DELETE, request: entry.authUserDelete };
  if (entry.authUserGet !== undefined) return { op: Op.AUTH_USER_GET, request: entry.authUserGet };
  if (entry.authUserChangePassword !== undefined) {
    return { op: Op.AUTH_USER_CHANGE_PASSWORD, request: entry.authUserChangePassword };
  }
  if (entry.authUserGrantRole !== undefined) return { op: Op.AUTH_USER_GRANT_ROLE, request: entry.authUserGrantRole };
  if (entry.authUserRevokeRole !== undefined) {
    return { op: Op.AUTH_USER_REVOKE_ROLE, request: entry.authUserRevokeRole };
  }
  if (entry.authUserList !== undefined) return { op: Op.AUTH_USER_LIST, request: entry.authUserList };
  if (entry.authRoleList !== undefined) return { op: Op.AUTH_ROLE_LIST, request: entry.authRoleList };
  if (entry.authRoleAdd !== undefined) return { op: Op.AUTH_ROLE_ADD, request: entry.authRoleAdd };
  if (entry.authRoleDelete !== undefined) return { op: Op.AUTH_ROLE_DELETE, request: entry.authRoleDelete };
  if (entry.authRoleGet !== undefined) return { op: Op.AUTH_ROLE_GET, request: entry.authRoleGet };
  if (entry.authRoleGrantPermission !== undefined) {
    return { op: Op.AUTH_ROLE_GRANT_PERMISSION, request: entry.authRoleGrantPermission };
  }
  if (entry.authRoleRevokePermission !== undefined) {
    return { op: Op.AUTH_ROLE_REVOKE_PERMISSION, request: entry.authRoleRevokePermission };
  }
  return undefined;
}

function clusterOperationOf(entry: InternalRaftRequest): Operation | undefined {
  if (entry.clusterVersionSet !== undefined) return { op: Op.CLUSTER_VERSION_SET, request: entry.clusterVersionSet };
  if (entry.clusterMemberAttrSet !== undefined) {
    return { op: Op.CLUSTER_MEMBER_ATTR_SET, request: entry.clusterMemberAttrSet };
  }
  if (entry.downgradeInfoSet !== undefined) return { op: Op.DOWNGRADE_INFO_SET, request: entry.downgradeInfoSet };
  if (entry.downgradeVersionTest !== undefined) {
    return { op: Op.DOWNGRADE_VERSION_TEST, request: entry.downgradeVersionTest };
  }
  return undefined;
}
