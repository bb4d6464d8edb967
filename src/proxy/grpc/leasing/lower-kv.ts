/** The KV service that the leasing layer stands on: the members', below the proxy's namespace. */
import type { MethodType } from "../../../base/protobuf.ts";
import {
  KVService,
  type RangeRequest,
  type RangeResponse,
  type TxnRequest,
  type TxnResponse,
} from "../../../proto/etcdserverpb.ts";
import type { UnaryCall } from "../../../rpc/contract.ts";
import type { Namespace } from "../namespace.ts";
import type { Upstream } from "../upstream.ts";

/** All reject with RpcError. */
export interface LowerKv {
  range(call: UnaryCall, request: RangeRequest): Promise<RangeResponse>;
  txn(call: UnaryCall, request: TxnRequest): Promise<TxnResponse>;
}

export function lowerKv(upstream: Upstream, namespace: Namespace): LowerKv {
  const send = async <I, O>(
    call: UnaryCall,
    method: MethodType<I, O>,
    request: I,
    safety: "read" | "write",
  ): Promise<O> => {
    const { request: requests, response: responses } = method;
    return responses.decode(await upstream.send(call, method, requests.encode(request), { safety }));
  };
  return {
    range: async (call, request) =>
      namespace.rangeAnswer(await send(call, KVService.Range, namespace.range(request), "read")),
    txn: async (call, request) => namespace.txnAnswer(await send(call, KVService.Txn, namespace.txn(request), "write")),
  };
}
