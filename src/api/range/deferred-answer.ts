import { SliceBudget } from "../../base/slice-budget.ts";
import { nextSlice, type Slices } from "../../base/slices.ts";
import { varintSize, writeVarint } from "../../base/varint.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import {
  DeleteRangeResponse,
  PutResponse,
  type RangeResponse,
  ResponseHeader,
  type ResponseOp,
  TxnResponse,
} from "../../proto/etcdserverpb.ts";
import type { ReadSlice } from "../../server/contract/options.ts";
import type { DeferredAnswer, DeferredRead, ReadingResponse } from "../../server/log/outcome.ts";
import { PREV_KVS_TAG, RangeAnswer, RowsAnswer } from "./answer.ts";
import type { MeasuredPart } from "./answer-work.ts";
import { rangeRows, rowsRemembered } from "./rows.ts";

/** A response with pending reads, or with very many parts, as an answer in parts. */
export class AnswerTree {
  readonly parts: MeasuredPart[] = [];
  /** Rows that the parts will hold for sorting. */
  rowsRemembered = 0;
  readonly #response: TxnResponse | DeleteRangeResponse | PutResponse;
  readonly #reads: ReadonlyMap<ReadingResponse, DeferredRead>;
  readonly #partOf = new Map<ReadingResponse, MeasuredPart>();
  readonly #budget: SliceBudget;

  private constructor(answer: DeferredAnswer<TxnResponse | DeleteRangeResponse | PutResponse>, budget: SliceBudget) {
    this.#response = answer.response;
    this.#reads = answer.reads;
    this.#budget = budget;
  }

  static *inSlices(
    store: MvccStore,
    answer: DeferredAnswer<TxnResponse | DeleteRangeResponse | PutResponse>,
    limits: ReadSlice,
  ): Slices<AnswerTree> {
    const tree = new AnswerTree(answer, new SliceBudget(limits.rows, limits.bytes));
    for (const [response, read] of answer.reads) {
      const part = partFor(store, response, read, limits);
      tree.parts.push(part);
      tree.rowsRemembered += rowsRemembered(store, read.request, read.count);
      tree.#partOf.set(response, part);
      yield* tree.#spend();
    }
    return tree;
  }

  /** The complete message in order, once all parts are measured. */
  *assemble(): Slices<readonly (Buffer | MeasuredPart)[]> {
    const out = new Assembly();
    const response = this.#response;
    if ("responses" in response) yield* this.#txn(response, out);
    else this.#reading(response, out);
    return out.pieces;
  }

  *#txn(response: TxnResponse, out: Assembly): Slices<void> {
    out.bytes(TxnResponse.encode({ ...response, responses: [] }));
    let plain: ResponseOp[] = [];
    for (const op of response.responses) {
      const isPlain = this.#isPlain(op);
      if (isPlain) plain.push(op);
      if (!isPlain || plain.length === PLAIN_AT_ONCE) {
        out.ops(plain);
        plain = [];
      }
      if (!isPlain) {
        const inner = new Assembly();
        yield* this.#op(op, inner);
        out.field(TXN_RESPONSES_TAG, inner);
      }
      yield* this.#spend();
    }
    out.ops(plain);
  }

  /** It needs no parts, and is short. */
  #isPlain(op: ResponseOp): boolean {
    if (op.responseTxn === undefined) return !this.#isRead(op);
    const { responses } = op.responseTxn;
    return (
      responses.length <= PLAIN_NESTED && responses.every((one) => one.responseTxn === undefined && !this.#isRead(one))
    );
  }

  #isRead(op: ResponseOp): boolean {
    const reading = readingOf(op);
    return reading !== undefined && this.#reads.has(reading);
  }

  *#spend(): Slices<void> {
    this.#budget.spend(1, 0);
    if (this.#budget.isSpent) yield* nextSlice(this.#budget);
  }

  *#op(op: ResponseOp, out: Assembly): Slices<void> {
    const inner = new Assembly();
    if (op.responseTxn !== undefined) {
      yield* this.#txn(op.responseTxn, inner);
      out.field(OP_TXN_TAG, inner);
      return;
    }
    this.#reading(readingOf(op)!, inner);
    const isRange = op.responseRange !== undefined;
    out.field(isRange ? OP_RANGE_TAG : op.responsePut !== undefined ? OP_PUT_TAG : OP_DELETE_TAG, inner);
  }

  /** A response with the result of its read. */
  #reading(response: ReadingResponse, out: Assembly): void {
    if (isRangeResponse(response)) out.field(HEADER_TAG, Assembly.of(ResponseHeader.encode(response.header!)));
    else if (isDelete(response)) out.bytes(DeleteRangeResponse.encode(response));
    else out.bytes(PutResponse.encode(response));
    out.part(this.#partOf.get(response)!);
  }
}

/** Pieces of a message, and their length. */
class Assembly {
  readonly pieces: (Buffer | MeasuredPart)[] = [];
  length = 0;

  static of(bytes: Uint8Array): Assembly {
    const assembly = new Assembly();
    assembly.bytes(bytes);
    return assembly;
  }

  bytes(bytes: Uint8Array): void {
    this.pieces.push(Buffer.from(bytes));
    this.length += bytes.length;
  }

  /** Responses as fields of a TxnResponse. */
  ops(responses: ResponseOp[]): void {
    if (responses.length > 0) this.bytes(TxnResponse.encode(TxnResponse.create({ responses })));
  }

  part(part: MeasuredPart): void {
    this.pieces.push(part);
    this.length += part.bytes;
  }

  /** A field that holds a nested message. */
  field(tag: number, message: Assembly): void {
    const head = Buffer.alloc(1 + varintSize(message.length));
    head[0] = tag;
    writeVarint(head, 1, message.length);
    this.bytes(head);
    for (const piece of message.pieces) this.pieces.push(piece);
    this.length += message.length;
  }
}

function partFor(
  store: MvccStore,
  response: ReadingResponse,
  { request, point, count }: DeferredRead,
  limits: ReadSlice,
): MeasuredPart {
  if (isRangeResponse(response)) return new RangeAnswer(store, request, point, count, limits);
  return new RowsAnswer(
    isDelete(response) ? PREV_KVS_TAG : PREV_KV_TAG,
    rangeRows(store, request, point, count, limits),
  );
}

const readingOf = (op: ResponseOp): ReadingResponse | undefined =>
  op.responseRange ?? op.responsePut ?? op.responseDeleteRange;
const isRangeResponse = (response: ReadingResponse): response is RangeResponse => "kvs" in response;
const isDelete = (response: ReadingResponse): response is DeleteRangeResponse => "prevKvs" in response;

/** Responses encoded together. */
const PLAIN_AT_ONCE = 500;
/** Responses of a nested transaction that is encoded with others. */
const PLAIN_NESTED = 8;
/** Tags of etcd's messages: the header of every response, and the parts of a transaction's response. */
const HEADER_TAG = 0x0a;
const PREV_KV_TAG = 0x12;
const TXN_RESPONSES_TAG = 0x1a;
const OP_RANGE_TAG = 0x0a;
const OP_PUT_TAG = 0x12;
const OP_DELETE_TAG = 0x1a;
const OP_TXN_TAG = 0x22;
