/** Protobuf varints of whole numbers, for the few places that assemble messages by hand. */

/** Bytes that `writeVarint` takes for a value in [0, 2^53). */
export function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Writes a value in [0, 2^53) and returns the position behind it. */
export function writeVarint(out: Uint8Array, start: number, value: number): number {
  let pos = start;
  let rest = value;
  for (; rest >= 0x80000000; rest = Math.floor(rest / 128)) out[pos++] = (rest % 128) | 128;
  for (; rest >= 128; rest >>>= 7) out[pos++] = (rest & 127) | 128;
  out[pos++] = rest;
  return pos;
}
