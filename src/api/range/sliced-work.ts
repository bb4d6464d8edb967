/** A computation for a call that takes more than one turn. Owns the pin of what it reads. */
import type { Slices } from "../../base/slices.ts";
import type { StepResult, Ticket, Work } from "../../base/turns.ts";
import { CompactedError } from "../../mvcc/model/types.ts";
import type { Pin } from "../../mvcc/store/pins.ts";
import type { UnaryCall } from "../../rpc/contract.ts";
import { errors } from "../../server/contract/errors.ts";
import { failWithAny } from "../calls/calls.ts";

export interface SlicedWorkOptions<T> {
  /** For logs: the request's name. */
  readonly name: string;
  readonly slices: Slices<T>;
  /** Keeps readable what the slices read; null when they read nothing. */
  readonly pin: Pin | null;
  /** The request was applied: a failure must not look like a refusal. */
  readonly isApplied: boolean;
  /** Gets the result, before the pin is released; not called when the client no longer waits. */
  readonly onDone: (result: T) => void;
}

export class SlicedWork<T> implements Work {
  readonly name: string;
  readonly #call: UnaryCall;
  readonly #options: SlicedWorkOptions<T>;
  #ticket: Ticket | null = null;
  #over = false;

  constructor(call: UnaryCall, options: SlicedWorkOptions<T>) {
    this.name = options.name;
    this.#call = call;
    this.#options = options;
    call.onCancel = () => this.#end();
  }

  attach(ticket: Ticket): void {
    this.#ticket = ticket;
  }

  step(): StepResult {
    const { pin, slices, onDone } = this.#options;
    if (this.#over) return "done";
    if (pin?.revoked) throw new CompactedError(pin.revision);
    pin?.touch();
    const { done, value } = slices.next();
    if (done !== true) return "more";
    this.#call.onCancel = null;
    onDone(value);
    this.#end();
    return "done";
  }

  fail(error: unknown): void {
    const isLate = this.#options.isApplied && error instanceof CompactedError;
    if (!this.#over) failWithAny(this.#call, isLate ? errors.appliedUnanswered : error);
    this.#end();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#options.pin?.release();
    this.#ticket?.cancel();
  }
}
