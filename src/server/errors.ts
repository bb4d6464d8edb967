/**
 * The one table of etcd's errors: each has its gRPC code and its exact text.
 * Source: etcd v3.7 `api/v3rpc/rpctypes` and the gRPC status codes.
 */

/** gRPC status codes. Source: https://grpc.io/docs/guides/status-codes/ */
export const Code = {
  OK: 0,
  CANCELED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

/** An operating error, as a client sees it. Made once and shared: it carries no stack. */
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
  learnerNotReady: error(Code.FAILED_PRECONDITION, "can only promote a learner member which is in sync with leader"),
  clusterIdMismatch: error(Code.FAILED_PRECONDITION, "cluster ID mismatch"),

  requestTooLarge: error(Code.INVALID_ARGUMENT, "request is too large"),
  tooManyRequests: error(Code.RESOURCE_EXHAUSTED, "too many requests"),

  authNotEnabled: error(Code.FAILED_PRECONDITION, "authentication is not enabled"),

  noLeader: error(Code.UNAVAILABLE, "no leader"),
  notLeader: error(Code.FAILED_PRECONDITION, "not leader"),
  leaderChanged: error(Code.UNAVAILABLE, "leader changed"),
  stopped: error(Code.UNAVAILABLE, "server stopped"),
  timeout: error(Code.UNAVAILABLE, "request timed out"),
  timeoutWaitAppliedIndex: error(Code.UNAVAILABLE, "request timed out, waiting for the applied index took too long"),
  corrupt: error(Code.DATA_LOSS, "corrupt cluster"),
  badLeaderTransferee: error(Code.FAILED_PRECONDITION, "bad leader transferee"),

  wrongDowngradeVersionFormat: error(Code.INVALID_ARGUMENT, "wrong downgrade target version format"),
  invalidDowngradeTargetVersion: error(Code.INVALID_ARGUMENT, "invalid downgrade target version"),
  clusterVersionUnavailable: error(Code.FAILED_PRECONDITION, "cluster version not found during downgrade"),
  downgradeInProcess: error(Code.FAILED_PRECONDITION, "cluster has a downgrade job in progress"),
  noInflightDowngrade: error(Code.FAILED_PRECONDITION, "no inflight downgrade job"),
} as const;
