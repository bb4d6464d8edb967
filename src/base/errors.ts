/**
 * The base of every error class here, so that one `instanceof` tells our errors from those of Node and its libraries. An
 * error is told by its class and, where a class has several, by its `code`, never by its text: docs/errors.md has all of them,
 * and test/base/errors.test.ts holds the two together.
 */

/**
 * Something that can go wrong by itself: a file, a peer, a request. What must not happen whatever comes from outside is an
 * InvariantError (`base/fatal.ts`). Codes are strings; where another program's numbers are the vocabulary (a gRPC status, an
 * exit code) they are those. `cause` is what it came from.
 */
export abstract class KvorumError<C extends string | number = string> extends Error {
  abstract readonly code: C;
}

/** The code of an error, ours or Node's ("ENOENT"); undefined for what has none. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** The text of what was caught. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
