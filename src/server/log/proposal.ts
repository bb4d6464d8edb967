import { type AuthInfo, NOBODY } from "../../auth/auth-info.ts";
import { broken } from "../../base/fatal.ts";
import type { Entry } from "../../proto/raftpb.ts";
import type { EtcdError } from "../contract/errors.ts";
import type { Op } from "./op.ts";
import type { RequestOf, ResponseOf } from "./operations.ts";
import { type Answer, DeferredAnswer, type Outcome } from "./outcome.ts";

/** Proposes a request of the server itself; resolves when it is applied or refused. */
export type Propose = <O extends Op>(op: O, request: RequestOf<O>, payload: Uint8Array) => Promise<Outcome<O>>;

/** Applies proposals of any kind: here the operation's type is known again. */
export interface ProposalApplier {
  applyProposal<O extends Op>(proposal: Proposal<O>, entry: Entry): void;
}

/**
 * A request in the log, for code that only proposes it and reports errors. Its operation is known to `Proposal`, and to
 * the applier.
 */
export abstract class QueuedProposal {
  abstract readonly op: Op;
  /** Encoded; becomes part of the log entry. */
  readonly payload: Uint8Array;
  /** The user of the request. Set before it is proposed. */
  user: AuthInfo = NOBODY;
  /**
   * The term in which this member is leader and proposes it, and to which it is bound; 0 for requests that any leader
   * may accept.
   */
  leaderTerm = 0;
  /** Lower 48 bits of its request id, once encoded. */
  id = 0;
  /** Its position in this leader's log; 0 while it waits to be proposed, or when forwarded. */
  index = 0;
  term = 0;
  /** Clock time of arrival. */
  sinceMs = 0;

  constructor(payload: Uint8Array) {
    this.payload = payload;
  }

  abstract get answered(): boolean;

  /** Answers with an error. */
  abstract refuse(error: EtcdError): void;

  /** Calls `applier` with its operation's type. */
  abstract applyBy(applier: ProposalApplier, entry: Entry): void;
}

/**
 * A request on its way through the log, with everything needed to answer it: the api makes a subclass per kind of
 * request, so that no promise or closure is needed.
 */
export abstract class Proposal<O extends Op> extends QueuedProposal {
  readonly op: O;
  /** Decoded, for the applier: the log entry is not decoded again. */
  readonly request: RequestOf<O>;
  /**
   * Only for the compiler: makes the type invariant in `O`, so that only code that knows the operation can answer it.
   */
  declare protected readonly invariant: (op: O) => O;
  #answered = false;

  constructor(op: O, request: RequestOf<O>, payload: Uint8Array) {
    super(payload);
    this.op = op;
    this.request = request;
  }

  /** Answers once; later outcomes (an entry applied after its request timed out) are dropped. */
  finish(answer: Answer<O>): void {
    if (this.#answered) return;
    this.#answered = true;
    try {
      if (answer instanceof DeferredAnswer) this.answerDeferred(answer);
      else this.answer(answer);
    } catch (error) {
      this.answerFailed(error);
    }
  }

  override refuse(error: EtcdError): void {
    this.finish(error);
  }

  override applyBy(applier: ProposalApplier, entry: Entry): void {
    applier.applyProposal(this, entry);
  }

  override get answered(): boolean {
    return this.#answered;
  }

  /** The response is still wanted: work that only serves it, like a transaction's reads, is worth doing. */
  get isWanted(): boolean {
    return !this.#answered;
  }

  /** It can complete a DeferredAnswer. */
  get defersReads(): boolean {
    return false;
  }

  protected abstract answer(outcome: Outcome<O>): void;

  /** For proposals with `defersReads`. */
  protected answerDeferred(_answer: DeferredAnswer<ResponseOf<O>>): void {
    broken(`operation ${this.op} was left without the reads of its response`);
  }

  /**
   * Answering threw; what was applied stays applied. A subclass with a client to notify overrides this; otherwise it
   * ends the process.
   */
  protected answerFailed(error: unknown): void {
    throw error;
  }
}

/** A request of the server itself, answered by a callback. */
export class InternalProposal<O extends Op> extends Proposal<O> {
  readonly #done: (outcome: Outcome<O>) => void;

  constructor(op: O, request: RequestOf<O>, payload: Uint8Array, done: (outcome: Outcome<O>) => void) {
    super(op, request, payload);
    this.#done = done;
  }

  protected override answer(outcome: Outcome<O>): void {
    this.#done(outcome);
  }
}
