/**
 * Where the core says what it decides. A method that is missing is a level that is off: calls read
 * `logger.debug?.(text)`, so the text of a disabled level is never built. Lines are etcd's own, to the letter, because
 * operators search for them and the scenarios compare them.
 */
export interface RaftLogger {
  readonly debug?: ((text: string) => void) | undefined;
  readonly info?: ((text: string) => void) | undefined;
  readonly warn?: ((text: string) => void) | undefined;
  readonly error?: ((text: string) => void) | undefined;
}

export const silentRaftLogger: RaftLogger = {};

/** Node ids print as bare hexadecimal. */
export function hex(id: bigint): string {
  return id.toString(16);
}
