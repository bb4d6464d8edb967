/** The errors of the module `etcd3`, which its users tell apart by class. */
import { messageOf } from "../base/errors.ts";
import { Code } from "../base/grpc-codes.ts";
import { ClientClosedError as OurClosedError } from "../client/options.ts";
import { RpcError } from "../client/rpc-error.ts";

/** Marks errors after which another attempt may succeed. */
export const RecoverableError: unique symbol = Symbol("recoverable error");

export const isRecoverableError = (error: Error): boolean => Reflect.get(error, RecoverableError) === true;

export class ClientRuntimeError extends Error {}

export class ClientClosedError extends Error {
  constructor(namespace: string) {
    super(`Tried to call a ${namespace} method on a client that was already closed`);
  }
}

export class GRPCGenericError extends Error {}
export class GRPCProtocolError extends GRPCGenericError {}

class Recoverable extends GRPCGenericError {
  [RecoverableError] = true;
}

export class GRPCInternalError extends Recoverable {}
export class GRPCCancelledError extends Recoverable {}
export class GRPCUnknownError extends Recoverable {}
export class GRPCInvalidArgumentError extends GRPCGenericError {}
export class GRPCDeadlineExceededError extends Recoverable {}
export class GRPCNotFoundError extends GRPCGenericError {}
export class GRPCAlreadyExistsError extends GRPCGenericError {}
export class GRPCResourceExhastedError extends Recoverable {}
export class GRPCFailedPreconditionError extends GRPCGenericError {}
export class GRPCAbortedError extends Recoverable {}
export class GRPCNotImplementedError extends GRPCGenericError {}
export class GRPCOutOfRangeError extends GRPCGenericError {}
export class GRPCDataLossError extends GRPCGenericError {}
export class GRPCUnavailableError extends Recoverable {}
export class GRPCUnauthenticatedError extends GRPCGenericError {}

export class EtcdError extends Error {}

export class EtcdLeaseInvalidError extends Error {
  constructor(leaseID: string) {
    super(`Lease ${leaseID} is expired or revoked`);
  }
}

export class EtcdRoleExistsError extends Error {}
export class EtcdUserExistsError extends Error {}
export class EtcdRoleNotGrantedError extends Error {}
export class EtcdRoleNotFoundError extends Error {}
export class EtcdUserNotFoundError extends Error {}
export class EtcdLockFailedError extends Error {}
export class EtcdAuthenticationFailedError extends Error {}
export class EtcdInvalidAuthTokenError extends Error {}
export class EtcdPermissionDeniedError extends Error {}

export class EtcdWatchStreamEnded extends Error {
  constructor() {
    super("The etcd watch stream was unexpectedly ended");
  }
}

export class NotCampaigningError extends Error {}

export class STMConflictError extends Error {
  constructor() {
    super("A conflict occurred executing the software transaction");
  }
}

type ErrorClass = new (message: string) => Error;

const BY_TEXT: readonly (readonly [text: string, error: ErrorClass])[] = [
  ["etcdserver: role name already exists", EtcdRoleExistsError],
  ["etcdserver: user name already exists", EtcdUserExistsError],
  ["etcdserver: role is not granted to the user", EtcdRoleNotGrantedError],
  ["etcdserver: role name not found", EtcdRoleNotFoundError],
  ["etcdserver: user name not found", EtcdUserNotFoundError],
  ["etcdserver: authentication failed, invalid user ID or password", EtcdAuthenticationFailedError],
  ["etcdserver: permission denied", EtcdPermissionDeniedError],
  ["etcdserver: invalid auth token", EtcdInvalidAuthTokenError],
  ["etcdserver: requested lease not found", EtcdLeaseInvalidError],
];

const BY_CODE: ReadonlyMap<number, ErrorClass> = new Map<number, ErrorClass>([
  [Code.CANCELED, GRPCCancelledError],
  [Code.UNKNOWN, GRPCUnknownError],
  [Code.INVALID_ARGUMENT, GRPCInvalidArgumentError],
  [Code.DEADLINE_EXCEEDED, GRPCDeadlineExceededError],
  [Code.NOT_FOUND, GRPCNotFoundError],
  [Code.ALREADY_EXISTS, GRPCAlreadyExistsError],
  [Code.PERMISSION_DENIED, EtcdPermissionDeniedError],
  [Code.RESOURCE_EXHAUSTED, GRPCResourceExhastedError],
  [Code.FAILED_PRECONDITION, GRPCFailedPreconditionError],
  [Code.ABORTED, GRPCAbortedError],
  [Code.OUT_OF_RANGE, GRPCOutOfRangeError],
  [Code.UNIMPLEMENTED, GRPCNotImplementedError],
  [Code.INTERNAL, GRPCInternalError],
  [Code.UNAVAILABLE, GRPCUnavailableError],
  [Code.DATA_LOSS, GRPCDataLossError],
  [Code.UNAUTHENTICATED, GRPCUnauthenticatedError],
]);

/** The error for a text of the server. */
export function castGrpcErrorMessage(message: string): Error {
  const found = BY_TEXT.find(([text]) => message.includes(text));
  return new (found?.[1] ?? EtcdError)(message);
}

/** The error of this module for one of the client; others stay as they are. */
export function castGrpcError(error: unknown): Error {
  if (error instanceof OurClosedError) return new ClientClosedError("client");
  if (!(error instanceof RpcError)) return error instanceof Error ? error : new Error(messageOf(error));
  const [, byText] = BY_TEXT.find(([text]) => error.details.includes(text)) ?? [];
  const made = new (byText ?? BY_CODE.get(error.code) ?? GRPCGenericError)(error.details);
  // Those that were written against grpc-js look at these.
  return Object.assign(made, { code: error.code, details: error.details, maybeApplied: error.maybeApplied });
}
