/**
 * The table of etcd's errors: each has its gRPC code and exact text. Source: etcd v3.7 `api/v3rpc/rpctypes` and the
 * gRPC status codes.
 */
import { Code } from "../../base/grpc-codes.ts";

/** An operating error, as a client sees it. Created once and shared: it has no stack. */
export class EtcdError {
  readonly code: Code;
  readonly message: string;

  constructor(code: Code, message: string) {
    this.code = code;
    this.message = message;
  }

  toString(): string {
    return this.message;
  }
}

const error = (code: Code, text: string): EtcdError => new EtcdError(code, `etcdserver: ${text}`);

export const errors = {
  emptyKey: error(Code.INVALID_ARGUMENT, "key is not provided"),
  keyNotFound: error(Code.INVALID_ARGUMENT, "key not found"),
  valueProvided: error(Code.INVALID_ARGUMENT, "value is provided"),
  leaseProvided: error(Code.INVALID_ARGUMENT, "lease is provided"),
  tooManyOps: error(Code.INVALID_ARGUMENT, "too many operations in txn request"),
  duplicateKey: error(Code.INVALID_ARGUMENT, "duplicate key given in txn request"),
  invalidClientApiVersion: error(Code.INVALID_ARGUMENT, "invalid client api version"),
  invalidSortOption: error(Code.INVALID_ARGUMENT, "invalid sort option"),
  compacted: error(Code.OUT_OF_RANGE, "mvcc: required revision has been compacted"),
  futureRevision: error(Code.OUT_OF_RANGE, "mvcc: required revision is a future revision"),
  noSpace: error(Code.RESOURCE_EXHAUSTED, "mvcc: database space exceeded"),

  leaseNotFound: error(Code.NOT_FOUND, "requested lease not found"),
  leaseExists: error(Code.FAILED_PRECONDITION, "lease already exists"),
  leaseTtlTooLarge: error(Code.OUT_OF_RANGE, "too large lease TTL"),

  watchCanceled: error(Code.CANCELED, "watch canceled"),

  memberExists: error(Code.FAILED_PRECONDITION, "member ID already exist"),
  peerUrlExists: error(Code.FAILED_PRECONDITION, "Peer URLs already exists"),
  memberBadUrls: error(Code.INVALID_ARGUMENT, "given member URLs are invalid"),
  memberNotFound: error(Code.NOT_FOUND, "member not found"),
  memberNotLearner: error(Code.FAILED_PRECONDITION, "can only promote a learner member"),
  notEnoughStarted: error(Code.FAILED_PRECONDITION, "re-configuration failed due to not enough started members"),
  learnerNotReady: error(Code.FAILED_PRECONDITION, "can only promote a learner member which is in sync with leader"),
  /** For a case that no client request can cause. */
  malformedConfChange: error(Code.FAILED_PRECONDITION, "configuration change cannot be applied"),
  tooManyLearners: error(Code.FAILED_PRECONDITION, "too many learner members in cluster"),
  notSupportedForLearner: error(Code.FAILED_PRECONDITION, "rpc not supported for learner"),
  unhealthy: error(Code.UNAVAILABLE, "unhealthy cluster"),
  clusterIdMismatch: error(Code.FAILED_PRECONDITION, "cluster ID mismatch"),

  requestTooLarge: error(Code.INVALID_ARGUMENT, "request is too large"),
  tooManyRequests: error(Code.RESOURCE_EXHAUSTED, "too many requests"),
  // Not in etcd, which reads while applying.
  appliedUnanswered: error(
    Code.UNKNOWN,
    "the request was applied, but what it had read for its answer was compacted before it could be sent",
  ),
  tooManyLongRequests: error(
    Code.RESOURCE_EXHAUSTED,
    "too many requests: thousands of long reads wait already; ask for less at a time (a limit, pages), or later",
  ),

  // Named as in auth/.
  rootUserNotExist: error(Code.FAILED_PRECONDITION, "root user does not exist"),
  rootRoleNotExist: error(Code.FAILED_PRECONDITION, "root user does not have root role"),
  userAlreadyExists: error(Code.FAILED_PRECONDITION, "user name already exists"),
  userEmpty: error(Code.INVALID_ARGUMENT, "user name is empty"),
  userNotFound: error(Code.FAILED_PRECONDITION, "user name not found"),
  roleAlreadyExists: error(Code.FAILED_PRECONDITION, "role name already exists"),
  roleNotFound: error(Code.FAILED_PRECONDITION, "role name not found"),
  roleEmpty: error(Code.INVALID_ARGUMENT, "role name is empty"),
  authFailed: error(Code.INVALID_ARGUMENT, "authentication failed, invalid user ID or password"),
  permissionNotGiven: error(Code.INVALID_ARGUMENT, "permission not given"),
  permissionDenied: error(Code.PERMISSION_DENIED, "permission denied"),
  roleNotGranted: error(Code.FAILED_PRECONDITION, "role is not granted to the user"),
  permissionNotGranted: error(Code.FAILED_PRECONDITION, "permission is not granted to the role"),
  authNotEnabled: error(Code.FAILED_PRECONDITION, "authentication is not enabled"),
  invalidAuthToken: error(Code.UNAUTHENTICATED, "invalid auth token"),
  invalidAuthMgmt: error(Code.INVALID_ARGUMENT, "invalid auth management"),
  authOldRevision: error(Code.INVALID_ARGUMENT, "revision of auth store is old"),
  // etcd has no code for these and passes their text unchanged.
  noPasswordUser: new EtcdError(Code.UNKNOWN, "auth: authentication failed, password was given for no password user"),
  passwordTooLong: new EtcdError(Code.UNKNOWN, "bcrypt: password length exceeds 72 bytes"),
  verifyOnlyKey: new EtcdError(Code.UNKNOWN, "auth: token signing attempted with verify-only key"),
  invalidSigningKey: new EtcdError(Code.UNKNOWN, "key is invalid"),

  noLeader: error(Code.UNAVAILABLE, "no leader"),
  notLeader: error(Code.FAILED_PRECONDITION, "not leader"),
  leaderChanged: error(Code.UNAVAILABLE, "leader changed"),
  stopped: error(Code.UNAVAILABLE, "server stopped"),
  timeout: error(Code.UNAVAILABLE, "request timed out"),
  timeoutLeaderFailed: error(Code.UNAVAILABLE, "request timed out, possibly due to previous leader failure"),
  timeoutConnectionLost: error(Code.UNAVAILABLE, "request timed out, possibly due to connection lost"),
  timeoutWaitApplied: error(Code.UNAVAILABLE, "request timed out, waiting for the applied index took too long"),
  // etcd has no code for this one.
  timeoutLeaderTransfer: error(Code.UNKNOWN, "request timed out, leader transfer took too long"),
  corrupt: error(Code.DATA_LOSS, "corrupt cluster"),
  badLeaderTransferee: error(Code.FAILED_PRECONDITION, "bad leader transferee"),

  wrongDowngradeVersionFormat: error(Code.INVALID_ARGUMENT, "wrong downgrade target version format"),
  invalidDowngradeTargetVersion: error(Code.INVALID_ARGUMENT, "invalid downgrade target version"),
  clusterVersionUnavailable: error(Code.FAILED_PRECONDITION, "cluster version not found during downgrade"),
  downgradeInProcess: error(Code.FAILED_PRECONDITION, "cluster has a downgrade job in progress"),
  noInflightDowngrade: error(Code.FAILED_PRECONDITION, "no inflight downgrade job"),
} as const;
