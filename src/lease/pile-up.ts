import type { Lease } from "./lease.ts";

/**
 * After an election every lease starts again, so thousands granted at different times may now expire within one second,
 * more than can be revoked in it. Moves the later of such leases back so that about three quarters of `revokeRate` expire per second.
 * `leases` ascend by expiry and are at least one.
 *
 * Source: Promote in etcd's server/lease/lessor.go, whose windows this reproduces.
 */
export function spreadPileUp(leases: readonly Lease[], revokeRate: number, nowMs: number, extendMs: number): void {
  const target = Math.trunc((3 * revokeRate) / 4);
  let windowStart = leases[0]!.expiryMs - nowMs;
  let windowEnd = windowStart + 1000;
  let inWindow = 0;
  for (const lease of leases) {
    const remaining = lease.expiryMs - nowMs;
    if (remaining > windowEnd) {
      windowStart = remaining;
      windowEnd = windowStart + 1000;
      inWindow = 1;
      continue;
    }
    inWindow++;
    if (inWindow <= target) continue;
    const delay = 1000 * (inWindow / target) - (remaining - windowStart);
    windowEnd = windowStart + delay;
    lease.expiryMs = nowMs + delay + extendMs + lease.secondsLeft * 1000;
  }
}
