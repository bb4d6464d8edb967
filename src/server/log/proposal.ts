import { type AuthInfo, NOBODY } from "../../auth/auth-info.ts";
import type { Op, Outcome } from "./op.ts";

/**
 * One request on its way through the log. The api makes a subclass per kind of request, with all it needs to answer, so
 * that no promise and no closure is needed on the way.
 */
export abstract class Proposal {
  readonly op: Op;
  /** Decoded, as the applier takes it: the log entry is not decoded again. */
  readonly request: object;
  /** Encoded; becomes part of the log entry. */
  readonly payload: Uint8Array;
  /** In whose name it is made. Set before it is proposed. */
  user: AuthInfo = NOBODY;
  /** The term in which this member leads and makes it, which it may not outlive; 0 for requests that any leader may take. */
  leaderTerm = 0;
  /** Lower 48 bits of its request id, once it is encoded. */
  id = 0;
  /** Where it stands in the log of this member as the leader; 0 while it waits to be proposed, or when forwarded. */
  index = 0;
  term = 0;
  /** Clock time of its arrival. */
  sinceMs = 0;
  #answered = false;

  constructor(op: Op, request: object, payload: Uint8Array) {
    this.op = op;
    this.request = request;
    this.payload = payload;
  }

  /** Answers once; later outcomes (an entry applied after its request timed out) are dropped. */
  finish(outcome: Outcome): void {
    if (this.#answered) return;
    this.#answered = true;
    try {
      this.answer(outcome);
    } catch (error) {
      this.answerFailed(error);
    }
  }

  get answered(): boolean {
    return this.#answered;
  }

  /** Somebody still waits for the response: what only makes one, like the reads of a transaction, is worth doing. */
  get isWanted(): boolean {
    return !this.#answered;
  }

  /** Whoever gets the outcome can complete a DeferredAnswer. */
  get defersReads(): boolean {
    return false;
  }

  protected abstract answer(outcome: Outcome): void;

  /** Answering threw: what was applied stays so. Whoever has somebody to tell does so; else it ends the process. */
  protected answerFailed(error: unknown): void {
    throw error;
  }
}

/** A request of the server itself, answered to a callback. */
export class InternalProposal extends Proposal {
  readonly #done: (outcome: Outcome) => void;

  constructor(op: Op, request: object, payload: Uint8Array, done: (outcome: Outcome) => void) {
    super(op, request, payload);
    this.#done = done;
  }

  protected override answer(outcome: Outcome): void {
    this.#done(outcome);
  }
}
