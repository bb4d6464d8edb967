import type { DecodedRangeResult, KeyVisitor, RangeOptions, RangeResult, RawVisitor } from "../../mvcc/model/types.ts";
import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import type { PointedView } from "./response-reads.ts";

/**
 * The store at a past revision, for requests that began at it and take many turns. It needs a pin there. Counting,
 * which is a single lookup at the newest state, examines every key here.
 */
export class PastView implements PointedView {
  readonly isPast = true;
  readonly point: ReadPoint;
  readonly #store: MvccStore;

  constructor(store: MvccStore, revision: number) {
    this.#store = store;
    this.point = { main: revision, sub: Number.POSITIVE_INFINITY };
  }

  get currentRevision(): number {
    return this.point.main;
  }

  get compactRevision(): number {
    return this.#store.compactRevision;
  }

  range(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: RawVisitor): RangeResult {
    return this.#at(this.#store.range(key, rangeEnd, this.#options(options), visit));
  }

  rangeKeys(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions, visit: KeyVisitor): RangeResult {
    return this.#at(this.#store.rangeKeys(key, rangeEnd, this.#options(options), visit));
  }

  rangeDecoded(key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions): DecodedRangeResult {
    return this.#at(this.#store.rangeDecoded(key, rangeEnd, this.#options(options)));
  }

  #options(options: RangeOptions): RangeOptions {
    return options.revision > 0 ? options : { ...options, revision: this.point.main };
  }

  #at<T extends RangeResult>(result: T): T {
    return { ...result, revision: this.point.main };
  }
}
