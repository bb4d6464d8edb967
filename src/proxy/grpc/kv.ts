/** The service KV of a proxy. Source: etcd v3.7, server/proxy/grpcproxy/kv.go. */
import { Code } from "../../base/grpc-codes.ts";
import { type Codec, ProtobufError } from "../../base/protobuf.ts";
import { RpcError } from "../../client/rpc-error.ts";
import {
  CompactionRequest,
  DeleteRangeRequest,
  DeleteRangeResponse,
  KVService,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  type RequestOp,
  type ResponseOp,
  TxnRequest,
  TxnResponse,
} from "../../proto/etcdserverpb.ts";
import type { RpcRegistry, UnaryCall } from "../../rpc/contract.ts";
import type { LeasingKv } from "./leasing/leasing.ts";
import type { Namespace } from "./namespace.ts";
import type { RangeCache } from "./range-cache.ts";
import { tokenOf, type Upstream } from "./upstream.ts";

export interface KvProxyOptions {
  readonly upstream: Upstream;
  readonly namespace: Namespace;
  readonly cache: RangeCache;
  /** Serializable reads never go back in time. */
  readonly ordering: boolean;
  /** Holds keys, so that their linearizable reads need no member. */
  readonly leasing: LeasingKv | undefined;
}

const COMPACTED = "etcdserver: mvcc: required revision has been compacted";
const NO_BYTES = new Uint8Array();

export class KvProxy {
  readonly #options: KvProxyOptions;
  /** Serializable reads answered from the cache, and others. */
  hits = 0;
  misses = 0;
  /** The newest revision that an answer was of; for `ordering`. */
  #newestRevision = 0;

  constructor(options: KvProxyOptions) {
    this.#options = options;
  }

