import type { InternalRaftRequest } from "../../proto/etcdserverpb.ts";
import type { EtcdError } from "../contract/errors.ts";

/** The field of InternalRaftRequest that a request travels in, which is also its kind. */
export const Op = {
  /** A request of the v2 API, with which members of 3.4 tell of themselves. */
  V2: 2,
  RANGE: 3,
  PUT: 4,
  DELETE_RANGE: 5,
  TXN: 6,
  COMPACTION: 7,
  LEASE_GRANT: 8,
  LEASE_REVOKE: 9,
  ALARM: 10,
  LEASE_CHECKPOINT: 11,
  AUTH_ENABLE: 1000,
  AUTH_DISABLE: 1011,
  AUTHENTICATE: 1012,
  AUTH_STATUS: 1013,
  AUTH_USER_ADD: 1100,
  AUTH_USER_DELETE: 1101,
  AUTH_USER_GET: 1102,
  AUTH_USER_CHANGE_PASSWORD: 1103,
  AUTH_USER_GRANT_ROLE: 1104,
  AUTH_USER_REVOKE_ROLE: 1105,
  AUTH_USER_LIST: 1106,
  AUTH_ROLE_LIST: 1107,
  AUTH_ROLE_ADD: 1200,
  AUTH_ROLE_DELETE: 1201,
  AUTH_ROLE_GET: 1202,
  AUTH_ROLE_GRANT_PERMISSION: 1203,
  AUTH_ROLE_REVOKE_PERMISSION: 1204,
  CLUSTER_VERSION_SET: 1300,
  CLUSTER_MEMBER_ATTR_SET: 1301,
  DOWNGRADE_INFO_SET: 1302,
  DOWNGRADE_VERSION_TEST: 9900,
} as const;
export type Op = (typeof Op)[keyof typeof Op];

/** Names of the requests in metrics and logs. */
export const opNames: Readonly<Record<Op, string>> = {
  [Op.V2]: "V2",
  [Op.RANGE]: "Range",
  [Op.PUT]: "Put",
  [Op.DELETE_RANGE]: "DeleteRange",
  [Op.TXN]: "Txn",
  [Op.COMPACTION]: "Compaction",
  [Op.LEASE_GRANT]: "LeaseGrant",
  [Op.LEASE_REVOKE]: "LeaseRevoke",
  [Op.ALARM]: "Alarm",
  [Op.LEASE_CHECKPOINT]: "LeaseCheckpoint",
  [Op.AUTH_ENABLE]: "AuthEnable",
  [Op.AUTH_DISABLE]: "AuthDisable",
  [Op.AUTHENTICATE]: "Authenticate",
  [Op.AUTH_STATUS]: "AuthStatus",
  [Op.AUTH_USER_ADD]: "AuthUserAdd",
  [Op.AUTH_USER_DELETE]: "AuthUserDelete",
  [Op.AUTH_USER_GET]: "AuthUserGet",
  [Op.AUTH_USER_CHANGE_PASSWORD]: "AuthUserChangePassword",
  [Op.AUTH_USER_GRANT_ROLE]: "AuthUserGrantRole",
  [Op.AUTH_USER_REVOKE_ROLE]: "AuthUserRevokeRole",
  [Op.AUTH_USER_LIST]: "AuthUserList",
  [Op.AUTH_ROLE_LIST]: "AuthRoleList",
  [Op.AUTH_ROLE_ADD]: "AuthRoleAdd",
  [Op.AUTH_ROLE_DELETE]: "AuthRoleDelete",
  [Op.AUTH_ROLE_GET]: "AuthRoleGet",
  [Op.AUTH_ROLE_GRANT_PERMISSION]: "AuthRoleGrantPermission",
  [Op.AUTH_ROLE_REVOKE_PERMISSION]: "AuthRoleRevokePermission",
  [Op.CLUSTER_VERSION_SET]: "ClusterVersionSet",
  [Op.CLUSTER_MEMBER_ATTR_SET]: "ClusterMemberAttrSet",
  [Op.DOWNGRADE_INFO_SET]: "DowngradeInfoSet",
  [Op.DOWNGRADE_VERSION_TEST]: "DowngradeVersionTest",
};

/** What a committed request did: its response, or the error that the client gets. */
export type Outcome = object | EtcdError;

/** The request in a log entry and its kind; undefined when there is none that this version knows. */
export function opOf(internal: InternalRaftRequest): [Op, object] | undefined {
  for (const [op, field] of FIELDS) {
    const request = internal[field];
    if (request !== undefined) return [op, request as object];
  }
  return undefined;
}

/** The most frequent first. */
const FIELDS: readonly (readonly [Op, keyof InternalRaftRequest])[] = [
  [Op.PUT, "put"],
  [Op.TXN, "txn"],
  [Op.DELETE_RANGE, "deleteRange"],
  [Op.RANGE, "range"],
  [Op.COMPACTION, "compaction"],
  [Op.LEASE_GRANT, "leaseGrant"],
  [Op.LEASE_REVOKE, "leaseRevoke"],
  [Op.LEASE_CHECKPOINT, "leaseCheckpoint"],
  [Op.ALARM, "alarm"],
  [Op.AUTHENTICATE, "authenticate"],
  [Op.AUTH_ENABLE, "authEnable"],
  [Op.AUTH_DISABLE, "authDisable"],
  [Op.AUTH_STATUS, "authStatus"],
  [Op.AUTH_USER_ADD, "authUserAdd"],
  [Op.AUTH_USER_DELETE, "authUserDelete"],
  [Op.AUTH_USER_GET, "authUserGet"],
  [Op.AUTH_USER_CHANGE_PASSWORD, "authUserChangePassword"],
  [Op.AUTH_USER_GRANT_ROLE, "authUserGrantRole"],
  [Op.AUTH_USER_REVOKE_ROLE, "authUserRevokeRole"],
  [Op.AUTH_USER_LIST, "authUserList"],
  [Op.AUTH_ROLE_LIST, "authRoleList"],
  [Op.AUTH_ROLE_ADD, "authRoleAdd"],
  [Op.AUTH_ROLE_DELETE, "authRoleDelete"],
  [Op.AUTH_ROLE_GET, "authRoleGet"],
  [Op.AUTH_ROLE_GRANT_PERMISSION, "authRoleGrantPermission"],
  [Op.AUTH_ROLE_REVOKE_PERMISSION, "authRoleRevokePermission"],
  [Op.CLUSTER_VERSION_SET, "clusterVersionSet"],
  [Op.CLUSTER_MEMBER_ATTR_SET, "clusterMemberAttrSet"],
  [Op.DOWNGRADE_INFO_SET, "downgradeInfoSet"],
  [Op.DOWNGRADE_VERSION_TEST, "downgradeVersionTest"],
];
