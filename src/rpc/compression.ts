/** gzip of gRPC messages. A message is bounded before and after: nothing decompresses to more than the receive limit. */
import { gunzipSync, gzipSync } from "node:zlib";
import { Code } from "../base/grpc-codes.ts";

export const GZIP = "gzip";

/** The message, or why it cannot be had, in grpc-go's words. */
export function gunzip(message: Uint8Array, bytesMax: number): Buffer | { code: number; message: string } {
  try {
    return gunzipSync(message, { maxOutputLength: Math.max(1, bytesMax) });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ERR_BUFFER_TOO_LARGE") {
      return {
        code: Code.RESOURCE_EXHAUSTED,
        message: `grpc: received message after decompression larger than max ${bytesMax}`,
      };
    }
    const text = (error as Error).message;
    if (text === "incorrect header check") {
      return { code: Code.INTERNAL, message: "grpc: failed to decompress the message: gzip: invalid header" };
    }
    const reason = text === "unexpected end of file" ? "unexpected EOF" : text;
    return { code: Code.INTERNAL, message: `grpc: failed to read decompressed data: ${reason}` };
  }
}

export function gzip(message: Uint8Array): Buffer {
  return gzipSync(message);
}
