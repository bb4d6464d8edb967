import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { DeleteRangeResponse, PutResponse, RangeRequest, RangeResponse } from "../../proto/etcdserverpb.ts";
import type { EtcdError } from "../contract/errors.ts";
import type { Op } from "./op.ts";
import type { ResponseOf } from "./operations.ts";

/** The outcome of an operation for its caller: its response, or the error. */
export type Outcome<O extends Op> = ResponseOf<O> | EtcdError;

/** The same, or a response that the caller must complete. */
export type Answer<O extends Op> = Outcome<O> | DeferredAnswer<ResponseOf<O>>;

/** The result of applying an operation. Null: it was applied, but no response was needed. */
export type Applied<O extends Op> = Answer<O> | null;

/** A response, or a part of one, that holds the result of reads. */
export type ReadingResponse = RangeResponse | DeleteRangeResponse | PutResponse;

/** A read still to be made for a response. */
export interface DeferredRead {
  readonly request: RangeRequest;
  readonly point: ReadPoint;
  /** Keys in the range, if known. */
  readonly count: number | undefined;
}

/** A response whose rest takes more than a turn: the reads still to be made for it, perhaps none, and its encoding. */
export class DeferredAnswer<T> {
  readonly response: T;
  readonly reads: ReadonlyMap<ReadingResponse, DeferredRead>;

  constructor(response: T, reads: ReadonlyMap<ReadingResponse, DeferredRead>) {
    this.response = response;
    this.reads = reads;
  }
}
