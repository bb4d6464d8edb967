import { InvariantError } from "../../base/fatal.ts";

/**
 * Revisions as keys of the bucket key: 8 bytes main, '_', 8 bytes sub, big endian, followed by 't' for a tombstone.
 * Source: etcd `server/storage/mvcc/revision.go`.
 */
export const REVISION_BYTES = 17;
export const TOMBSTONE_BYTES = 18;

const UNDERSCORE = 0x5f;
const TOMBSTONE_MARK = 0x74;
const TWO_32 = 4294967296;

/** Writes the key at `start` and returns its end. */
export function writeRevision(
  target: Uint8Array,
  start: number,
  main: number,
  sub: number,
  tombstone: boolean,
): number {
  writeUint64(target, start, main);
  target[start + 8] = UNDERSCORE;
  writeUint64(target, start + 9, sub);
  if (!tombstone) return start + REVISION_BYTES;
  target[start + REVISION_BYTES] = TOMBSTONE_MARK;
  return start + TOMBSTONE_BYTES;
}

export function revisionBytes(main: number, sub: number, tombstone = false): Buffer {
  const bytes = Buffer.allocUnsafe(tombstone ? TOMBSTONE_BYTES : REVISION_BYTES);
  writeRevision(bytes, 0, main, sub, tombstone);
  return bytes;
}

/** The main revision of a key in the bucket. Throws when the bytes are not such a key. */
export function mainOf(bytes: Uint8Array, start = 0, end = bytes.length): number {
  checkRevision(bytes, start, end);
  return readUint64(bytes, start);
}

export function subOf(bytes: Uint8Array, start = 0): number {
  return readUint64(bytes, start + 9);
}

export function isTombstone(bytes: Uint8Array, start = 0, end = bytes.length): boolean {
  return end - start === TOMBSTONE_BYTES && bytes[end - 1] === TOMBSTONE_MARK;
}

/** Whether the bytes are a key of this bucket. */
export function isRevision(bytes: Uint8Array, start: number, end: number): boolean {
  const length = end - start;
  return (length === REVISION_BYTES || length === TOMBSTONE_BYTES) && bytes[start + 8] === UNDERSCORE;
}

function checkRevision(bytes: Uint8Array, start: number, end: number): void {
  if (isRevision(bytes, start, end)) return;
  throw new InvariantError(
    `the bucket "key" holds a key that is not a revision: ${Buffer.from(bytes.subarray(start, end)).toString("hex")}`,
  );
}

function writeUint64(target: Uint8Array, at: number, value: number): void {
  const high = value < TWO_32 ? 0 : Math.floor(value / TWO_32);
  target[at] = high >>> 24;
  target[at + 1] = high >>> 16;
  target[at + 2] = high >>> 8;
  target[at + 3] = high;
  target[at + 4] = value >>> 24;
  target[at + 5] = value >>> 16;
  target[at + 6] = value >>> 8;
  target[at + 7] = value;
}

function readUint64(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
  const low = ((bytes[at + 4]! << 24) | (bytes[at + 5]! << 16) | (bytes[at + 6]! << 8) | bytes[at + 7]!) >>> 0;
  return high * TWO_32 + low;
}
