/** What clients saw and what the members applied: the input of the checkers. */
import type { KvRequest, ModelEvent } from "./model.ts";

/**
 * Moments are numbers that only grow: of two with the same number nothing is known. A simulation counts its events; real
 * processes use one monotonic clock of the observer.
 */
export type Moment = number;

/** One call of a client, of which revisions tell something. */
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
  /** Anything else: only the revision in its header is looked at. */
  | { readonly kind: "other"; readonly name: string };

export type OperationOutcome =
  /** `revision` is that of the header. */
  | { readonly kind: "ok"; readonly revision: number; readonly answer: unknown }
  /** It had no effect. */
  | { readonly kind: "refused"; readonly error: string }
  /** It had an effect once, or none, or has one later. */
  | { readonly kind: "unknown"; readonly error: string };

/** A revision as the first member that applied it tells it. */
export interface Revision {
  readonly revision: number;
  readonly events: readonly ModelEvent[];
  /** When it was first seen: it was committed by then. */
  readonly seen: Moment;
}

/** What a checker found: a sentence, with the moment where to look. */
export interface Finding {
  readonly checker: string;
  readonly message: string;
  readonly moment: Moment;
}
