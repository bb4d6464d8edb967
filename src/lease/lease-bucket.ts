import { InvariantError } from "../base/fatal.ts";
import type { Backend } from "../mvcc/backend/backend.ts";
import { Lease as LeaseRecord } from "../proto/leasepb.ts";

/**
 * The bucket `lease`, as etcd lays it out (server/storage/schema/lease.go): the id as 8 bytes big-endian, and under it
 * an encoded leasepb.Lease. The attached keys are not stored here: each key's KeyValue names its lease.
 */
export type LeaseBackend = Pick<Backend, "put" | "delete" | "forEach">;

export function putLease(backend: LeaseBackend, id: bigint, ttl: number, remainingTtl: number): void {
  backend.put("lease", leaseKey(id), LeaseRecord.encode({ id, ttl, remainingTtl }));
}

export function deleteLease(backend: LeaseBackend, id: bigint): void {
  backend.delete("lease", leaseKey(id));
}

/** Visits all leases, ascending by key. Throws InvariantError when a record cannot be decoded. */
export function forEachLease(backend: LeaseBackend, visit: (record: LeaseRecord) => void): void {
  backend.forEach("lease", (key, value) => {
    let record: LeaseRecord;
    try {
      record = LeaseRecord.decode(value);
    } catch (cause) {
      const id = Buffer.from(key).toString("hex");
      throw new InvariantError(`stored lease ${id} cannot be decoded: restore this member from a backup`, {
        cause,
      });
    }
    visit(record);
  });
}

function leaseKey(id: bigint): Buffer {
  const key = Buffer.allocUnsafe(8);
  key.writeBigInt64BE(id);
  return key;
}
