import { InvariantError } from "../../base/fatal.ts";
import { type ByteString, keyString } from "./types.ts";

/**
 * The fields of an encoded mvccpb.KeyValue besides its value. Restoring reads millions of them, so it allocates no
 * objects.
 */
export interface KvHeader {
  /** The key, as a part of the bytes that were read. */
  keyStart: number;
  keyEnd: number;
  createRevision: number;
  version: number;
  lease: bigint;
}

export function kvHeader(): KvHeader {
  return { keyStart: 0, keyEnd: 0, createRevision: 0, version: 0, lease: 0n };
}

/** The key of a header read from `bytes`. */
export function headerKey(bytes: Uint8Array, { keyStart, keyEnd }: KvHeader): ByteString {
  return keyString({ bytes, keyStart, keyEnd });
}

/** Reads `bytes[start .. end)` into `out`. Throws InvariantError when it is not a KeyValue. */
export function readKvHeader(bytes: Uint8Array, start: number, end: number, out: KvHeader): void {
  out.keyStart = 0;
  out.keyEnd = 0;
  out.createRevision = 0;
  out.version = 0;
  out.lease = 0n;
  let pos = start;
  while (pos < end) {
    const tag = bytes[pos]!;
    const valueStart = pos + 1;
    const value = readVarint(bytes, valueStart, end);
    pos = varintEnd;
    switch (tag) {
      case 0x0a:
        if (pos + value > end) throw malformed();
        out.keyStart = pos;
        pos += value;
        out.keyEnd = pos;
        break;
      case 0x10:
        out.createRevision = value;
        break;
      case 0x18:
        break;
      case 0x20:
        out.version = value;
        break;
      case 0x2a:
        pos += value;
        break;
      case 0x30:
        out.lease = readVarintBig(bytes, valueStart, pos);
        break;
      default:
        throw malformed();
    }
  }
  if (pos !== end) throw malformed();
}

/** End of the varint that `readVarint` read last. */
let varintEnd = 0;

/** Exact below 2^53. */
function readVarint(bytes: Uint8Array, start: number, end: number): number {
  let value = 0;
  let factor = 1;
  for (let pos = start; pos < end && pos < start + 10; pos++) {
    const byte = bytes[pos]!;
    value += (byte & 127) * factor;
    if (byte < 128) {
      varintEnd = pos + 1;
      return value;
    }
    factor *= 128;
  }
  throw malformed();
}

function readVarintBig(bytes: Uint8Array, start: number, end: number): bigint {
  let value = 0n;
  for (let pos = end - 1; pos >= start; pos--) value = (value << 7n) | BigInt(bytes[pos]! & 127);
  return BigInt.asIntN(64, value);
}

function malformed(): InvariantError {
  return new InvariantError("the backend holds a row that is not an mvccpb.KeyValue: its file is damaged");
}
