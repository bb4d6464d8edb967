import { Code } from "../../base/grpc-codes.ts";
import { type Codec, ProtobufError } from "../../base/protobuf.ts";
import { SliceBudget } from "../../base/slice-budget.ts";
import type { Slices } from "../../base/slices.ts";
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
  RangeRequest_SortOrder as SortOrder,
  TxnRequest,
  TxnResponse,
} from "../../proto/etcdserverpb.ts";
import type { CallInfo, RpcRegistry, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { toEtcdError } from "../../server/apply/apply.ts";
import { comparesRanges, decideInSlices, decidePath } from "../../server/apply/compare.ts";
import { executeReadOnlyInSlices, isLongResponse, mayBeLong } from "../../server/apply/long-apply.ts";
import { PastView } from "../../server/apply/past-view.ts";
import { costOfPut, costOfTxn } from "../../server/apply/quota.ts";
import { executeRange, hasRevisionFilters, isDefaultOrder, isPlainRange } from "../../server/apply/range.ts";
import { ResponseReads } from "../../server/apply/response-reads.ts";
import {
  checkPath,
  checkPathInSlices,
  executeReadOnlyTxn,
  isReadOnly,
  isSerializable,
} from "../../server/apply/txn.ts";
import { EtcdError, errors } from "../../server/contract/errors.ts";
import { READ_SLICE, type ReadSlice } from "../../server/contract/options.ts";
import { checkDeleteRange, checkPut, checkRange, checkTxn, checkTxnInSlices } from "../../server/log/check.ts";
import { Op, opNames } from "../../server/log/op.ts";
import type { RequestOf, ResponseOf } from "../../server/log/operations.ts";
import { type Answer, DeferredAnswer, type Outcome } from "../../server/log/outcome.ts";
import { Proposal } from "../../server/log/proposal.ts";
import { decodeTxnInSlices } from "../../server/log/txn-decode.ts";
import { hasTooManyOps, isLongTxn } from "../../server/log/txn-size.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { AuditLog } from "../audit/audit-log.ts";
import { type Access, refused } from "../calls/access.ts";
import { decodeRequest, failWith, settle } from "../calls/calls.ts";
import { HeaderWriter } from "../calls/header.ts";
import { ReadTiming } from "../calls/read-timing.ts";
import { LongAnswers, readableRevision } from "../range/long-answers.ts";
import { RangeReply } from "../range/reply.ts";
import { SlicedWork } from "../range/sliced-work.ts";
import { PendingRange, PendingTxn, RangeStreamRead, ShortRangeWork } from "./kv-reads.ts";

/** The service KV. Source: etcd `server/etcdserver/api/v3rpc/key.go`. */
export class KvApi {
  readonly server: EtcdServer;
  readonly header: HeaderWriter;
  readonly access: Access;
  /** Answers that may take more than one turn. */
  readonly long: LongAnswers;
  readonly rangeTiming: ReadTiming;
  readonly txnTiming: ReadTiming;
  readonly #rangeReply: RangeReply;
  readonly #limits: ReadSlice;
  readonly #txnReads: ResponseReads;
  readonly #audit: AuditLog | undefined;
  readonly #putReply = Buffer.allocUnsafeSlow(HeaderWriter.BYTES_MAX);

  constructor(server: EtcdServer, header: HeaderWriter, access: Access, audit?: AuditLog) {
    this.#audit = audit;
    this.server = server;
    this.header = header;
    this.access = access;
    this.#limits = server.options.readSlice ?? READ_SLICE;
    this.#txnReads = new ResponseReads(true, this.#limits);
    this.long = new LongAnswers(server, header, access);
    const { clock } = server.options;
    this.rangeTiming = new ReadTiming(clock, server.metrics, "Range", true);
    this.txnTiming = new ReadTiming(clock, server.metrics, "ReadonlyTxn", false);
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
    if (error !== null) return failWith(call, error);
    const startMs = this.rangeTiming.begin();
    if (request.serializable || this.server.replication.canReadNow) this.serveRange(call, request, startMs, startMs);
    else this.server.replication.read(new PendingRange(this, call, request, startMs));
  }

  /** `startMs`: when it arrived; `servedMs`: when what it waited for was there. See ReadTiming. */
  serveRange(call: UnaryCall, request: RangeRequest, startMs: number, servedMs: number): void {
    const timing = this.rangeTiming;
    if (this.access.enabled && refused(call, this.refusalOfRange(call, request))) {
      timing.end(startMs, servedMs, false);
      return;
    }
    this.server.metrics.rangeCount++;
    try {
      const isPlain = isPlainRange(request) && !request.keysOnly;
      if (request.rangeEnd.length > 0) {
        const isShort = isPlain && this.#fitsOneTurn(request);
        if (isShort && !this.server.turns.hasTimeNow) {
          this.long.start(call, new ShortRangeWork(this, call, request, startMs, servedMs));
          return;
        }
        if (isShort) this.serveSeveral(call, request, startMs, servedMs);
        else this.#serveLong(call, request, startMs, servedMs);
        return;
      }
      if (isPlain) {
        const reply = this.#rangeReply;
        reply.begin();
        if (request.countOnly)
          reply.respond(call, false, this.server.store.range(request.key, null, request, ignore).count);
        else reply.respond(call, false, reply.addOne(request.key, request.revision));
      } else {
        const response = executeRange(this.server.store, request);
        this.header.fill(response.header);
        call.respond(RangeResponse.encode(response));
      }
      timing.end(startMs, servedMs, true);
    } catch (error) {
      timing.end(startMs, servedMs, false);
      failWith(call, toEtcdError(error));
    }
  }

  #serveLong(call: UnaryCall, request: RangeRequest, startMs: number, servedMs: number): void {
    const timing = this.rangeTiming;
    this.long.range(call, request, (success) => timing.end(startMs, servedMs, success));
  }

  refusalOfRange(call: CallInfo, request: RangeRequest): EtcdError | null {
    return this.access.checkRead(call, (user) => this.access.permissions.range(user, request));
  }

  /** True when it fits into one turn, as far as the index knows. */
  #fitsOneTurn(request: RangeRequest): boolean {
    const { store } = this.server;
    const { rowsAtOnce } = this.#limits;
    const isCurrent = readableRevision(store, request.revision) === store.currentRevision;
    if (request.countOnly) return isCurrent;
    if (request.limit > 0 && request.limit <= rowsAtOnce) return true;
    // At an older revision, counting must examine every key.
    return isCurrent && store.countLive(request.key, request.rangeEnd) <= rowsAtOnce;
  }

  /** Answers a range of several keys in this turn, or as a long one if it turns out to be long. */
  serveSeveral(call: UnaryCall, request: RangeRequest, startMs: number, servedMs: number): void {
    if (this.#serveShort(call, request)) this.rangeTiming.end(startMs, servedMs, true);
    else this.#serveLong(call, request, startMs, servedMs);
  }

  /** False if it turns out to be long, and is not answered. */
  #serveShort(call: UnaryCall, request: RangeRequest): boolean {
    const { store, turns, options } = this.server;
    const revision = readableRevision(store, request.revision);
    const isCurrent = revision === store.currentRevision;
    const limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    const count = isCurrent ? store.countLive(request.key, request.rangeEnd) : -1;
    const reply = this.#rangeReply;
    reply.begin();
    if (isCurrent && request.countOnly) {
      reply.respond(call, false, count);
      return true;
    }
    const startMs = options.clock.nowMs();
    const cursor = store.cursor({ main: revision, sub: ALL }, request.key, request.rangeEnd, false);
    const isComplete = reply.addRows(cursor, isCurrent ? Math.min(limit, count) : limit);
    turns.spend(options.clock.nowMs() - startMs);
    const total = isCurrent ? count : reply.rows;
    if (!isComplete || !(isCurrent || cursor.done)) return false;
    reply.respond(call, total > reply.rows, total);
    return true;
  }

  #put(call: UnaryCall): void {
    const request = decodeRequest(call, PutRequest);
    if (request === undefined) return;
    const error = checkPut(request);
    if (error !== null) failWith(call, error);
    else if (!this.server.quota.admits(costOfPut(request))) this.#refuseForSpace(call);
    else this.access.propose(call, new PutProposal(this, call, request));
  }

  /** The answer to a put without prevKv is only a header. */
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
    else this.access.propose(call, new WriteProposal(this, call, Op.DELETE_RANGE, request, DeleteRangeResponse));
  }

  #txn(call: UnaryCall): void {
    const { maxTxnOps } = this.server.options;
    if (hasTooManyOps(call.message, maxTxnOps)) return failWith(call, errors.tooManyOps);
    if (isLongTxn(call.message)) return this.#receiveLongTxn(call);
    const request = decodeRequest(call, TxnRequest);
    if (request === undefined) return;
    const error = checkTxn(request, maxTxnOps);
    if (error !== null) failWith(call, error);
    else this.#takeTxn(call, request);
  }

  /** Decodes and checks it in slices. */
  #receiveLongTxn(call: UnaryCall): void {
    const slices = receiveTxn(call.message, this.server.options.maxTxnOps, this.#sliceBudget());
    const onDone = (received: TxnRequest | EtcdError): void => {
      if (received instanceof EtcdError) failWith(call, received);
      else this.#takeTxn(call, received);
    };
    this.long.start(call, new SlicedWork(call, { name: opNames[Op.TXN], slices, pin: null, isApplied: false, onDone }));
  }

  #takeTxn(call: UnaryCall, request: TxnRequest): void {
    if (!this.server.quota.admits(costOfTxn(request))) this.#refuseForSpace(call);
    else if (!isReadOnly(request)) {
      this.access.propose(call, new WriteProposal(this, call, Op.TXN, request, TxnResponse));
    } else {
      const startMs = this.txnTiming.begin();
      if (isSerializable(request) || this.server.replication.canReadNow) this.serveTxn(call, request, startMs);
      else this.server.replication.read(new PendingTxn(this, call, request, startMs));
    }
  }

  serveTxn(call: UnaryCall, request: TxnRequest, startMs: number): void {
    const { store } = this.server;
    if (comparesRanges(request) || mayBeLong(request)) {
      const view = new PastView(store, store.currentRevision);
      const slices = this.#readTxnInSlices(call, request, view);
      const onDone = (outcome: Answer<typeof Op.TXN>): void => this.#respondToTxn(call, outcome, startMs);
      const pin = store.pin(view.point);
      this.long.start(call, new SlicedWork(call, { name: opNames[Op.TXN], slices, pin, isApplied: false, onDone }));
      return;
    }
    try {
      const refusal = this.access.enabled ? this.#refusalOfTxn(call, request) : null;
      this.#respondToTxn(call, refusal ?? this.#readTxn(request), startMs);
    } catch (error) {
      this.#respondToTxn(call, toEtcdError(error), startMs);
    }
  }

  #refusalOfTxn(call: UnaryCall, request: TxnRequest): EtcdError | null {
    return this.access.checkRead(call, (user) => this.access.permissions.txn(user, request));
  }

  /** Executes a read-only transaction. Throws as reads do. */
  #readTxn(request: TxnRequest): Answer<typeof Op.TXN> {
    const { store, lessor } = this.server;
    const path = decidePath(store, request);
    const error = checkPath(store, lessor, request, path);
    if (error !== null) return error;
    const reads = this.#txnReads.begin();
    return reads.complete(executeReadOnlyTxn(store, request, path, reads));
  }

  /** The same in slices, all at the revision at which it began. */
  *#readTxnInSlices(call: UnaryCall, request: TxnRequest, view: PastView): Slices<Answer<typeof Op.TXN>> {
    const { store, lessor, auth } = this.server;
    const budget = this.#sliceBudget();
    const { revision } = auth;
    const refusal = yield* this.access.checkReadInSlices(call, (user) =>
      this.access.permissions.txnInSlices(user, request, budget),
    );
    if (refusal !== null) return refusal;
    const path = yield* decideInSlices(store, request, budget, view);
    const error = yield* checkPathInSlices(view, lessor, request, path, budget);
    if (error !== null) return error;
    const reads = new ResponseReads(true, this.#limits);
    const response = yield* executeReadOnlyInSlices(view, request, path, reads, budget);
    // Permissions may have been revoked meanwhile.
    if (auth.revision !== revision) return errors.authOldRevision;
    return reads.complete(response, isLongResponse(response));
  }

  #respondToTxn(call: UnaryCall, outcome: Answer<typeof Op.TXN>, startMs: number): void {
    this.txnTiming.end(startMs, startMs, !(outcome instanceof EtcdError));
    if (outcome instanceof EtcdError) failWith(call, outcome);
    else if (outcome instanceof DeferredAnswer) this.long.deferred(call, opNames[Op.TXN], outcome, false);
    else {
      this.header.fill(outcome.header);
      call.respond(TxnResponse.encode(outcome));
    }
  }

  #sliceBudget(): SliceBudget {
    return new SliceBudget(this.#limits.entries, this.#limits.bytes);
  }

  #compact(call: UnaryCall): void {
    const request = decodeRequest(call, CompactionRequest);
    if (request === undefined) return;
    const user = this.access.userOf(call);
    if (user instanceof EtcdError) {
      failWith(call, user);
      return;
    }
    const answered = this.server.compact(request, call.message, user).then((outcome) => {
      if (outcome instanceof EtcdError) failWith(call, outcome);
      else {
        outcome.header = this.header.create();
        call.respond(CompactionResponse.encode(outcome));
      }
    });
    settle(call, answered);
  }

  #refuseForSpace(call: UnaryCall): void {
    settle(
      call,
      this.server.raiseNoSpace().then(() => failWith(call, errors.noSpace)),
    );
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
      this.#audit?.about(call, request);
      const error = checkRange(request);
      if (error !== null) call.fail(error.grpcCode, error.message);
      else if (request.sortOrder !== SortOrder.NONE && !isDefaultOrder(request)) {
        call.fail(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders");
      } else if (hasRevisionFilters(request)) {
        call.fail(Code.UNIMPLEMENTED, "RangeStream does not support revision filters");
      } else {
        const read = new RangeStreamRead(this, call, request);
        if (request.serializable) read.serve(null);
        else this.server.replication.read(read);
      }
    };
  }
}

