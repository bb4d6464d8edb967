/** The first row of a range in the order it asks for, found in slices: a prefix may have a million keys. */
import type { StepResult, Ticket, Work } from "../../base/turns.ts";
import { CompactedError } from "../../mvcc/model/types.ts";
import type { Pin } from "../../mvcc/store/pins.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import type { RangeRequest } from "../../proto/etcdserverpb.ts";
import { KeyValue } from "../../proto/mvccpb.ts";
import type { ReadSlice } from "../../server/contract/options.ts";
import { type RangeRows, rangeRows } from "./rows.ts";

export interface FirstRow {
  /** Undefined when no key qualifies. */
  readonly kv: KeyValue | undefined;
  /** The revision at which that is so: the current one when the search began. */
  readonly revision: number;
}

export class FirstRowWork implements Work {
  readonly name: string;
  readonly #pin: Pin;
  readonly #rows: RangeRows;
  readonly #revision: number;
  readonly #done: (error: unknown, first: FirstRow | undefined) => void;
  #ticket: Ticket | null = null;
  #kv: KeyValue | undefined;
  #over = false;

  /** `request` has the limit 1. `done` is called once, with the error or the result; not after `cancel`. */
  constructor(
    name: string,
    store: MvccStore,
    request: RangeRequest,
    limits: ReadSlice,
    done: (error: unknown, first: FirstRow | undefined) => void,
  ) {
    this.name = name;
    this.#revision = store.currentRevision;
    this.#done = done;
    const point = { main: this.#revision, sub: Number.POSITIVE_INFINITY };
    this.#rows = rangeRows(store, request, point, store.countLive(request.key, request.rangeEnd), limits);
    this.#pin = store.pin(point);
  }

  attach(ticket: Ticket): void {
    this.#ticket = ticket;
  }

  step(): StepResult {
    if (this.#pin.revoked) throw new CompactedError(this.#pin.revision);
    this.#pin.touch();
    const isComplete = this.#rows.slice((bytes, start, end) => {
      this.#kv ??= KeyValue.decode(bytes, start, end);
    });
    if (!isComplete) return "more";
    this.#end(null, { kv: this.#kv, revision: this.#revision });
    return "done";
  }

  fail(error: unknown): void {
    this.#end(error, undefined);
  }

  /** The result is not wanted any more. */
  cancel(): void {
    if (this.#over) return;
    this.#over = true;
    this.#pin.release();
    this.#ticket?.cancel();
  }

  #end(error: unknown, first: FirstRow | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#pin.release();
    this.#done(error, first);
  }
}
