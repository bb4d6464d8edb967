/** The error of a gRPC call. */
import { KvorumError } from "../base/errors.ts";
import { CODE_NAMES } from "../base/grpc-codes.ts";

/** The server or the transport failed a call. `code` is a gRPC status code, `details` the server's text. */
export class RpcError extends KvorumError<number> {
  override name = "RpcError";
  readonly code: number;
  readonly details: string;
  /** True when a write may have been carried out all the same: its answer was lost. */
  readonly maybeApplied: boolean;

  constructor(code: number, details: string, maybeApplied = false) {
    super(`rpc error: code = ${CODE_NAMES[code] ?? code} desc = ${details}`);
    this.code = code;
    this.details = details;
    this.maybeApplied = maybeApplied;
  }
}
