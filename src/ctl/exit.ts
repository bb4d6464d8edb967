/**
 * Exit codes of etcdctl, and the texts of server and transport errors. Source: etcd v3.7, pkg/cobrautl/error.go and
 * client/v3 (toErr).
 */
import { KvorumError } from "../base/errors.ts";
import { systemText } from "../base/system-error.ts";
import type { RpcError } from "../client/raw.ts";

export const EXIT = {
  error: 1,
  badConnection: 2,
  /** Input of txn and watch. */
  invalidInput: 3,
  /** An unsupported flag value. */
  badFeature: 4,
  interrupted: 5,
  badArgs: 128,
  /** A program run for the user was ended by a signal. */
  killed: 255,
} as const;

/** Ends the program with `code` after printing `Error: message`; without a message, everything is already printed. */
export class ExitError extends KvorumError<number> {
  override name = "ExitError";
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** No endpoint answers; the text says why. */
export class ConnectionError extends KvorumError {
  override name = "ConnectionError";
  readonly code = "ERR_CONNECTION";
}

/** An invalid command line. */
export const badArgs = (message: string): ExitError => new ExitError(EXIT.badArgs, message);

export function isRpcError(error: unknown): error is RpcError {
  return error instanceof Error && error.name === "RpcError";
}

/** Whether a request was refused or could not be sent. */
export const isFailure = (error: unknown): error is Error => isRpcError(error) || error instanceof ConnectionError;

const CANCELLED = 1;
const DEADLINE_EXCEEDED = 4;
const UNIMPLEMENTED = 12;
export const PERMISSION_DENIED = 7;
export const UNAVAILABLE = 14;

/** One line: the server's text if there is one. */
export function describeError(error: unknown): string {
  if (isRpcError(error)) {
    // etcd's errors are printed as they are; a call that the server does not have is not one of them.
    if (error.details.startsWith("etcdserver: ") && error.code !== UNIMPLEMENTED) return error.details;
    if (error.code === DEADLINE_EXCEEDED) return "context deadline exceeded";
    if (error.code === CANCELLED) return "context canceled";
    return error.message;
  }
  return systemText(error);
}
