import type { ReadView } from "../../mvcc/model/types.ts";
import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import { RangeRequest, RangeResponse, ResponseHeader } from "../../proto/etcdserverpb.ts";
import type { KeyValue } from "../../proto/mvccpb.ts";
import type { ReadSlice } from "../contract/options.ts";
import { DeferredAnswer, type DeferredRead, type ReadingResponse } from "../log/outcome.ts";
import { executeRange, isPlainRange, rangeEndOf } from "./range.ts";

/**
 * What a write or a transaction reads for its response. A short read is made at once. A long one would hold up everybody when
 * the request is applied, and changes nothing: what it gives is fixed by the point at which it is made, so it is only noted,
 * and made afterwards in slices by who answers.
 */

/** A view that knows at which point it reads. */
export interface PointedView extends ReadView {
  readonly point: ReadPoint;
  /** It is older than the newest state: counting takes a look at every key. */
  readonly isPast?: boolean;
}

/** The reads of a request that somebody waits for. One object serves many requests, one after the other. */
export class ResponseReads {
  readonly #mayDefer: boolean;
  readonly #limits: ReadSlice;
  #deferred: Map<ReadingResponse, DeferredRead> | null = null;
  #keys = 0;
  #bytes = 0;

  /** `mayDefer`: whoever gets the response can complete it. */
  constructor(mayDefer: boolean, limits: ReadSlice) {
    this.#mayDefer = mayDefer;
    this.#limits = limits;
  }

  /** For the next request. */
  begin(): this {
    this.#keys = 0;
    this.#bytes = 0;
    this.#deferred = null;
    return this;
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

  /** What keys had before a change: now or, when that is too much, for `response` later. */
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

  /** The response, with what is still to be read for it. */
  complete<T>(response: T): T | DeferredAnswer<T> {
    return this.#deferred === null ? response : new DeferredAnswer(response, this.#deferred);
  }

  #defer(response: ReadingResponse, read: DeferredRead): void {
    this.#deferred ??= new Map();
    this.#deferred.set(response, read);
  }

  /** `count`: keys to look at; undefined at an older revision, where nobody knows. */
  #isLong(request: RangeRequest, count: number | undefined): boolean {
    if (!this.#mayDefer) return false;
    const { rowsApplied, bytesApplied } = this.#limits;
    if (this.#keys >= rowsApplied || this.#bytes >= bytesApplied) return true;
    if (request.rangeEnd.length === 0) return false;
    if (count === undefined) return true;
    if (request.countOnly) return false;
    // With filters or another order all keys are looked at, whatever the limit.
    const looks = isPlainRange(request) && request.limit > 0 ? Math.min(count, request.limit) : count;
    return looks > rowsApplied;
  }
}

function countOf(view: ReadView, key: Uint8Array, rangeEnd: Uint8Array): number {
  return view.range(key, rangeEndOf(rangeEnd), COUNT_ONLY, ignore).count;
}

const EVERYTHING = { revision: 0, limit: 0, countOnly: false };
const COUNT_ONLY = { revision: 0, limit: 0, countOnly: true };
const ignore = (): void => {};
