/**
 * The base of every error class here, so that one `instanceof` distinguishes our errors from those of Node and its
 * libraries. An error is identified by its class and, where a class has several, by its `code`, never by its text:
 * docs/errors.md lists all of them, and test/base/errors.test.ts compares the two.
 */

/**
 * An operating error: of a file, a peer, a request. A state that no outside input may cause is an InvariantError
 * (`base/fatal.ts`). Codes are strings; where another program's numbers are in use (a gRPC status, an exit code) they
 * are those. `cause` is the original error.
 */
export abstract class KvorumError<C extends string | number = string> extends Error {
  abstract readonly code: C;
}

/** The code of an error, ours or Node's ("ENOENT"); undefined without one. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** The text of a caught value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
