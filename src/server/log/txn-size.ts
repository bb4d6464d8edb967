/**
 * Counts the comparisons and operations of an encoded TxnRequest, including nested ones, before decoding: a megabyte
 * can hold half a million of them, and decoding them all just to refuse them takes half a second.
 */
import { ProtobufError, Reader } from "../../base/protobuf.ts";
import { NESTED_OPS_MAX } from "./check.ts";

/** True when `checkTxn` would refuse it for its total number of operations. */
export function hasTooManyOps(bytes: Uint8Array, maxTxnOps: number): boolean {
  const most = Math.max(NESTED_OPS_MAX, 2 * maxTxnOps);
  // Nearly every transaction: too short to hold that many.
  if (bytes.length < most * OP_BYTES_MIN) return false;
  try {
    return countTxn(new Reader().reset(bytes), bytes.length, most, 0) > most;
  } catch (error) {
    // The decoder reports malformed input.
    if (error instanceof ProtobufError) return false;
    throw error;
  }
}

const OP_BYTES_MIN = 2;
/** The decoder refuses deeper nesting. */
const DEPTH_MAX = 100;
const LENGTH_DELIMITED = 2;
/** Field numbers of TxnRequest (`compare`, `success`, `failure`) and of RequestOp. */
const COMPARE = 1;
const FAILURE = 3;
const REQUEST_TXN = 4;

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
