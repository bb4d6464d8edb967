import { varintSize, writeVarint } from "../../base/varint.ts";
import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import {
  DeleteRangeResponse,
  PutResponse,
  type RangeResponse,
  ResponseHeader,
  ResponseOp,
  TxnResponse,
} from "../../proto/etcdserverpb.ts";
import type { ReadSlice } from "../../server/contract/options.ts";
import type { DeferredAnswer, DeferredRead, ReadingResponse } from "../../server/log/outcome.ts";
import { PREV_KVS_TAG, RangeAnswer, RowsAnswer } from "./answer.ts";
import type { MeasuredPart } from "./answer-work.ts";
import { rangeRows, rowsRemembered } from "./rows.ts";

/** A response with pending reads, as an answer in parts. */
export class AnswerTree {
  readonly parts: MeasuredPart[] = [];
  /** Rows that the parts will hold for sorting. */
  rowsRemembered = 0;
  /** The earliest read point of the parts. */
  readonly point: ReadPoint;
  readonly #response: TxnResponse | DeleteRangeResponse | PutResponse;
  readonly #reads: ReadonlyMap<ReadingResponse, DeferredRead>;
  readonly #partOf = new Map<ReadingResponse, MeasuredPart>();

  constructor(
    store: MvccStore,
    answer: DeferredAnswer<TxnResponse | DeleteRangeResponse | PutResponse>,
    limits: ReadSlice,
  ) {
    this.#response = answer.response;
    this.#reads = answer.reads;
    let point: ReadPoint | undefined;
    for (const [response, read] of answer.reads) {
      const part = partFor(store, response, read, limits);
      this.parts.push(part);
      this.rowsRemembered += rowsRemembered(store, read.request, read.count);
      this.#partOf.set(response, part);
      if (point === undefined || isBefore(read.point, point)) point = read.point;
    }
    this.point = point!;
  }

  /** The complete message in order, once all parts are measured. */
  assemble(): readonly (Buffer | MeasuredPart)[] {
    const out = new Assembly();
    const response = this.#response;
    if ("responses" in response) this.#txn(response, out);
    else this.#reading(response, out);
    return out.pieces;
  }

  #txn(response: TxnResponse, out: Assembly): void {
    out.bytes(TxnResponse.encode({ ...response, responses: [] }));
    for (const op of response.responses) {
      const inner = new Assembly();
      this.#op(op, inner);
      out.field(TXN_RESPONSES_TAG, inner);
    }
  }

  #op(op: ResponseOp, out: Assembly): void {
    const inner = new Assembly();
    if (op.responseTxn !== undefined) {
      this.#txn(op.responseTxn, inner);
      out.field(OP_TXN_TAG, inner);
      return;
    }
    const reading = op.responseRange ?? op.responsePut ?? op.responseDeleteRange;
    if (reading === undefined || !this.#reads.has(reading)) return out.bytes(ResponseOp.encode(op));
    this.#reading(reading, inner);
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

const isRangeResponse = (response: ReadingResponse): response is RangeResponse => "kvs" in response;
const isDelete = (response: ReadingResponse): response is DeleteRangeResponse => "prevKvs" in response;

function isBefore(a: ReadPoint, b: ReadPoint): boolean {
  return a.main < b.main || (a.main === b.main && a.sub < b.sub);
}

/** Tags of etcd's messages: the header of every response, and the parts of a transaction's response. */
const HEADER_TAG = 0x0a;
const PREV_KV_TAG = 0x12;
const TXN_RESPONSES_TAG = 0x1a;
const OP_RANGE_TAG = 0x0a;
const OP_PUT_TAG = 0x12;
const OP_DELETE_TAG = 0x1a;
const OP_TXN_TAG = 0x22;
