/**
 * Decodes long transactions in slices: a hundred thousand operations take some 50 ms. The result, and what is refused,
 * are those of the generated decoder, which reads each run of whole fields.
 */
import { Reader } from "../../base/protobuf.ts";
import type { SliceBudget } from "../../base/slice-budget.ts";
import { nextSlice, type Slices } from "../../base/slices.ts";
import { InternalRaftRequest, RequestOp, TxnRequest } from "../../proto/etcdserverpb.ts";
import { INTERNAL_TXN_TAG } from "./txn-size.ts";

/** Throws ProtobufError. */
export function* decodeTxnInSlices(bytes: Uint8Array, budget: SliceBudget): Slices<TxnRequest> {
  const request = TxnRequest.create();
  yield* new TxnDecoder(bytes, budget).txn(bytes.length, request);
  return request;
}

/** The same for a request in the log. */
export function* decodeInternalInSlices(bytes: Uint8Array, budget: SliceBudget): Slices<InternalRaftRequest> {
  const request = InternalRaftRequest.create();
  yield* new TxnDecoder(bytes, budget).internal(bytes.length, request);
  return request;
}

const LENGTH_DELIMITED = 2;
const SUCCESS_TAG = (2 << 3) | LENGTH_DELIMITED;
const FAILURE_TAG = (3 << 3) | LENGTH_DELIMITED;
const REQUEST_TXN_TAG = (4 << 3) | LENGTH_DELIMITED;
/** A shorter operation is decoded at once, whatever it nests. */
const LONG_OP_BYTES = 2048;
/** Bytes of operations that cost as much as one more. */
const BYTES_PER_OP = 64;

/** The methods read up to `end` and leave the reader there, like the generated functions. */
class TxnDecoder {
  readonly #reader: Reader;
  readonly #budget: SliceBudget;

  constructor(bytes: Uint8Array, budget: SliceBudget) {
    // Its own: others decode between the slices.
    this.#reader = new Reader().reset(bytes);
    this.#budget = budget;
  }

  *internal(end: number, into: InternalRaftRequest): Slices<void> {
    const reader = this.#reader;
    while (reader.pos < end) {
      const start = reader.pos;
      const tag = reader.tag();
      if (tag === INTERNAL_TXN_TAG) {
        const stop = reader.nested();
        into.txn ??= TxnRequest.create();
        yield* this.txn(stop, into.txn);
      } else this.#read(InternalRaftRequest, start, tag, into);
    }
  }

  *txn(end: number, into: TxnRequest): Slices<void> {
    const reader = this.#reader;
    const outer = reader.end;
    reader.end = end;
    while (reader.pos < end) {
      const list = this.#run(end, into);
      if (list !== null) {
        const op = RequestOp.create();
        yield* this.#op(reader.nested(), op);
        list.push(op);
      }
      if (this.#budget.isSpent) yield* nextSlice(this.#budget);
    }
    if (reader.pos !== end) reader.overrun(end);
    reader.end = outer;
    reader.depth--;
  }

  /**
   * Reads fields, as many as the budget has. If a long operation follows, returns the list that it belongs to, and the
   * reader stands behind its tag.
   */
  #run(end: number, into: TxnRequest): RequestOp[] | null {
    const reader = this.#reader;
    const budget = this.#budget;
    const start = reader.pos;
    let stop = start;
    while (stop < end && !budget.isSpent) {
      const tag = reader.tag();
      const behindTag = reader.pos;
      reader.skip(tag);
      const length = reader.pos - stop;
      budget.spend(1 + Math.min(length, LONG_OP_BYTES) / BYTES_PER_OP, 0);
      if ((tag === SUCCESS_TAG || tag === FAILURE_TAG) && length > LONG_OP_BYTES) {
        reader.pos = start;
        this.#readRun(stop, into);
        reader.pos = behindTag;
        return tag === SUCCESS_TAG ? into.success : into.failure;
      }
      stop = reader.pos;
    }
    reader.pos = start;
    this.#readRun(stop, into);
    return null;
  }

  #readRun(stop: number, into: TxnRequest): void {
    const reader = this.#reader;
    const { end } = reader;
    // The generated function leaves one level.
    reader.depth++;
    TxnRequest.read(reader, stop, into);
    reader.end = end;
  }

  *#op(end: number, into: RequestOp): Slices<void> {
    const reader = this.#reader;
    const outer = reader.end;
    reader.end = end;
    while (reader.pos < end) {
      const start = reader.pos;
      const tag = reader.tag();
      if (tag === REQUEST_TXN_TAG) {
        const stop = reader.nested();
        into.requestTxn ??= TxnRequest.create();
        yield* this.txn(stop, into.requestTxn);
        into.requestRange = into.requestPut = into.requestDeleteRange = undefined;
      } else this.#read(RequestOp, start, tag, into);
    }
    if (reader.pos !== end) reader.overrun(end);
    reader.end = outer;
    reader.depth--;
  }

  /** Reads the field that starts at `start`, whose tag is read already. */
  #read<T>(codec: { read(reader: Reader, end: number, into?: T): T }, start: number, tag: number, into: T): void {
    const reader = this.#reader;
    const { end } = reader;
    reader.skip(tag);
    const stop = reader.pos;
    reader.pos = start;
    reader.depth++;
    codec.read(reader, stop, into);
    reader.end = end;
  }
}
