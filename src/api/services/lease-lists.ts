import { SliceSort } from "../../base/slice-sort.ts";
import { varintSize, writeVarint, writeVarintBig } from "../../base/varint.ts";
import type { Lease } from "../../lease/lease.ts";
import type { Lessor } from "../../lease/lessor.ts";

/**
 * The lists in lease responses, piece by piece: a cluster may have a hundred thousand leases, and a lease as many keys.
 * Each `next` is one slice, which gives some encoded fields or nothing yet.
 */

const LEASES_A_SLICE = 1000;
const KEYS_BYTES_A_SLICE = 64 * 1024;
const LEASES_TAG = 0x12;
const KEYS_TAG = 0x2a;
const ID_TAG = 0x08;
/** Tag, length, tag and id. */
const LEASE_BYTES_MAX = 1 + 1 + 1 + 10;

/** The leases by ascending remaining time, for LeaseLeasesResponse. `check` throws when one must not be shown. */
export function* leasePieces(lessor: Lessor, check: (lease: Lease) => void): Generator<Buffer | undefined, undefined> {
  const ids: bigint[] = [];
  const expiries: number[] = [];
  for (const lease of lessor.all()) {
    check(lease);
    ids.push(lease.id);
    expiries.push(lease.expiryMs);
    if (ids.length % LEASES_A_SLICE === 0) yield;
  }
  // Only the leader knows the times: elsewhere all are equal.
  const sort = new SliceSort(ids.length, (a, b) => (expiries[a] === expiries[b] ? 0 : expiries[a]! - expiries[b]!));
  while (!sort.step()) yield;
  for (let from = 0; from < ids.length; from += LEASES_A_SLICE) {
    const piece = Buffer.allocUnsafe(LEASES_A_SLICE * LEASE_BYTES_MAX);
    let pos = 0;
    for (const position of sort.order.subarray(from, from + LEASES_A_SLICE)) {
      piece[pos] = LEASES_TAG;
      piece[pos + 2] = ID_TAG;
      const end = writeVarintBig(piece, pos + 3, ids[position]!);
      piece[pos + 1] = end - pos - 2;
      pos = end;
    }
    yield piece.subarray(0, pos);
  }
}

/** Keys for LeaseTimeToLiveResponse. */
export function* keyPieces(keys: readonly Uint8Array[]): Generator<Buffer | undefined, undefined> {
  for (let from = 0; from < keys.length; ) {
    let to = from;
    let bytes = 0;
    while (to < keys.length && bytes < KEYS_BYTES_A_SLICE) {
      const { length } = keys[to++]!;
      bytes += 1 + varintSize(length) + length;
    }
    const piece = Buffer.allocUnsafe(bytes);
    let pos = 0;
    for (; from < to; from++) {
      const key = keys[from]!;
      piece[pos++] = KEYS_TAG;
      pos = writeVarint(piece, pos, key.length);
      piece.set(key, pos);
      pos += key.length;
    }
    yield piece;
  }
}
