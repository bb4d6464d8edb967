/**
 * The table of etcd's errors: each has its gRPC code and exact text. Source: etcd v3.7 `api/v3rpc/rpctypes` and the
 * gRPC status codes.
 *
 * How errors are passed, here and in all of `server/` and `api/`:
 *
 * - **A refused or failed request is a value**: an `EtcdError` in an `Outcome`, or instead of null. It is returned,
 *   passed to a callback or resolved to, and the receiver must check it. Refusing costs no more than answering, and
 *   every member gives the same error for the same log entry.
 * - **An exception is a fault, or ends only the operation that threw it.** `fatal` faults (`base/fatal.ts`) end the
 *   process. Any other exception ends the surrounding call, slice of long work or background task, which reports it.
 * - **A function uses one way, not both.** Store and lessor (`CompactedError`, `FutureRevisionError`, `LessorError`)
 *   and requests to other members (`PeerClient`) throw. Their callers convert that to a value at once with
 *   `toEtcdError`, which rethrows anything else. The services Lock and Election are long dialogues with the store, and
 *   throw an EtcdError to end them; `settle` answers with it.
 */
import { KvorumError } from "../../base/errors.ts";
import { Code } from "../../base/grpc-codes.ts";

/** An operating error, as a client sees it. Most are created once and shared, so none has a stack. */
export class EtcdError extends KvorumError {
  override name = "EtcdError";
  readonly code: string;
  readonly grpcCode: Code;

  constructor(grpcCode: Code, message: string, code = "ERR_ETCD") {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(message);
    Error.stackTraceLimit = stackTraceLimit;
    this.grpcCode = grpcCode;
    this.code = code;
  }

  /** Only the text, for logs and clients. */
  override toString(): string {
    return this.message;
  }
}

const error = (code: string, grpcCode: Code, text: string): EtcdError =>
  new EtcdError(grpcCode, `etcdserver: ${text}`, code);

