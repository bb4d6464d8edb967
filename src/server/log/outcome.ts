import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { DeleteRangeResponse, PutResponse, RangeRequest, RangeResponse } from "../../proto/etcdserverpb.ts";
import type { EtcdError } from "../contract/errors.ts";
import type { Op } from "./op.ts";
import type { ResponseOf } from "./operations.ts";

/** What came of an operation, as who asked for it hears it: its response, or why there is none. */
export type Outcome<O extends Op> = ResponseOf<O> | EtcdError;

/** The same, or a response that who asked has to complete. */
export type Answer<O extends Op> = Outcome<O> | DeferredAnswer<ResponseOf<O>>;

/** What applying an operation gives. Null: it was applied, and nobody waits for a response, so none was made. */
export type Applied<O extends Op> = Answer<O> | null;

/** A response, or a part of one, that reads go into. */
export type ReadingResponse = RangeResponse | DeleteRangeResponse | PutResponse;

/** A read to be made for a response. */
export interface DeferredRead {
  readonly request: RangeRequest;
  readonly point: ReadPoint;
  /** Keys in the range, where that is known. */
  readonly count: number | undefined;
}

/** A response that lacks what is still to be read for its parts. */
export class DeferredAnswer<T> {
  readonly response: T;
  readonly reads: ReadonlyMap<ReadingResponse, DeferredRead>;

  constructor(response: T, reads: ReadonlyMap<ReadingResponse, DeferredRead>) {
    this.response = response;
    this.reads = reads;
  }
}