  register(rpc: RpcRegistry): void {
    const { upstream } = this.#options;
    rpc.unary(KVService.Range.path, (call) => upstream.answer(call, () => this.#range(call)));
    rpc.unary(KVService.Put.path, (call) => upstream.answer(call, () => this.#put(call)));
    rpc.unary(KVService.DeleteRange.path, (call) => upstream.answer(call, () => this.#deleteRange(call)));
    rpc.unary(KVService.Txn.path, (call) => upstream.answer(call, () => this.#txn(call)));
    rpc.unary(KVService.Compact.path, (call) => upstream.answer(call, () => this.#compact(call)));
    rpc.stream(KVService.RangeStream.path, (call) =>
      call.fail(Code.UNIMPLEMENTED, "RangeStream is not supported by the gRPC proxy"),
    );
  }

  async #range(call: UnaryCall): Promise<Uint8Array> {
    const { upstream, namespace, cache, leasing } = this.#options;
    const asked = decode(RangeRequest, call.message);
    const request = namespace.range(asked);
    const name = `${tokenOf(call) ?? ""}\n${cacheName(request)}`;
    if (request.serializable) {
      if (cache.isCompacted(request.revision)) throw new RpcError(Code.OUT_OF_RANGE, COMPACTED);
      const known = cache.get(name);
      if (known !== undefined) {
        this.hits++;
        return known;
      }
      this.misses++;
    }
    const { state } = cache;
    if (leasing !== undefined) {
      const read = RangeResponse.encode(await leasing.range(call, asked));
      cache.add(name, request, read, state);
      return read;
    }
    const message = namespace.isEmpty ? call.message : RangeRequest.encode(request);
    let answer = await upstream.send(call, KVService.Range, message, { safety: "read" });
    if (this.#options.ordering) answer = await this.#inOrder(call, request, answer);
    if (!namespace.isEmpty) answer = RangeResponse.encode(namespace.rangeAnswer(RangeResponse.decode(answer)));
    // A linearizable answer will do for a serializable read too.
    cache.add(name, request, answer, state);
    return answer;
  }

  /** Asks again, for the newest state, when an answer is older than one before. */
  async #inOrder(call: UnaryCall, request: RangeRequest, answer: Uint8Array): Promise<Uint8Array> {
    const revision = RangeResponse.decode(answer).header?.revision ?? 0;
    if (revision >= this.#newestRevision || request.revision !== 0) {
      this.#newestRevision = Math.max(revision, this.#newestRevision);
      return answer;
    }
    const linearizable = RangeRequest.encode({ ...request, serializable: false });
    const newer = await this.#options.upstream.send(call, KVService.Range, linearizable, { safety: "read" });
    this.#newestRevision = Math.max(this.#newestRevision, RangeResponse.decode(newer).header?.revision ?? 0);
    return newer;
  }

  async #put(call: UnaryCall): Promise<Uint8Array> {
    const { namespace, leasing } = this.#options;
    const asked = decode(PutRequest, call.message);
    const request = namespace.put(asked);
    const span = [request.key, NO_BYTES] as const;
    if (leasing !== undefined) {
      return this.#invalidating(span, async () => PutResponse.encode(await leasing.put(call, asked)));
    }
    const answer = await this.#write(call, KVService.Put, PutRequest, request, span);
    return namespace.isEmpty ? answer : PutResponse.encode(namespace.putAnswer(PutResponse.decode(answer)));
  }

  async #deleteRange(call: UnaryCall): Promise<Uint8Array> {
    const { namespace, leasing } = this.#options;
    const asked = decode(DeleteRangeRequest, call.message);
    const request = namespace.deleteRange(asked);
    const span = [request.key, request.rangeEnd] as const;
    if (leasing !== undefined) {
      return this.#invalidating(span, async () => DeleteRangeResponse.encode(await leasing.deleteRange(call, asked)));
    }
    const answer = await this.#write(call, KVService.DeleteRange, DeleteRangeRequest, request, span);
    if (namespace.isEmpty) return answer;
    return DeleteRangeResponse.encode(namespace.deleteAnswer(DeleteRangeResponse.decode(answer)));
  }

  #write<T>(
    call: UnaryCall,
    method: typeof KVService.Put | typeof KVService.DeleteRange,
    codec: Codec<T>,
    request: T,
    span: readonly [Uint8Array, Uint8Array],
  ): Promise<Uint8Array> {
    const { upstream, namespace } = this.#options;
    return this.#invalidating(span, () => {
      const message = namespace.isEmpty ? call.message : codec.encode(request);
      return upstream.send(call, method, message, { safety: "write" });
    });
  }

  /** Forgets what is known of a span before the write and after it: an answer may have been read in between. */
  async #invalidating(span: readonly [Uint8Array, Uint8Array], write: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const { cache } = this.#options;
    cache.invalidate(...span);
    try {
      return await write();
    } finally {
      cache.invalidate(...span);
    }
  }

  async #txn(call: UnaryCall): Promise<Uint8Array> {
    const { upstream, namespace, cache, leasing } = this.#options;
    const asked = decode(TxnRequest, call.message);
    const request = namespace.txn(asked);
    const spans = [...writtenSpans(request.success), ...writtenSpans(request.failure)];
    for (const span of spans) cache.invalidate(...span);
    const { state } = cache;
    let answer: Uint8Array;
    try {
      // What it compares and reads may be held keys: nothing of it is kept.
      if (leasing !== undefined) return TxnResponse.encode(await leasing.txn(call, asked));
      const message = namespace.isEmpty ? call.message : TxnRequest.encode(request);
      answer = await upstream.send(call, KVService.Txn, message, { safety: spans.length > 0 ? "write" : "read" });
    } finally {
      for (const span of spans) cache.invalidate(...span);
    }
    const response = TxnResponse.decode(answer);
    // What was compared may have changed since it was read.
    for (const { key, rangeEnd } of request.compare) cache.invalidate(key, rangeEnd);
    if (spans.length === 0 && request.compare.length === 0) this.#keepReads(call, request, response, state);
    return namespace.isEmpty ? answer : TxnResponse.encode(namespace.txnAnswer(response));
  }

  #keepReads(call: UnaryCall, request: TxnRequest, response: TxnResponse, state: number): void {
    const { namespace, cache } = this.#options;
    const ops = response.succeeded ? request.success : request.failure;
    response.responses.forEach((op: ResponseOp, i) => {
      const [read, answer] = [ops[i]?.requestRange, op.responseRange];
      if (read === undefined || answer === undefined) return;
      const seen = RangeResponse.encode(namespace.rangeAnswer({ ...answer, header: response.header }));
      cache.add(`${tokenOf(call) ?? ""}\n${cacheName(read)}`, read, seen, state);
    });
  }

  async #compact(call: UnaryCall): Promise<Uint8Array> {
    const { upstream, cache } = this.#options;
    const { revision } = decode(CompactionRequest, call.message);
    const answer = await upstream.send(call, KVService.Compact, call.message, { safety: "write", mayWait: true });
    cache.compact(revision);
    return answer;
  }
}

/** The request, in a form that is the same for linearizable and serializable reads. */
function cacheName(request: RangeRequest): string {
  return RangeRequest.encode({ ...request, serializable: true }).toString("latin1");
}

/** Spans that operations may write, with those that they nest. */
function writtenSpans(ops: readonly RequestOp[]): (readonly [Uint8Array, Uint8Array])[] {
  return ops.flatMap(({ requestPut, requestDeleteRange, requestTxn }) => {
    if (requestPut !== undefined) return [[requestPut.key, NO_BYTES] as const];
    if (requestDeleteRange !== undefined) return [[requestDeleteRange.key, requestDeleteRange.rangeEnd] as const];
    if (requestTxn === undefined) return [];
    return [...writtenSpans(requestTxn.success), ...writtenSpans(requestTxn.failure)];
  });
}

/** Throws RpcError. */
export function decode<T>(codec: Codec<T>, message: Uint8Array): T {
  try {
    return codec.decode(message);
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    throw new RpcError(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
  }
}
