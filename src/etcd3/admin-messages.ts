/** The same of members, users and roles, and maintenance. */
import type { AlarmAction, AlarmType, DowngradeAction, Permission } from "./enums.ts";
import type { IResponseHeader } from "./messages.ts";

export interface IMemberAddRequest {
  peerURLs?: string[];
  isLearner?: boolean;
}

export interface IMemberAddResponse {
  header: IResponseHeader;
  member: IMember;
  members: IMember[];
}

export interface IMember {
  ID: string;
  name: string;
  peerURLs: string[];
  clientURLs: string[];
  isLearner: boolean;
}

export interface IMemberRemoveRequest {
  ID?: string | number;
}

export interface IMemberRemoveResponse {
  header: IResponseHeader;
  members: IMember[];
}

export interface IMemberUpdateRequest {
  ID?: string | number;
  peerURLs?: string[];
}

export interface IMemberUpdateResponse {
  header: IResponseHeader;
  members: IMember[];
}

export interface IMemberListRequest {
  linearizable?: boolean;
}

export interface IMemberListResponse {
  header: IResponseHeader;
  members: IMember[];
}

export interface IMemberPromoteRequest {
  ID?: string | number;
}

export interface IMemberPromoteResponse {
  header: IResponseHeader;
  members: IMember[];
}

export interface IAlarmRequest {
  action?: AlarmAction | keyof typeof AlarmAction;
  memberID?: string | number;
  alarm?: AlarmType | keyof typeof AlarmType;
}

export interface IAlarmResponse {
  header: IResponseHeader;
  alarms: IAlarmMember[];
}

export interface IAlarmMember {
  memberID: string;
  alarm: keyof typeof AlarmType;
}

export interface IStatusResponse {
  header: IResponseHeader;
  version: string;
  dbSize: string;
  leader: string;
  raftIndex: string;
  raftTerm: string;
  raftAppliedIndex: string;
  errors: string[];
  dbSizeInUse: string;
  isLearner: boolean;
  storageVersion: string;
  dbSizeQuota: string;
  downgradeInfo: IDowngradeInfo;
}

export interface IDowngradeInfo {
  enabled: boolean;
  targetVersion: string;
}

export interface IDefragmentResponse {
  header: IResponseHeader;
}

export interface IHashResponse {
  header: IResponseHeader;
  hash: number;
}

export interface IHashKVRequest {
  revision?: string | number;
}

export interface IHashKVResponse {
  header: IResponseHeader;
  hash: number;
  compact_revision: string;
  hash_revision: string;
}

export interface ISnapshotResponse {
  header: IResponseHeader;
  remaining_bytes: string;
  blob: Buffer;
  version: string;
}

export interface IMoveLeaderRequest {
  targetID?: string | number;
}

export interface IMoveLeaderResponse {
  header: IResponseHeader;
}

export interface IDowngradeRequest {
  action?: DowngradeAction | keyof typeof DowngradeAction;
  version?: string;
}

export interface IDowngradeResponse {
  header: IResponseHeader;
  version: string;
}

export interface IAuthEnableResponse {
  header: IResponseHeader;
}

export interface IAuthDisableResponse {
  header: IResponseHeader;
}

export interface IAuthStatusResponse {
  header: IResponseHeader;
  enabled: boolean;
  authRevision: string;
}

export interface IAuthenticateRequest {
  name?: string;
  password?: string;
}

export interface IAuthenticateResponse {
  header: IResponseHeader;
  token: string;
}

export interface IAuthUserAddRequest {
  name?: string;
  password?: string;
  options?: IUserAddOptions;
  hashedPassword?: string;
}

export interface IUserAddOptions {
  no_password?: boolean;
}

export interface IAuthUserAddResponse {
  header: IResponseHeader;
}

export interface IAuthUserGetRequest {
  name?: string;
}

export interface IAuthUserGetResponse {
  header: IResponseHeader;
  roles: string[];
}

export interface IAuthUserListResponse {
  header: IResponseHeader;
  users: string[];
}

export interface IAuthUserDeleteRequest {
  name?: string;
}

export interface IAuthUserDeleteResponse {
  header: IResponseHeader;
}

export interface IAuthUserChangePasswordRequest {
  name?: string;
  password?: string;
  hashedPassword?: string;
}

export interface IAuthUserChangePasswordResponse {
  header: IResponseHeader;
}

export interface IAuthUserGrantRoleRequest {
  user?: string;
  role?: string;
}

export interface IAuthUserGrantRoleResponse {
  header: IResponseHeader;
}

export interface IAuthUserRevokeRoleRequest {
  name?: string;
  role?: string;
}

export interface IAuthUserRevokeRoleResponse {
  header: IResponseHeader;
}

export interface IAuthRoleAddRequest {
  name?: string;
}

export interface IAuthRoleAddResponse {
  header: IResponseHeader;
}

export interface IAuthRoleGetRequest {
  role?: string;
}

export interface IAuthRoleGetResponse {
  header: IResponseHeader;
  perm: IPermission[];
}

export interface IPermission {
  permType?: Permission | keyof typeof Permission;
  key?: Buffer;
  range_end?: Buffer;
}

export interface IAuthRoleListResponse {
  header: IResponseHeader;
  roles: string[];
}

export interface IAuthRoleDeleteRequest {
  role?: string;
}

export interface IAuthRoleDeleteResponse {
  header: IResponseHeader;
}

export interface IAuthRoleGrantPermissionRequest {
  name?: string;
  perm?: IPermission;
}

export interface IAuthRoleGrantPermissionResponse {
  header: IResponseHeader;
}

export interface IAuthRoleRevokePermissionRequest {
  role?: string;
  key?: Buffer;
  range_end?: Buffer;
}

export interface IAuthRoleRevokePermissionResponse {
  header: IResponseHeader;
}

export type IStatusRequest = Record<string, never>;

export type IDefragmentRequest = Record<string, never>;

export type IHashRequest = Record<string, never>;

export type ISnapshotRequest = Record<string, never>;

export type IAuthEnableRequest = Record<string, never>;

export type IAuthDisableRequest = Record<string, never>;

export type IAuthStatusRequest = Record<string, never>;

export type IAuthUserListRequest = Record<string, never>;

export type IAuthRoleListRequest = Record<string, never>;
