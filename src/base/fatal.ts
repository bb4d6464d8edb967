/**
 * Which errors end the process wherever they are thrown, and which fail only the operation that threw them. An error is
 * fatal if it says so itself, by `fatal: true`: a broken invariant, a log that cannot be written, a damaged backend.
 * Code that serves a call catches everything else, so that a bug in one handler costs one call.
 */
import { KvorumError } from "./errors.ts";

/** An error that knows whether the member may go on after it. */
export interface MaybeFatal {
  readonly fatal: boolean;
}

/** Something that must hold does not: the process must stop before it writes. */
export class InvariantError extends KvorumError implements MaybeFatal {
  override name = "InvariantError";
  readonly code: string = "ERR_INVARIANT";
  readonly fatal = true;
}

/**
 * Asserts what must hold here; otherwise the process ends before it writes. Assertions come in pairs, before something
 * is written and after it is read, and on both sides of a seam. `found` and `than` are added to the message; they are
 * values, so that nothing is built when the condition holds.
 */
export function invariant(holds: boolean, what: string, found?: unknown, than?: unknown): asserts holds {
  if (!holds) broken(what + (found === undefined ? "" : than === undefined ? `: ${found}` : `: ${found}, ${than}`));
}

/** The same for a branch that exists anyway. */
export function broken(message: string, cause?: unknown): never {
  throw new InvariantError(message, cause === undefined ? undefined : { cause });
}

/** True when the process must end, also when a fatal error is among the causes. */
export function isFatal(error: unknown): boolean {
  for (let depth = 0; depth < CAUSES_MAX && error instanceof Error; depth++) {
    if ((error as Partial<MaybeFatal>).fatal === true) return true;
    error = error.cause;
  }
  return false;
}

/** A chain of causes may be circular. */
const CAUSES_MAX = 8;
