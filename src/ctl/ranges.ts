/** Key ranges as in requests. */

/** The `range_end` for everything from a key on. */
export const FROM_KEY: Uint8Array = Buffer.of(0);
/** The first possible key, for requests that mean every key. */
export const FIRST_KEY: Uint8Array = Buffer.of(0);

/** The `range_end` for all keys with this prefix. */
export function prefixEnd(prefix: Uint8Array): Buffer {
  const end = Buffer.from(prefix);
  for (let i = end.length - 1; i >= 0; i--) {
    if (end[i]! < 0xff) {
      end[i] = end[i]! + 1;
      return end.subarray(0, i + 1);
    }
  }
  return Buffer.of(0);
}
