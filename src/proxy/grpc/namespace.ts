/**
 * `--namespace`: the proxy's clients see the keys below a prefix as if they were all there is. Source: etcd v3.7,
 * client/v3/namespace.
 */
import type {
  Compare,
  DeleteRangeRequest,
  DeleteRangeResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseOp,
  TxnRequest,
  TxnResponse,
} from "../../proto/etcdserverpb.ts";
import type { KeyValue } from "../../proto/mvccpb.ts";

export class Namespace {
  readonly #prefix: Buffer;
  /** The first key behind all keys with the prefix; a zero byte when there is none. */
  readonly #end: Buffer;

  constructor(prefix: string) {
    this.#prefix = Buffer.from(prefix);
    this.#end = endOfPrefix(this.#prefix);
  }

  get isEmpty(): boolean {
    return this.#prefix.length === 0;
  }

  range<R extends Pick<RangeRequest, "key" | "rangeEnd">>(request: R): R {
    return { ...request, ...this.span(request.key, request.rangeEnd) };
  }

  put(request: PutRequest): PutRequest {
    return { ...request, key: this.#inside(request.key) };
  }

  deleteRange(request: DeleteRangeRequest): DeleteRangeRequest {
    return { ...request, ...this.span(request.key, request.rangeEnd) };
  }

  txn(request: TxnRequest): TxnRequest {
    return {
      ...request,
      compare: request.compare.map((compare): Compare => ({ ...compare, ...this.span(compare.key, compare.rangeEnd) })),
      success: request.success.map((op) => this.#op(op)),
      failure: request.failure.map((op) => this.#op(op)),
    };
  }

  /** A range as the cluster knows it. */
  span(key: Uint8Array, rangeEnd: Uint8Array): { readonly key: Uint8Array; readonly rangeEnd: Uint8Array } {
    if (this.isEmpty) return { key, rangeEnd };
    if (rangeEnd.length === 0) return { key: this.#inside(key), rangeEnd };
    const toTheEnd = rangeEnd.length === 1 && rangeEnd[0] === 0;
    return { key: this.#inside(key), rangeEnd: toTheEnd ? this.#end : this.#inside(rangeEnd) };
  }

  rangeAnswer(response: RangeResponse): RangeResponse {
    return { ...response, kvs: response.kvs.map((kv) => this.outside(kv)) };
  }

  putAnswer(response: PutResponse): PutResponse {
    return { ...response, prevKv: response.prevKv === undefined ? undefined : this.outside(response.prevKv) };
  }

  deleteAnswer(response: DeleteRangeResponse): DeleteRangeResponse {
    return { ...response, prevKvs: response.prevKvs.map((kv) => this.outside(kv)) };
  }

  txnAnswer(response: TxnResponse): TxnResponse {
    return { ...response, responses: response.responses.map((op) => this.#opAnswer(op)) };
  }

  /** A pair as the clients know it. */
  outside(kv: KeyValue): KeyValue {
    return { ...kv, key: this.keyOutside(kv.key) };
  }

  keyOutside(key: Uint8Array): Uint8Array {
    return key.subarray(this.#prefix.length);
  }

  /** Whether a key, such as one of a lease, belongs to the clients. */
  has(key: Uint8Array): boolean {
    return key.length >= this.#prefix.length && this.#prefix.equals(key.subarray(0, this.#prefix.length));
  }

  #inside(key: Uint8Array): Uint8Array {
    return this.isEmpty ? key : Buffer.concat([this.#prefix, key]);
  }

  #op(op: RequestOp): RequestOp {
    const { requestRange, requestPut, requestDeleteRange, requestTxn } = op;
    return {
      requestRange: requestRange && this.range(requestRange),
      requestPut: requestPut && this.put(requestPut),
      requestDeleteRange: requestDeleteRange && this.deleteRange(requestDeleteRange),
      requestTxn: requestTxn && this.txn(requestTxn),
    };
  }

  #opAnswer(op: ResponseOp): ResponseOp {
    const { responseRange, responsePut, responseDeleteRange, responseTxn } = op;
    return {
      responseRange: responseRange && this.rangeAnswer(responseRange),
      responsePut: responsePut && this.putAnswer(responsePut),
      responseDeleteRange: responseDeleteRange && this.deleteAnswer(responseDeleteRange),
      responseTxn: responseTxn && this.txnAnswer(responseTxn),
    };
  }
}

/** The first key behind all keys with the prefix; a zero byte when there is none. */
export function endOfPrefix(prefix: Buffer): Buffer {
  for (let at = prefix.length - 1; at >= 0; at--) {
    if (prefix[at]! === 0xff) continue;
    const end = Buffer.from(prefix.subarray(0, at + 1));
    end[at]!++;
    return end;
  }
  return Buffer.from([0]);
}
