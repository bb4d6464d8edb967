/** Protobuf varints of whole numbers, for the few places that assemble messages by hand. */

/** Bytes that `writeVarint` takes for a value in (-2^53, 2^53); 10 when negative. */
export function varintSize(value: number): number {
  if (value < 0) return 10;
  let size = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Writes a value in (-2^53, 2^53), a negative one as its 64-bit two's complement, and returns the position behind it. */
export function writeVarint(out: Uint8Array, start: number, value: number): number {
  if (value < 0) return writeVarintBig(out, start, BigInt(value));
  let pos = start;
  let rest = value;
  for (; rest >= 0x80000000; rest = Math.floor(rest / 128)) out[pos++] = (rest % 128) | 128;
  for (; rest >= 128; rest >>>= 7) out[pos++] = (rest & 127) | 128;
  out[pos++] = rest;
  return pos;
}

/** Writes the 64-bit two's complement of a value and returns the position behind it. */
export function writeVarintBig(out: Uint8Array, start: number, value: bigint): number {
  let pos = start;
  let rest = BigInt.asUintN(64, value);
  for (; rest >= 128n; rest >>= 7n) out[pos++] = Number(rest & 127n) | 128;
  out[pos++] = Number(rest);
  return pos;
}
