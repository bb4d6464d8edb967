import { Code } from "../base/grpc-codes.ts";
import { type Codec, ProtobufError } from "../base/protobuf.ts";
import {
  CompactionRequest,
  CompactionResponse,
  DeleteRangeRequest,
  DeleteRangeResponse,
  KVService,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  RangeStreamResponse,
  type ResponseHeader,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
  TxnRequest,
  TxnResponse,
} from "../proto/etcdserverpb.ts";
import type { CallInfo, RpcRegistry, StreamCall, UnaryCall } from "../rpc/server.ts";
import { Op, type Outcome, toEtcdError } from "../server/apply.ts";
import { checkDeleteRange, checkPut, checkRange, checkTxn } from "../server/check.ts";
import { EtcdError, errors } from "../server/errors.ts";
import { Proposal } from "../server/proposal.ts";
import { costOfPut, costOfTxn } from "../server/quota.ts";
import { executeRange, hasRevisionFilters, isDefaultOrder, isPlainRange, rangeEndOf } from "../server/range.ts";
import type { Read } from "../server/read-queue.ts";
import type { EtcdServer } from "../server/server.ts";
import { checkPath, decidePath, executeReadOnlyTxn, isReadOnly, isSerializable } from "../server/txn.ts";
import { type Access, refused } from "./access.ts";
import { decodeRequest, failWith } from "./calls.ts";
import { HeaderWriter } from "./header.ts";
import { RangeReply } from "./range-reply.ts";
import { SlicedRange } from "./sliced-range.ts";

/** The service KV. Source: etcd `server/etcdserver/api/v3rpc/key.go`. */
export class KvApi {
  readonly server: EtcdServer;
  readonly header: HeaderWriter;
  readonly access: Access;
  #rangeReply: RangeReply;
  readonly #putReply = Buffer.allocUnsafeSlow(HeaderWriter.BYTES_MAX);

  constructor(server: EtcdServer, header: HeaderWriter, access: Access) {
    this.server = server;
    this.header = header;
    this.access = access;
    this.#rangeReply = new RangeReply(server, header);
  }