/** Decodes and checks a long transaction. */
function* receiveTxn(message: Uint8Array, maxTxnOps: number, budget: SliceBudget): Slices<TxnRequest | EtcdError> {
  try {
    const request = yield* decodeTxnInSlices(message, budget);
    return (yield* checkTxnInSlices(request, maxTxnOps, budget)) ?? request;
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    return new EtcdError(Code.INTERNAL, `grpc: error unmarshalling request: ${error.message}`);
  }
}

/** A proposed put. */
class PutProposal extends Proposal<typeof Op.PUT> {
  readonly #api: KvApi;
  readonly #call: UnaryCall;

  constructor(api: KvApi, call: UnaryCall, request: PutRequest) {
    super(Op.PUT, request, call.message);
    this.#api = api;
    this.#call = call;
  }

  override get defersReads(): boolean {
    return true;
  }

  protected override answerFailed(error: unknown): void {
    this.#call.crashed(error);
  }

  protected override answer(outcome: Outcome<typeof Op.PUT>): void {
    if (outcome instanceof EtcdError) failWith(this.#call, outcome);
    else this.#api.respondToPut(this.#call, outcome);
  }

  protected override answerDeferred(answer: DeferredAnswer<PutResponse>): void {
    this.#api.long.deferred(this.#call, "Put", answer, true);
  }
}

/** Any other proposed write. */
class WriteProposal<O extends typeof Op.TXN | typeof Op.DELETE_RANGE> extends Proposal<O> {
  readonly #api: KvApi;
  readonly #call: UnaryCall;
  readonly #codec: Codec<ResponseOf<O>>;

  constructor(api: KvApi, call: UnaryCall, op: O, request: RequestOf<O>, codec: Codec<ResponseOf<O>>) {
    super(op, request, call.message);
    this.#api = api;
    this.#call = call;
    this.#codec = codec;
  }

  override get defersReads(): boolean {
    return true;
  }

  protected override answerFailed(error: unknown): void {
    this.#call.crashed(error);
  }

  protected override answer(outcome: Outcome<O>): void {
    if (outcome instanceof EtcdError) {
      failWith(this.#call, outcome);
      return;
    }
    outcome.header = this.#api.header.fill(outcome.header);
    this.#call.respond(this.#codec.encode(outcome));
  }

  protected override answerDeferred(answer: DeferredAnswer<ResponseOf<O>>): void {
    this.#api.long.deferred(this.#call, opNames[this.op], answer, true);
  }
}

const ALL = Number.POSITIVE_INFINITY;
const ignore = (): void => {};
