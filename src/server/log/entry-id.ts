/**
 * Finds the request id of a log entry without decoding the request: a member checks every entry that it applies for
 * requests that it forwarded to the leader.
 */

const HEADER_FIELD = 100;
const VARINT = 0;
const LENGTH_DELIMITED = 2;

/**
 * The lower 48 bits of the id in the header of an encoded InternalRaftRequest whose upper 16 bits are `prefix`; -1 when
 * the entry has another member's id, or none.
 */
export function ownRequestId(data: Uint8Array, prefix: number): number {
  let pos = 0;
  while (pos < data.length) {
    let tag = 0;
    let scale = 1;
    for (;;) {
      const byte = data[pos++];
      if (byte === undefined || scale > 2 ** 28) return -1;
      tag += (byte & 127) * scale;
      if (byte < 128) break;
      scale *= 128;
    }
    const wireType = tag & 7;
    if (wireType !== LENGTH_DELIMITED && wireType !== VARINT) return -1;
    let value = 0;
    scale = 1;
    for (;;) {
      const byte = data[pos++];
      if (byte === undefined || scale > 2 ** 63) return -1;
      value += (byte & 127) * scale;
      if (byte < 128) break;
      scale *= 128;
    }
    if (wireType === VARINT) continue;
    if (Math.floor(tag / 8) === HEADER_FIELD) return idOfHeader(data, pos, pos + value, prefix);
    pos += value;
  }
  return -1;
}

const ID_TAG = 0x08;

function idOfHeader(data: Uint8Array, start: number, end: number, prefix: number): number {
  if (end > data.length || data[start] !== ID_TAG) return -1;
  // Bits 0 to 27, 28 to 55 and 56 to 63, because bit operations have 32 bits.
  const parts = [0, 0, 0];
  let shift = 0;
  for (let pos = start + 1; pos < end && shift < 70; pos++, shift += 7) {
    const byte = data[pos]!;
    parts[Math.floor(shift / 28)]! |= (byte & 127) << (shift % 28);
    if (byte < 128) break;
  }
  const middle = parts[1]!;
  if (((parts[2]! << 8) | (middle >>> 20)) !== prefix) return -1;
  return parts[0]! + (middle & 0xfffff) * 2 ** 28;
}
