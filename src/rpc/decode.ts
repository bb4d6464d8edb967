/** Decodes requests for the hand-written services of this folder. */
import { Code } from "../base/grpc-codes.ts";
import { ProtobufError, Reader } from "../base/protobuf.ts";

/** Decodes a message. If it is invalid, fails the call as grpc-go does and returns undefined. */
export function protobufRequest<T>(
  call: { fail(code: number, message: string): void },
  bytes: Uint8Array,
  read: (reader: Reader) => T,
): T | undefined {
  try {
    return read(new Reader().reset(bytes));
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    call.fail(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
    return undefined;
  }
}
