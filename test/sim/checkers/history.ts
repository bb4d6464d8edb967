/** The clients' observations and the members' applied entries: the input of the checkers. */
import type { KvRequest, ModelEvent } from "./model.ts";

/**
 * Moments are non-decreasing numbers: the order of two equal ones is unknown. A simulation counts its events; real
 * processes use one monotonic clock of the observer.
 */
export type Moment = number;

/** One client call, with the facts that revisions reveal. */
export interface Operation {
  readonly id: number;
  readonly client: string;
  readonly member: string;
  readonly action: Action;
  readonly invoked: Moment;
  /** Infinity while there is no answer. */
  returned: Moment;
  outcome: OperationOutcome;
}

export type Action =
  | KvRequest
  | { readonly kind: "compact"; readonly revision: number }
  /** Anything else: only its header's revision is checked. */
  | { readonly kind: "other"; readonly name: string };

export type OperationOutcome =
  /** `revision` is the header's. */
  | { readonly kind: "ok"; readonly revision: number; readonly answer: unknown }
  /** It had no effect. */
  | { readonly kind: "refused"; readonly error: string }
  /** It had an effect once, or none, or will have one later. */
  | { readonly kind: "unknown"; readonly error: string };

/** A revision, as reported by the first member that applied it. */
export interface Revision {
  readonly revision: number;
  readonly events: readonly ModelEvent[];
  /** When it was first seen; it was committed by then. */
  readonly seen: Moment;
}

/** A checker's finding: a sentence, with the moment to look at. */
export interface Finding {
  readonly checker: string;
  readonly message: string;
  readonly moment: Moment;
}
