/**
 * Counts the comparisons and operations of an encoded TxnRequest, including nested ones, before decoding: a megabyte
 * can hold half a million of them, and decoding them all in one turn, perhaps just to refuse them, takes half a second.
 */
import { ProtobufError, Reader } from "../../base/protobuf.ts";
import { NESTED_OPS_MAX } from "./check.ts";

/** True when `checkTxn` would refuse it for its total number of operations. */
export function hasTooManyOps(bytes: Uint8Array, maxTxnOps: number): boolean {
  const most = Math.max(NESTED_OPS_MAX, 2 * maxTxnOps);
  return hasMoreOps(bytes, most);
}

/** Operations on single keys that fit into one turn. */
export const OPS_AT_ONCE = 512;

/** True when an encoded transaction needs more than one turn for its number of operations. */
export function isLongTxn(bytes: Uint8Array): boolean {
  return hasMoreOps(bytes, OPS_AT_ONCE);
}

/** The same for an encoded InternalRaftRequest that begins with a transaction, as all members write it. */
export function holdsLongTxn(bytes: Uint8Array): boolean {
  // Nearly every entry.
  if (bytes.length < OPS_AT_ONCE * OP_BYTES_MIN || bytes[0] !== INTERNAL_TXN_TAG) return false;
  try {
    const reader = new Reader().reset(bytes);
    reader.tag();
    const start = reader.span();
    return isLongTxn(bytes.subarray(start, reader.pos));
  } catch (error) {
    return isMalformed(error);
  }
}

function hasMoreOps(bytes: Uint8Array, most: number): boolean {
  // Nearly every transaction: too short to hold that many.
  if (bytes.length < most * OP_BYTES_MIN) return false;
  try {
    return countTxn(new Reader().reset(bytes), bytes.length, most, 0) > most;
  } catch (error) {
    return isMalformed(error);
  }
}

/** The decoder reports malformed input, at the first mistake. */
function isMalformed(error: unknown): false {
  if (error instanceof ProtobufError) return false;
  throw error;
}

const OP_BYTES_MIN = 2;
/** The decoder refuses deeper nesting. */
const DEPTH_MAX = 100;
const LENGTH_DELIMITED = 2;
/** Field numbers of TxnRequest (`compare`, `success`, `failure`) and of RequestOp. */
const COMPARE = 1;
const FAILURE = 3;
const REQUEST_TXN = 4;
/** InternalRaftRequest.txn. */
export const INTERNAL_TXN_TAG = (6 << 3) | LENGTH_DELIMITED;

/** Reads up to `end`. Stops counting a little above `most`. */
function countTxn(reader: Reader, end: number, most: number, depth: number): number {
  let count = 0;
  while (reader.pos < end && count <= most) {
    const tag = reader.tag();
    const field = tag >>> 3;
    if ((tag & 7) !== LENGTH_DELIMITED || field < COMPARE || field > FAILURE) {
      reader.skip(tag);
      continue;
    }
    const length = reader.uint32();
    const opEnd = Math.min(end, reader.pos + length);
    count++;
    if (field !== COMPARE && depth < DEPTH_MAX) count += countOp(reader, opEnd, most - count, depth + 1);
    reader.pos = opEnd;
  }
  return count;
}

function countOp(reader: Reader, end: number, most: number, depth: number): number {
  let count = 0;
  while (reader.pos < end && count <= most) {
    const tag = reader.tag();
    if (tag !== ((REQUEST_TXN << 3) | LENGTH_DELIMITED)) reader.skip(tag);
    else {
      const length = reader.uint32();
      const txnEnd = Math.min(end, reader.pos + length);
      count += countTxn(reader, txnEnd, most - count, depth);
      reader.pos = txnEnd;
    }
  }
  return count;
}
