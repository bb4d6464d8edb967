/** The services as the module `etcd3` has them: one method for each call, requests and responses as in the .proto files. */
import type {
  IAlarmRequest,
  IAlarmResponse,
  IAuthDisableResponse,
  IAuthEnableResponse,
  IAuthenticateRequest,
  IAuthenticateResponse,
  IAuthRoleAddRequest,
  IAuthRoleAddResponse,
  IAuthRoleDeleteRequest,
  IAuthRoleDeleteResponse,
  IAuthRoleGetRequest,
  IAuthRoleGetResponse,
  IAuthRoleGrantPermissionRequest,
  IAuthRoleGrantPermissionResponse,
  IAuthRoleListResponse,
  IAuthRoleRevokePermissionRequest,
  IAuthRoleRevokePermissionResponse,
  IAuthStatusResponse,
  IAuthUserAddRequest,
  IAuthUserAddResponse,
  IAuthUserChangePasswordRequest,
  IAuthUserChangePasswordResponse,
  IAuthUserDeleteRequest,
  IAuthUserDeleteResponse,
  IAuthUserGetRequest,
  IAuthUserGetResponse,
  IAuthUserGrantRoleRequest,
  IAuthUserGrantRoleResponse,
  IAuthUserListResponse,
  IAuthUserRevokeRoleRequest,
  IAuthUserRevokeRoleResponse,
  IDefragmentResponse,
  IDowngradeRequest,
  IDowngradeResponse,
  IHashKVRequest,
  IHashKVResponse,
  IHashResponse,
  IMemberAddRequest,
  IMemberAddResponse,
  IMemberListRequest,
  IMemberListResponse,
  IMemberPromoteRequest,
  IMemberPromoteResponse,
  IMemberRemoveRequest,
  IMemberRemoveResponse,
  IMemberUpdateRequest,
  IMemberUpdateResponse,
  IMoveLeaderRequest,
  IMoveLeaderResponse,
  IStatusResponse,
} from "./admin-messages.ts";
import type {
  ICompactionRequest,
  ICompactionResponse,
  IDeleteRangeRequest,
  IDeleteRangeResponse,
  ILeaseGrantRequest,
  ILeaseGrantResponse,
  ILeaseLeasesResponse,
  ILeaseRevokeRequest,
  ILeaseRevokeResponse,
  ILeaseTimeToLiveRequest,
  ILeaseTimeToLiveResponse,
  IPutRequest,
  IPutResponse,
  IRangeRequest,
  IRangeResponse,
  ITxnRequest,
  ITxnResponse,
} from "./messages.ts";
import type { CallOptions } from "./options.ts";
import type { ICallable } from "./pool.ts";

class ServiceClient {
  protected readonly callable: ICallable;

  constructor(callable: ICallable) {
    this.callable = callable;
  }
}

export class KVClient extends ServiceClient {
  range(request: IRangeRequest, options?: CallOptions): Promise<IRangeResponse> {
    return this.callable.exec("KV", "range", request, options);
  }

  put(request: IPutRequest, options?: CallOptions): Promise<IPutResponse> {
    return this.callable.exec("KV", "put", request, options);
  }

  deleteRange(request: IDeleteRangeRequest, options?: CallOptions): Promise<IDeleteRangeResponse> {
    return this.callable.exec("KV", "deleteRange", request, options);
  }

  txn(request: ITxnRequest, options?: CallOptions): Promise<ITxnResponse> {
    return this.callable.exec("KV", "txn", request, options);
  }

  compact(request: ICompactionRequest, options?: CallOptions): Promise<ICompactionResponse> {
    return this.callable.exec("KV", "compact", request, options);
  }
}

export class LeaseClient extends ServiceClient {
  leaseGrant(request: ILeaseGrantRequest, options?: CallOptions): Promise<ILeaseGrantResponse> {
    return this.callable.exec("Lease", "leaseGrant", request, options);
  }

  leaseRevoke(request: ILeaseRevokeRequest, options?: CallOptions): Promise<ILeaseRevokeResponse> {
    return this.callable.exec("Lease", "leaseRevoke", request, options);
  }

  leaseTimeToLive(request: ILeaseTimeToLiveRequest, options?: CallOptions): Promise<ILeaseTimeToLiveResponse> {
    return this.callable.exec("Lease", "leaseTimeToLive", request, options);
  }

  leaseLeases(options?: CallOptions): Promise<ILeaseLeasesResponse> {
    return this.callable.exec("Lease", "leaseLeases", {}, options);
  }
}

export class ClusterClient extends ServiceClient {
  memberAdd(request: IMemberAddRequest, options?: CallOptions): Promise<IMemberAddResponse> {
    return this.callable.exec("Cluster", "memberAdd", request, options);
  }

  memberRemove(request: IMemberRemoveRequest, options?: CallOptions): Promise<IMemberRemoveResponse> {
    return this.callable.exec("Cluster", "memberRemove", request, options);
  }

  memberUpdate(request: IMemberUpdateRequest, options?: CallOptions): Promise<IMemberUpdateResponse> {
    return this.callable.exec("Cluster", "memberUpdate", request, options);
  }

