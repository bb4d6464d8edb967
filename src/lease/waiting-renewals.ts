import { LessorError } from "./errors.ts";
import type { Lease, RenewCallback } from "./lease.ts";

/**
 * Renewals of expired leases. A lease's revocation may be in progress: only its outcome tells whether the renewal
 * succeeds.
 */
export class WaitingRenewals {
  readonly #max: number;
  #count = 0;

  constructor(max: number) {
    this.#max = max;
  }

  add(lease: Lease, done: RenewCallback): void {
    if (this.#count >= this.#max) {
      done(new LessorError("ERR_LESSOR_BUSY"), -1);
      return;
    }
    this.#count++;
    if (lease.waiting === undefined) lease.waiting = [done];
    else lease.waiting.push(done);
  }

  /** Answers those of a lease. */
  end(lease: Lease, code: "ERR_LEASE_NOT_FOUND" | "ERR_LESSOR_NOT_PRIMARY"): void {
    const { waiting } = lease;
    if (waiting === undefined) return;
    lease.waiting = undefined;
    this.#count -= waiting.length;
    for (const done of waiting) done(new LessorError(code), -1);
  }

  /** Answers those of all these leases. */
  endAll(leases: Iterable<Lease>, code: "ERR_LESSOR_NOT_PRIMARY"): void {
    if (this.#count === 0) return;
    for (const lease of [...leases]) this.end(lease, code);
  }
}
