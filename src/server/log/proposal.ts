import { type AuthInfo, NOBODY } from "../../auth/auth-info.ts";
import { InvariantError } from "../../base/fatal.ts";
import type { Entry } from "../../proto/raftpb.ts";
import type { EtcdError } from "../contract/errors.ts";
import type { Op } from "./op.ts";
import type { RequestOf, ResponseOf } from "./operations.ts";
import { type Answer, DeferredAnswer, type Outcome } from "./outcome.ts";

/** Puts a request of the server itself into the log; resolves when it has been applied, or refused. */
export type Propose = <O extends Op>(op: O, request: RequestOf<O>, payload: Uint8Array) => Promise<Outcome<O>>;

/** Applies proposals, whatever they ask for: the operation is known again here. */
export interface ProposalApplier {
  applyProposal<O extends Op>(proposal: Proposal<O>, entry: Entry): void;
}

/**
 * A request on its way through the log, as those know it who only put it there and tell what went wrong. What it asks for
 * is known to `Proposal`, and to who applies it.
 */
export abstract class QueuedProposal {
  abstract readonly op: Op;
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

  constructor(payload: Uint8Array) {
    this.payload = payload;
  }

  abstract get answered(): boolean;

  /** Answers with an error. */
  abstract refuse(error: EtcdError): void;

  /** Has `applier` apply it as what it is. */
  abstract applyBy(applier: ProposalApplier, entry: Entry): void;
}

/**
 * One request on its way through the log, with all it takes to answer it: the api makes a subclass per kind of request, so
 * that no promise and no closure is needed on the way.
 */
export abstract class Proposal<O extends Op> extends QueuedProposal {
  readonly op: O;
  /** Decoded, as the applier takes it: the log entry is not decoded again. */
  readonly request: RequestOf<O>;
  /** For the compiler alone: a proposal of one operation is none of any, so that only who knows which can answer it. */
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

  /** Somebody still waits for the response: what only makes one, like the reads of a transaction, is worth doing. */
  get isWanted(): boolean {
    return !this.#answered;
  }

  /** It can complete a DeferredAnswer. */
  get defersReads(): boolean {
    return false;
  }

  protected abstract answer(outcome: Outcome<O>): void;

  /** For those who `defersReads`. */
  protected answerDeferred(_answer: DeferredAnswer<ResponseOf<O>>): void {
    throw new InvariantError(`operation ${this.op} was left without the reads of its response`);
  }

  /** Answering threw: what was applied stays so. Whoever has somebody to tell does so; else it ends the process. */
  protected answerFailed(error: unknown): void {
    throw error;
  }
}

/** A request of the server itself, answered to a callback. */
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