  memberList(request: IMemberListRequest, options?: CallOptions): Promise<IMemberListResponse> {
    return this.callable.exec("Cluster", "memberList", request, options);
  }

  memberPromote(request: IMemberPromoteRequest, options?: CallOptions): Promise<IMemberPromoteResponse> {
    return this.callable.exec("Cluster", "memberPromote", request, options);
  }
}

export class MaintenanceClient extends ServiceClient {
  alarm(request: IAlarmRequest, options?: CallOptions): Promise<IAlarmResponse> {
    return this.callable.exec("Maintenance", "alarm", request, options);
  }

  status(options?: CallOptions): Promise<IStatusResponse> {
    return this.callable.exec("Maintenance", "status", {}, options);
  }

  defragment(options?: CallOptions): Promise<IDefragmentResponse> {
    return this.callable.exec("Maintenance", "defragment", {}, options);
  }

  hash(options?: CallOptions): Promise<IHashResponse> {
    return this.callable.exec("Maintenance", "hash", {}, options);
  }

  hashKV(request: IHashKVRequest, options?: CallOptions): Promise<IHashKVResponse> {
    return this.callable.exec("Maintenance", "hashKV", request, options);
  }

  moveLeader(request: IMoveLeaderRequest, options?: CallOptions): Promise<IMoveLeaderResponse> {
    return this.callable.exec("Maintenance", "moveLeader", request, options);
  }

  downgrade(request: IDowngradeRequest, options?: CallOptions): Promise<IDowngradeResponse> {
    return this.callable.exec("Maintenance", "downgrade", request, options);
  }
}

export class AuthClient extends ServiceClient {
  authEnable(options?: CallOptions): Promise<IAuthEnableResponse> {
    return this.callable.exec("Auth", "authEnable", {}, options);
  }

  authDisable(options?: CallOptions): Promise<IAuthDisableResponse> {
    return this.callable.exec("Auth", "authDisable", {}, options);
  }

  authStatus(options?: CallOptions): Promise<IAuthStatusResponse> {
    return this.callable.exec("Auth", "authStatus", {}, options);
  }

  authenticate(request: IAuthenticateRequest, options?: CallOptions): Promise<IAuthenticateResponse> {
    return this.callable.exec("Auth", "authenticate", request, options);
  }

  userAdd(request: IAuthUserAddRequest, options?: CallOptions): Promise<IAuthUserAddResponse> {
    return this.callable.exec("Auth", "userAdd", request, options);
  }

  userGet(request: IAuthUserGetRequest, options?: CallOptions): Promise<IAuthUserGetResponse> {
    return this.callable.exec("Auth", "userGet", request, options);
  }

  userList(options?: CallOptions): Promise<IAuthUserListResponse> {
    return this.callable.exec("Auth", "userList", {}, options);
  }

  userDelete(request: IAuthUserDeleteRequest, options?: CallOptions): Promise<IAuthUserDeleteResponse> {
    return this.callable.exec("Auth", "userDelete", request, options);
  }

  userChangePassword(
    request: IAuthUserChangePasswordRequest,
    options?: CallOptions,
  ): Promise<IAuthUserChangePasswordResponse> {
    return this.callable.exec("Auth", "userChangePassword", request, options);
  }

  userGrantRole(request: IAuthUserGrantRoleRequest, options?: CallOptions): Promise<IAuthUserGrantRoleResponse> {
    return this.callable.exec("Auth", "userGrantRole", request, options);
  }

  userRevokeRole(request: IAuthUserRevokeRoleRequest, options?: CallOptions): Promise<IAuthUserRevokeRoleResponse> {
    return this.callable.exec("Auth", "userRevokeRole", request, options);
  }

  roleAdd(request: IAuthRoleAddRequest, options?: CallOptions): Promise<IAuthRoleAddResponse> {
    return this.callable.exec("Auth", "roleAdd", request, options);
  }

  roleGet(request: IAuthRoleGetRequest, options?: CallOptions): Promise<IAuthRoleGetResponse> {
    return this.callable.exec("Auth", "roleGet", request, options);
  }

  roleList(options?: CallOptions): Promise<IAuthRoleListResponse> {
    return this.callable.exec("Auth", "roleList", {}, options);
  }

  roleDelete(request: IAuthRoleDeleteRequest, options?: CallOptions): Promise<IAuthRoleDeleteResponse> {
    return this.callable.exec("Auth", "roleDelete", request, options);
  }

  roleGrantPermission(
    request: IAuthRoleGrantPermissionRequest,
    options?: CallOptions,
  ): Promise<IAuthRoleGrantPermissionResponse> {
    return this.callable.exec("Auth", "roleGrantPermission", request, options);
  }

  roleRevokePermission(
    request: IAuthRoleRevokePermissionRequest,
    options?: CallOptions,
  ): Promise<IAuthRoleRevokePermissionResponse> {
    return this.callable.exec("Auth", "roleRevokePermission", request, options);
  }
}
