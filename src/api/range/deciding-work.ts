import { SliceBudget } from "../../base/slice-budget.ts";
import type { StepResult, Ticket, Work } from "../../base/turns.ts";
import { CompactedError } from "../../mvcc/model/types.ts";
import type { Pin } from "../../mvcc/store/pins.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import type { TxnRequest } from "../../proto/etcdserverpb.ts";
import type { UnaryCall } from "../../rpc/contract.ts";
import { decideInSlices, type Path } from "../../server/apply/compare.ts";
import type { Slices } from "../../server/apply/long-apply.ts";
import { PastView } from "../../server/apply/past-view.ts";
import type { ReadSlice } from "../../server/contract/options.ts";
import { failWithAny } from "../calls/calls.ts";

/**
 * Evaluates the range comparisons of a read-only transaction in slices, all at the revision at which it began.
 * `onDecided` then reads at that revision.
 */
export class DecidingWork implements Work {
  readonly name = "Txn";
  readonly #call: UnaryCall;
  readonly #pin: Pin;
  readonly #view: PastView;
  readonly #slices: Slices<Path>;
  readonly #onDecided: (view: PastView, path: Path) => void;
  #ticket: Ticket | null = null;
  #over = false;

  constructor(
    call: UnaryCall,
    store: MvccStore,
    request: TxnRequest,
    slice: ReadSlice,
    onDecided: (view: PastView, path: Path) => void,
  ) {
    this.#call = call;
    this.#view = new PastView(store, store.currentRevision);
    this.#pin = store.pin(this.#view.point);
    this.#slices = decideInSlices(store, request, new SliceBudget(slice.entries, slice.bytes), this.#view);
    this.#onDecided = onDecided;
    call.onCancel = () => this.#end();
  }

  attach(ticket: Ticket): void {
    this.#ticket = ticket;
  }

  step(): StepResult {
    if (this.#over) return "done";
    if (this.#pin.revoked) throw new CompactedError(this.#pin.revision);
    this.#pin.touch();
    const { done, value } = this.#slices.next();
    if (done !== true) return "more";
    this.#call.onCancel = null;
    this.#onDecided(this.#view, value);
    this.#end();
    return "done";
  }

  fail(error: unknown): void {
    if (!this.#over) failWithAny(this.#call, error);
    this.#end();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#pin.release();
    this.#ticket?.cancel();
  }
}