export const errors = {
  emptyKey: error("ERR_ETCD_EMPTY_KEY", Code.INVALID_ARGUMENT, "key is not provided"),
  keyNotFound: error("ERR_ETCD_KEY_NOT_FOUND", Code.INVALID_ARGUMENT, "key not found"),
  valueProvided: error("ERR_ETCD_VALUE_PROVIDED", Code.INVALID_ARGUMENT, "value is provided"),
  leaseProvided: error("ERR_ETCD_LEASE_PROVIDED", Code.INVALID_ARGUMENT, "lease is provided"),
  tooManyOps: error("ERR_ETCD_TOO_MANY_OPS", Code.INVALID_ARGUMENT, "too many operations in txn request"),
  duplicateKey: error("ERR_ETCD_DUPLICATE_KEY", Code.INVALID_ARGUMENT, "duplicate key given in txn request"),
  invalidClientApiVersion: error(
    "ERR_ETCD_INVALID_CLIENT_API_VERSION",
    Code.INVALID_ARGUMENT,
    "invalid client api version",
  ),
  invalidSortOption: error("ERR_ETCD_INVALID_SORT_OPTION", Code.INVALID_ARGUMENT, "invalid sort option"),
  compacted: error("ERR_ETCD_COMPACTED", Code.OUT_OF_RANGE, "mvcc: required revision has been compacted"),
  futureRevision: error("ERR_ETCD_FUTURE_REVISION", Code.OUT_OF_RANGE, "mvcc: required revision is a future revision"),
  noSpace: error("ERR_ETCD_NO_SPACE", Code.RESOURCE_EXHAUSTED, "mvcc: database space exceeded"),

  leaseNotFound: error("ERR_ETCD_LEASE_NOT_FOUND", Code.NOT_FOUND, "requested lease not found"),
  leaseExists: error("ERR_ETCD_LEASE_EXISTS", Code.FAILED_PRECONDITION, "lease already exists"),
  leaseTtlTooLarge: error("ERR_ETCD_LEASE_TTL_TOO_LARGE", Code.OUT_OF_RANGE, "too large lease TTL"),

  watchCanceled: error("ERR_ETCD_WATCH_CANCELED", Code.CANCELED, "watch canceled"),

  memberExists: error("ERR_ETCD_MEMBER_EXISTS", Code.FAILED_PRECONDITION, "member ID already exist"),
  peerUrlExists: error("ERR_ETCD_PEER_URL_EXISTS", Code.FAILED_PRECONDITION, "Peer URLs already exists"),
  memberBadUrls: error("ERR_ETCD_MEMBER_BAD_URLS", Code.INVALID_ARGUMENT, "given member URLs are invalid"),
  memberNotFound: error("ERR_ETCD_MEMBER_NOT_FOUND", Code.NOT_FOUND, "member not found"),
  memberNotLearner: error("ERR_ETCD_MEMBER_NOT_LEARNER", Code.FAILED_PRECONDITION, "can only promote a learner member"),
  notEnoughStarted: error(
    "ERR_ETCD_NOT_ENOUGH_STARTED",
    Code.FAILED_PRECONDITION,
    "re-configuration failed due to not enough started members",
  ),
  learnerNotReady: error(
    "ERR_ETCD_LEARNER_NOT_READY",
    Code.FAILED_PRECONDITION,
    "can only promote a learner member which is in sync with leader",
  ),
  /** For what no client can ask for. */
  malformedConfChange: error(
    "ERR_ETCD_MALFORMED_CONF_CHANGE",
    Code.FAILED_PRECONDITION,
    "configuration change cannot be applied",
  ),
  tooManyLearners: error("ERR_ETCD_TOO_MANY_LEARNERS", Code.FAILED_PRECONDITION, "too many learner members in cluster"),
  notSupportedForLearner: error(
    "ERR_ETCD_NOT_SUPPORTED_FOR_LEARNER",
    Code.FAILED_PRECONDITION,
    "rpc not supported for learner",
  ),
  unhealthy: error("ERR_ETCD_UNHEALTHY", Code.UNAVAILABLE, "unhealthy cluster"),
  clusterIdMismatch: error("ERR_ETCD_CLUSTER_ID_MISMATCH", Code.FAILED_PRECONDITION, "cluster ID mismatch"),

  requestTooLarge: error("ERR_ETCD_REQUEST_TOO_LARGE", Code.INVALID_ARGUMENT, "request is too large"),
  tooManyRequests: error("ERR_ETCD_TOO_MANY_REQUESTS", Code.RESOURCE_EXHAUSTED, "too many requests"),
  // Not etcd's: it reads while it applies.
  appliedUnanswered: error(
    "ERR_ETCD_APPLIED_UNANSWERED",
    Code.UNKNOWN,
    "the request was applied, but what it had read for its answer was compacted before it could be sent",
  ),
  tooManyLongRequests: error(
    "ERR_ETCD_TOO_MANY_LONG_REQUESTS",
    Code.RESOURCE_EXHAUSTED,
    "too many requests: thousands of long reads wait already; ask for less at a time (a limit, pages), or later",
  ),

  // Named as auth/ names its problems.
  rootUserNotExist: error("ERR_ETCD_ROOT_USER_NOT_EXIST", Code.FAILED_PRECONDITION, "root user does not exist"),
  rootRoleNotExist: error(
    "ERR_ETCD_ROOT_ROLE_NOT_EXIST",
    Code.FAILED_PRECONDITION,
    "root user does not have root role",
  ),
  userAlreadyExists: error("ERR_ETCD_USER_ALREADY_EXISTS", Code.FAILED_PRECONDITION, "user name already exists"),
  userEmpty: error("ERR_ETCD_USER_EMPTY", Code.INVALID_ARGUMENT, "user name is empty"),
  userNotFound: error("ERR_ETCD_USER_NOT_FOUND", Code.FAILED_PRECONDITION, "user name not found"),
  roleAlreadyExists: error("ERR_ETCD_ROLE_ALREADY_EXISTS", Code.FAILED_PRECONDITION, "role name already exists"),
  roleNotFound: error("ERR_ETCD_ROLE_NOT_FOUND", Code.FAILED_PRECONDITION, "role name not found"),
  roleEmpty: error("ERR_ETCD_ROLE_EMPTY", Code.INVALID_ARGUMENT, "role name is empty"),
  authFailed: error(
    "ERR_ETCD_AUTH_FAILED",
    Code.INVALID_ARGUMENT,
    "authentication failed, invalid user ID or password",
  ),
  permissionNotGiven: error("ERR_ETCD_PERMISSION_NOT_GIVEN", Code.INVALID_ARGUMENT, "permission not given"),
  permissionDenied: error("ERR_ETCD_PERMISSION_DENIED", Code.PERMISSION_DENIED, "permission denied"),
  roleNotGranted: error("ERR_ETCD_ROLE_NOT_GRANTED", Code.FAILED_PRECONDITION, "role is not granted to the user"),
  permissionNotGranted: error(
    "ERR_ETCD_PERMISSION_NOT_GRANTED",
    Code.FAILED_PRECONDITION,
    "permission is not granted to the role",
  ),
  authNotEnabled: error("ERR_ETCD_AUTH_NOT_ENABLED", Code.FAILED_PRECONDITION, "authentication is not enabled"),
  invalidAuthToken: error("ERR_ETCD_INVALID_AUTH_TOKEN", Code.UNAUTHENTICATED, "invalid auth token"),
  invalidAuthMgmt: error("ERR_ETCD_INVALID_AUTH_MGMT", Code.INVALID_ARGUMENT, "invalid auth management"),
  authOldRevision: error("ERR_ETCD_AUTH_OLD_REVISION", Code.INVALID_ARGUMENT, "revision of auth store is old"),
  // etcd has no code for these and passes their text on as it is.
  noPasswordUser: new EtcdError(
    Code.UNKNOWN,
    "auth: authentication failed, password was given for no password user",
    "ERR_ETCD_NO_PASSWORD_USER",
  ),
  passwordTooLong: new EtcdError(
    Code.UNKNOWN,
    "bcrypt: password length exceeds 72 bytes",
    "ERR_ETCD_PASSWORD_TOO_LONG",
  ),
  verifyOnlyKey: new EtcdError(
    Code.UNKNOWN,
    "auth: token signing attempted with verify-only key",
    "ERR_ETCD_VERIFY_ONLY_KEY",
  ),
  invalidSigningKey: new EtcdError(Code.UNKNOWN, "key is invalid", "ERR_ETCD_INVALID_SIGNING_KEY"),

  noLeader: error("ERR_ETCD_NO_LEADER", Code.UNAVAILABLE, "no leader"),
  notLeader: error("ERR_ETCD_NOT_LEADER", Code.FAILED_PRECONDITION, "not leader"),
  leaderChanged: error("ERR_ETCD_LEADER_CHANGED", Code.UNAVAILABLE, "leader changed"),
  stopped: error("ERR_ETCD_STOPPED", Code.UNAVAILABLE, "server stopped"),
  timeout: error("ERR_ETCD_TIMEOUT", Code.UNAVAILABLE, "request timed out"),
  timeoutLeaderFailed: error(
    "ERR_ETCD_TIMEOUT_LEADER_FAILED",
    Code.UNAVAILABLE,
    "request timed out, possibly due to previous leader failure",
  ),
  timeoutConnectionLost: error(
    "ERR_ETCD_TIMEOUT_CONNECTION_LOST",
    Code.UNAVAILABLE,
    "request timed out, possibly due to connection lost",
  ),
  timeoutWaitApplied: error(
    "ERR_ETCD_TIMEOUT_WAIT_APPLIED",
    Code.UNAVAILABLE,
    "request timed out, waiting for the applied index took too long",
  ),
  // etcd has no code for this one.
  timeoutLeaderTransfer: error(
    "ERR_ETCD_TIMEOUT_LEADER_TRANSFER",
    Code.UNKNOWN,
    "request timed out, leader transfer took too long",
  ),
  corrupt: error("ERR_ETCD_CORRUPT", Code.DATA_LOSS, "corrupt cluster"),
  badLeaderTransferee: error("ERR_ETCD_BAD_LEADER_TRANSFEREE", Code.FAILED_PRECONDITION, "bad leader transferee"),

  wrongDowngradeVersionFormat: error(
    "ERR_ETCD_WRONG_DOWNGRADE_VERSION_FORMAT",
    Code.INVALID_ARGUMENT,
    "wrong downgrade target version format",
  ),
  invalidDowngradeTargetVersion: error(
    "ERR_ETCD_INVALID_DOWNGRADE_TARGET_VERSION",
    Code.INVALID_ARGUMENT,
    "invalid downgrade target version",
  ),
  clusterVersionUnavailable: error(
    "ERR_ETCD_CLUSTER_VERSION_UNAVAILABLE",
    Code.FAILED_PRECONDITION,
    "cluster version not found during downgrade",
  ),
  downgradeInProcess: error(
    "ERR_ETCD_DOWNGRADE_IN_PROCESS",
    Code.FAILED_PRECONDITION,
    "cluster has a downgrade job in progress",
  ),
  noInflightDowngrade: error("ERR_ETCD_NO_INFLIGHT_DOWNGRADE", Code.FAILED_PRECONDITION, "no inflight downgrade job"),
} as const;