  register(rpc: RpcRegistry): void {
    rpc.unary(KVService.Range.path, (call) => this.#range(call));
    rpc.unary(KVService.Put.path, (call) => this.#put(call));
    rpc.unary(KVService.DeleteRange.path, (call) => this.#deleteRange(call));
    rpc.unary(KVService.Txn.path, (call) => this.#txn(call));
    rpc.unary(
      KVService.Compact.path,
      this.access.forRoot((call) => this.#compact(call)),
    );
    rpc.stream(KVService.RangeStream.path, (call) => this.#rangeStream(call));
  }

  #range(call: UnaryCall): void {
    const request = decodeRequest(call, RangeRequest);
    if (request === undefined) return;
    const error = checkRange(request);
    if (error !== null) failWith(call, error);
    else if (request.serializable || this.server.canReadNow) this.serveRange(call, request);
    else this.server.read(new PendingRange(this, call, request));
  }

  serveRange(call: UnaryCall, request: RangeRequest): void {
    if (this.access.enabled && refused(call, this.refusalOfRange(call, request))) return;
    this.server.metrics.ranges++;
    try {
      if (isPlainRange(request) && !request.keysOnly) {
        if (SlicedRange.isShort(request)) this.#serveShortRange(call, request);
        else this.#serveSlicedRange(call, request);
        return;
      }
      const response = executeRange(this.server.store, request);
      this.header.fill(response.header);
      call.respond(RangeResponse.encode(response));
    } catch (error) {
      failWith(call, toEtcdError(error));
    }
  }

  refusalOfRange(call: CallInfo, request: RangeRequest): EtcdError | null {
    return this.access.checkRead(call, (user) => this.access.permissions.range(user, request));
  }

  #serveShortRange(call: UnaryCall, request: RangeRequest): void {
    const reply = this.#rangeReply;
    reply.begin();
    const { count, visited } = reply.add(request.key, rangeEndOf(request.rangeEnd), request);
    reply.respond(call, !request.countOnly && request.limit > 0 && count > visited, count);
  }

  #serveSlicedRange(call: UnaryCall, request: RangeRequest): void {
    const range = new SlicedRange(this.server, call, request, this.#rangeReply);
    if (!range.start()) return;
    // The reply is the range's now; the next one needs another.
    this.#rangeReply = new RangeReply(this.server, this.header);
    range.continue();
  }

  #put(call: UnaryCall): void {
    const request = decodeRequest(call, PutRequest);
    if (request === undefined) return;
    const error = checkPut(request);
    if (error !== null) failWith(call, error);
    else if (!this.server.quota.admits(costOfPut(request))) this.#refuseForSpace(call);
    else this.access.propose(call, new PutProposal(this, call, request));
  }

  /** The answer to a put that nobody asked the old value of is a header and nothing else. */
  respondToPut(call: UnaryCall, response: PutResponse): void {
    if (response.prevKv === undefined) {
      const end = this.header.write(this.#putReply, 0, response.header!.revision);
      call.respondSlice(this.#putReply, 0, end);
    } else {
      this.header.fill(response.header);
      call.respond(PutResponse.encode(response));
    }
  }

  #deleteRange(call: UnaryCall): void {
    const request = decodeRequest(call, DeleteRangeRequest);
    if (request === undefined) return;
    const error = checkDeleteRange(request);
    if (error !== null) failWith(call, error);
    else this.access.propose(call, new UnaryProposal(this, call, Op.DELETE_RANGE, request, DeleteRangeResponse));
  }

  #txn(call: UnaryCall): void {
    const request = decodeRequest(call, TxnRequest);
    if (request === undefined) return;
    const error = checkTxn(request, this.server.options.maxTxnOps);
    if (error !== null) failWith(call, error);
    else if (!this.server.quota.admits(costOfTxn(request))) this.#refuseForSpace(call);
    else if (!isReadOnly(request)) {
      this.access.propose(call, new UnaryProposal(this, call, Op.TXN, request, TxnResponse));
    } else if (isSerializable(request) || this.server.canReadNow) this.serveTxn(call, request);
    else this.server.read(new PendingTxn(this, call, request));
  }

  serveTxn(call: UnaryCall, request: TxnRequest): void {
    const { access } = this;
    const refusal = access.enabled ? access.checkRead(call, (user) => access.permissions.txn(user, request)) : null;
    if (refused(call, refusal)) return;
    const { store, lessor } = this.server;
    try {
      const path = decidePath(store, request);
      const error = checkPath(store, lessor, request, path);
      if (error !== null) {
        failWith(call, error);
        return;
      }
      const response = executeReadOnlyTxn(store, store.currentRevision, request, path);
      this.header.fill(response.header);
      call.respond(TxnResponse.encode(response));
    } catch (error) {
      failWith(call, toEtcdError(error));
    }
  }

  #compact(call: UnaryCall): void {
    const request = decodeRequest(call, CompactionRequest);
    if (request === undefined) return;
    const user = this.access.userOf(call);
    if (user instanceof EtcdError) {
      failWith(call, user);
      return;
    }
    void this.server.compact(request, call.message, user).then(
      (outcome) => {
        if (outcome instanceof EtcdError) failWith(call, outcome);
        else {
          const response = outcome as CompactionResponse;
          response.header = this.header.create();
          call.respond(CompactionResponse.encode(response));
        }
      },
      (error: unknown) => failWith(call, new EtcdError(Code.UNKNOWN, `${error}`)),
    );
  }

  #refuseForSpace(call: UnaryCall): void {
    void this.server.raiseNoSpace().then(() => failWith(call, errors.noSpace));
  }

  /** RangeStream: the same reply in pieces near the size of the largest request, all of one revision. */
  #rangeStream(call: StreamCall): void {
    call.onMessage = (message) => {
      let request: RangeRequest;
      try {
        request = RangeRequest.decode(message);
      } catch (error) {
        if (!(error instanceof ProtobufError)) throw error;
        call.fail(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
        return;
      }
      const error = checkRange(request);
      if (error !== null) call.fail(error.code, error.message);
      else if (request.sortOrder !== SortOrder.NONE && !isDefaultOrder(request)) {
        call.fail(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders");
      } else if (hasRevisionFilters(request)) {
        call.fail(Code.UNIMPLEMENTED, "RangeStream does not support revision filters");
      } else {
        const read = new RangeStreamRead(this, call, request);
        if (request.serializable) read.serve(null);
        else this.server.read(read);
      }
    };
  }
}

/** A put on its way through the log. */
class PutProposal extends Proposal {
  readonly #api: KvApi;
  readonly #call: UnaryCall;

  constructor(api: KvApi, call: UnaryCall, request: PutRequest) {
    super(Op.PUT, request, call.message);
    this.#api = api;
    this.#call = call;
  }

  protected override answer(outcome: Outcome): void {
    if (outcome instanceof EtcdError) failWith(this.#call, outcome);
    else this.#api.respondToPut(this.#call, outcome as PutResponse);
  }
}

/** Any other unary request whose response has a header. */
class UnaryProposal<T extends { header: ResponseHeader | undefined }> extends Proposal {
  readonly #api: KvApi;
  readonly #call: UnaryCall;
  readonly #codec: Codec<T>;

  constructor(api: KvApi, call: UnaryCall, op: Op, request: object, codec: Codec<T>) {
    super(op, request, call.message);
    this.#api = api;
    this.#call = call;
    this.#codec = codec;
  }

  protected override answer(outcome: Outcome): void {
    if (outcome instanceof EtcdError) {
      failWith(this.#call, outcome);
      return;
    }
    const response = outcome as T;
    response.header = this.#api.header.fill(response.header);
    this.#call.respond(this.#codec.encode(response));
  }
}

class PendingRange implements Read {
  readonly #api: KvApi;
  readonly #call: UnaryCall;
  readonly #request: RangeRequest;

  constructor(api: KvApi, call: UnaryCall, request: RangeRequest) {
    this.#api = api;
    this.#call = call;
    this.#request = request;
  }

  serve(error: EtcdError | null): void {
    if (error !== null) failWith(this.#call, error);
    else this.#api.serveRange(this.#call, this.#request);
  }
}

class PendingTxn implements Read {
  readonly #api: KvApi;
  readonly #call: UnaryCall;
  readonly #request: TxnRequest;

  constructor(api: KvApi, call: UnaryCall, request: TxnRequest) {
    this.#api = api;
    this.#call = call;
    this.#request = request;
  }

  serve(error: EtcdError | null): void {
    if (error !== null) failWith(this.#call, error);
    else this.#api.serveTxn(this.#call, this.#request);
  }
}

const FIRST_CHUNK_KEYS = 10;

class RangeStreamRead implements Read {
  readonly #api: KvApi;
  readonly #call: StreamCall;
  readonly #request: RangeRequest;
  /** Revision that all pieces are read at, and that the last one tells. */
  #revision = 0;
  #headerRevision = 0;
  #count = 0;
  #chunkKeys = FIRST_CHUNK_KEYS;
  #done = false;
  /** Of what the caller may read; 0 while everybody may read everything. */
  #authRevision = 0;

  constructor(api: KvApi, call: StreamCall, request: RangeRequest) {
    this.#api = api;
    this.#call = call;
    this.#request = request;
    this.#revision = request.revision;
  }

  serve(error: EtcdError | null): void {
    if (error !== null) {
      this.#call.fail(error.code, error.message);
      return;
    }
    if (refused(this.#call, this.#api.refusalOfRange(this.#call, this.#request))) return;
    const { auth } = this.#api.server;
    if (auth.enabled) this.#authRevision = auth.revision;
    this.#call.onDrain = () => this.#pump();
    this.#pump();
  }

  /** Sends pieces until the client's window is full; the rest when it has drained. */
  #pump(): void {
    const { clock } = this.#api.server.options;
    try {
      if (this.#done || this.#call.cancelled) return;
      const drained = this.#sendChunk();
      // One piece a turn, so that a large read does not hold up everyone else.
      if (drained && !this.#done) clock.defer(() => this.#pump());
    } catch (error) {
      this.#done = true;
      const known = toEtcdError(error);
      this.#call.fail(known.code, known.message);
    }
  }

  #sendChunk(): boolean {
    const { server, header } = this.#api;
    const request = this.#request;
    const { store } = server;
    const total = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    const rangeEnd = rangeEndOf(request.rangeEnd);
    if (request.countOnly) {
      const { count } = store.range(request.key, rangeEnd, request, () => {});
      return this.#finish(RangeResponse.create({ header: header.create(), count }));
    }
    // Without an order a target sorts all the same. Those come in one piece: etcd sorts within each piece and goes on after the
    // last of it, which past ten keys leaves out some and repeats others.
    const limit =
      request.sortTarget === SortTarget.KEY ? Math.min(this.#chunkKeys, total - this.#count) : request.limit;
    const piece = executeRange(store, { ...request, revision: this.#revision, limit });
    if (this.#headerRevision === 0) {
      this.#headerRevision = piece.header!.revision;
      if (this.#revision === 0) this.#revision = this.#headerRevision;
    }
    this.#count += piece.kvs.length;
    const response = RangeResponse.create({ kvs: piece.kvs });
    const last = piece.kvs.at(-1);
    if (!piece.more || this.#count >= total || last === undefined) {
      response.header = header.create(this.#headerRevision);
      response.more = piece.more;
      response.count = this.#count + (piece.more ? piece.count - piece.kvs.length : 0);
      return this.#finish(response);
    }
    request.key = Buffer.concat([last.key, ZERO]);
    const encoded = RangeStreamResponse.encode(RangeStreamResponse.create({ rangeResponse: response }));
    this.#chunkKeys = nextChunkKeys(limit, encoded.length, server.options.maxRequestBytes);
    return this.#call.send(encoded);
  }

  #finish(response: RangeResponse): boolean {
    this.#done = true;
    const { auth } = this.#api.server;
    if (this.#authRevision !== 0 && this.#authRevision !== auth.revision) throw errors.authOldRevision;
    this.#call.send(RangeStreamResponse.encode(RangeStreamResponse.create({ rangeResponse: response })));
    this.#call.end();
    return true;
  }
}

const ZERO = Buffer.from([0]);

/** Doubles or halves when the piece missed its size by more than a factor of two. */
function nextChunkKeys(keys: number, bytes: number, targetBytes: number): number {
  if (bytes < targetBytes / 2) return keys * 2;
  return bytes > targetBytes * 2 ? Math.max(1, Math.floor(keys / 2)) : keys;
}
