/** A range by RangeStream, which etcd has from 3.7 on. */
import { Code } from "../base/grpc-codes.ts";
import { KVService, type RangeRequest } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import type { KeyValue, Space } from "./keys.ts";
import { messagesOf } from "./messages.ts";
import { rangeResult } from "./operations.ts";
import type { CallOptions } from "./options.ts";
import { RpcError } from "./rpc-error.ts";

/**
 * Gives the pairs, and in `last` the key up to which they were given. Returns whether that was all: not when the member
 * knows no such call, or failed in the middle; then the rest is to be asked for page by page.
 */
export async function* streamedRange<V, K>(
  caller: Caller,
  space: Space<V, K>,
  request: RangeRequest,
  last: { key: Uint8Array | undefined },
  options: CallOptions,
): AsyncGenerator<KeyValue<V, K>, boolean, undefined> {
  try {
    for await (const { rangeResponse } of messagesOf(caller, KVService.RangeStream, request, options)) {
      if (rangeResponse === undefined) continue;
      const stored = rangeResponse.kvs.at(-1);
      const { kvs } = rangeResult(space, rangeResponse, request.keysOnly);
      for (const kv of kvs) yield kv;
      // A reader that is done with them has seen all of these; an interruption is only noticed between messages.
      if (stored !== undefined) last.key = Buffer.from(stored.key);
    }
    return true;
  } catch (error) {
    // Whatever else was wrong, the requests for the rest repeat or report it.
    if (error instanceof RpcError && !FINAL.has(error.code)) return false;
    throw error;
  }
}

/** Compacted, too late, or ended from this side. */
const FINAL: ReadonlySet<number> = new Set([Code.OUT_OF_RANGE, Code.DEADLINE_EXCEEDED, Code.CANCELED]);
