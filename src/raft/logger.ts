/**
 * The log of the core's decisions. A missing method is a disabled level: calls read `logger.debug?.(text)`, so the text
 * of a disabled level is never built. Lines are etcd's own, literally, because operators search for them and the
 * scenarios compare them.
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
