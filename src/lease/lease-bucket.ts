import type { Clock } from "../base/clock.ts";
import { InvariantError } from "../base/fatal.ts";
import { othersTurn } from "../base/others-turn.ts";
import type { Backend } from "../mvcc/backend/backend.ts";
import { Lease as LeaseRecord } from "../proto/leasepb.ts";

/**
 * The bucket `lease`, as etcd lays it out (server/storage/schema/lease.go): the id as 8 bytes big-endian, and under it
 * an encoded leasepb.Lease. The attached keys are not stored here: each key's KeyValue names its lease.
 */
export type LeaseBackend = Pick<Backend, "put" | "delete">;

export function putLease(backend: LeaseBackend, id: bigint, ttl: number, remainingTtl: number): void {
  backend.put("lease", leaseKey(id), LeaseRecord.encode({ id, ttl, remainingTtl }));
}

export function deleteLease(backend: LeaseBackend, id: bigint): void {
  backend.delete("lease", leaseKey(id));
}

/**
 * Visits all leases, ascending by key, as of the call; in slices, because there may be hundreds of thousands. Throws
 * InvariantError when a record cannot be decoded.
 */
export async function readLeases(
  backend: Pick<Backend, "snapshot">,
  clock: Clock,
  visit: (record: LeaseRecord) => void,
): Promise<void> {
  const view = await backend.snapshot();
  try {
    for (const chunk of view.entries("lease", SLICE_BYTES)) {
      for (const { key, value } of chunk) visit(decode(key, value));
      await othersTurn(clock);
    }
  } finally {
    view.close();
  }
}

/** One or two thousand leases. */
const SLICE_BYTES = 32 * 1024;

function decode(key: Uint8Array, value: Uint8Array): LeaseRecord {
  try {
    return LeaseRecord.decode(value);
  } catch (cause) {
    const id = Buffer.from(key).toString("hex");
    throw new InvariantError(`stored lease ${id} cannot be decoded: restore this member from a backup`, { cause });
  }
}

function leaseKey(id: bigint): Buffer {
  const key = Buffer.allocUnsafe(8);
  key.writeBigInt64BE(id);
  return key;
}
