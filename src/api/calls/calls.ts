import { isFatal } from "../../base/fatal.ts";
import { Code } from "../../base/grpc-codes.ts";
import { type Codec, ProtobufError } from "../../base/protobuf.ts";
import type { StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { toEtcdError } from "../../server/apply/apply.ts";
import { EtcdError } from "../../server/contract/errors.ts";

/** The common beginning and end of unary handlers. */

/** The decoded request; undefined when the call was already answered with an error. */
export function decodeRequest<T>(call: UnaryCall, codec: Codec<T>): T | undefined {
  try {
    return codec.decode(call.message);
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    call.fail(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
    return undefined;
  }
}

export function failWith(call: { fail(code: number, message: string): void }, error: EtcdError): void {
  call.fail(error.grpcCode, error.message);
}

/** Answers with the error of a failed asynchronous handler. */
export function settle(call: UnaryCall, done: Promise<void>): void {
  done.catch((error: unknown) => failWithAny(call, error));
}

/** The same for a stream: it ends with its handler's error. */
export function settleStream(call: StreamCall, done: Promise<void>): void {
  done.then(
    () => call.end(),
    (error: unknown) => failWithAny(call, error),
  );
}

/**
 * Fails a call with its handler's exception: an operating error with its text; a bug, which is logged for the operator.
 */
export function failWithAny(call: UnaryCall | StreamCall, error: unknown): void {
  if (isFatal(error) || MISTAKES.some((kind) => error instanceof kind)) return call.crashed(error);
  if (!call.cancelled) failWith(call, servingError(error));
}

const MISTAKES = [TypeError, RangeError, ReferenceError];

/** The client's error for an exception while serving it. */
function servingError(error: unknown): EtcdError {
  try {
    return toEtcdError(error);
  } catch {
    return new EtcdError(Code.UNKNOWN, error instanceof Error ? error.message : `${error}`);
  }
}
