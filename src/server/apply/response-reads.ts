import type { ReadView } from "../../mvcc/model/types.ts";
import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import { RangeRequest, RangeResponse, ResponseHeader } from "../../proto/etcdserverpb.ts";
import type { KeyValue } from "../../proto/mvccpb.ts";
import type { ReadSlice } from "../contract/options.ts";
import { DeferredAnswer, type DeferredRead, type ReadingResponse } from "../log/outcome.ts";
import { executeRange, isPlainRange, rangeEndOf } from "./range.ts";

/**
 * The reads of a write or transaction for its response. A short read is executed at once. A long one would block
 * everything else while the request is applied, and changes nothing; its result is determined by its read point, so it
 * is only recorded, and the sender of the response executes it later in slices.
 */

/** A view that knows its read point. */
export interface PointedView extends ReadView {
  readonly point: ReadPoint;
  /** Older than the newest state: counting examines every key. */
  readonly isPast?: boolean;
}

/** The reads of a request whose response is wanted. One object serves many requests, one at a time. */
export class ResponseReads {
  readonly #mayDefer: boolean;
  readonly #limits: ReadSlice;
  #deferred: Map<ReadingResponse, DeferredRead> | null = null;
  #keys = 0;
  #bytes = 0;
  #isSliced = false;

  /** `mayDefer`: the receiver of the response can complete it. */
  constructor(mayDefer: boolean, limits: ReadSlice) {
    this.#mayDefer = mayDefer;
    this.#limits = limits;
  }

  /** Resets it for the next request. */
  begin(): this {
    this.#keys = 0;
    this.#bytes = 0;
    this.#isSliced = false;
    this.#deferred = null;
    return this;
  }

  /**
   * The request is executed in slices: any number of single keys may be read during it, up to some megabytes, for
   * deferring a read costs more than such a read.
   */
  beginSlices(): void {
    this.#isSliced = true;
  }

  /** Bytes read so far. */
  get bytes(): number {
    return this.#bytes;
  }

  range(view: PointedView, request: RangeRequest): RangeResponse {
    const { point } = view;
    const isCurrent = request.revision <= 0 || request.revision === point.main;
    const isCounted = isCurrent && view.isPast !== true;
    const count = isCounted ? countOf(view, request.key, request.rangeEnd) : undefined;
    if (!this.#isLong(request, count)) {
      const response = executeRange(view, request);
      this.#keys += response.kvs.length;
      for (const { value } of response.kvs) this.#bytes += value.length;
      return response;
    }
    const revision = view.range(request.key, null, COUNT_ONLY, ignore).revision;
    const response = RangeResponse.create({ header: ResponseHeader.create({ revision }) });
    const at = isCurrent ? point : { main: request.revision, sub: Number.POSITIVE_INFINITY };
    this.#defer(response, { request, point: at, count });
    return response;
  }

  /** The previous values of changed keys: read now or, if too many, later for `response`. */
  previous(
    view: PointedView,
    key: Uint8Array,
    rangeEnd: Uint8Array,
  ): { readonly kvs: KeyValue[]; readonly defer: (response: ReadingResponse) => void } {
    const request = RangeRequest.create({ key, rangeEnd });
    const count = countOf(view, key, rangeEnd);
    if (this.#isLong(request, count)) {
      const { point } = view;
      return { kvs: [], defer: (response) => this.#defer(response, { request, point, count }) };
    }
    const { kvs } = view.rangeDecoded(key, rangeEndOf(rangeEnd), EVERYTHING);
    this.#keys += kvs.length;
    for (const { value } of kvs) this.#bytes += value.length;
    return { kvs, defer: ignore };
  }

  /** The response, with the reads still to be made. `isLong`: encoding it takes more than one turn. */
  complete<T>(response: T, isLong = false): T | DeferredAnswer<T> {
    if (this.#deferred !== null) return new DeferredAnswer(response, this.#deferred);
    return isLong && this.#mayDefer ? new DeferredAnswer(response, NO_READS) : response;
  }

  #defer(response: ReadingResponse, read: DeferredRead): void {
    this.#deferred ??= new Map();
    this.#deferred.set(response, read);
  }

  /** `count`: keys to examine; undefined at an older revision, where it is unknown. */
  #isLong(request: RangeRequest, count: number | undefined): boolean {
    if (!this.#mayDefer) return false;
    if (this.#isSliced && request.rangeEnd.length === 0) return this.#bytes >= SLICED_BYTES_MAX;
    const { rowsApplied, bytesApplied } = this.#limits;
    if (this.#keys >= rowsApplied || this.#bytes >= bytesApplied) return true;
    if (request.rangeEnd.length === 0) return false;
    if (count === undefined) return true;
    if (request.countOnly) return false;
    // With filters or another order all keys are examined, whatever the limit.
    const looks = isPlainRange(request) && request.limit > 0 ? Math.min(count, request.limit) : count;
    return looks > rowsApplied;
  }
}

function countOf(view: ReadView, key: Uint8Array, rangeEnd: Uint8Array): number {
  return view.range(key, rangeEndOf(rangeEnd), COUNT_ONLY, ignore).count;
}

const SLICED_BYTES_MAX = 8 * 1024 * 1024;
const NO_READS: ReadonlyMap<ReadingResponse, DeferredRead> = new Map();
const EVERYTHING = { revision: 0, limit: 0, countOnly: false };
const COUNT_ONLY = { revision: 0, limit: 0, countOnly: true };
const ignore = (): void => {};
