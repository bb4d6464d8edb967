/**
 * Leases: none ends before its time, all end after it, and while one lives so do the keys that hang on it.
 *
 * Times are of one clock that all members share the rate of. A lease lives at least its TTL from the moment at which
 * its grant or its last renewal was asked for.
 */
import type { Finding, Moment } from "./history.ts";

/** What clients did with one lease. */
export interface LeaseLog {
  readonly id: bigint;
  /** Seconds, as the server granted it; 0 until the grant was answered. */
  ttl: number;
  readonly grantInvoked: Moment;
  readonly grantInvokedMs: number;
  /** Infinity: the answer never came, or was an error. */
  grantReturned: Moment;
  /** Renewals that were acknowledged with the lease alive. */
  readonly renewals: { readonly invokedMs: number; readonly returned: Moment; readonly ttl: number }[];
  /** When a client first asked to revoke it; it may end from then on. Infinity: never. */
  revokeInvoked: Moment;
  /** Answers that said that it does not exist. */
  readonly missing: {
    readonly invoked: Moment;
    readonly returnedMs: number;
    readonly returned: Moment;
    readonly by: string;
  }[];
}

export interface LeaseEnd {
  readonly lease: bigint;
  readonly revision: number;
  readonly seen: Moment;
  readonly seenMs: number;
}

export function checkLeases(input: {
  readonly leases: readonly LeaseLog[];
  /** Revisions that ended a lease without a client's acknowledged revocation. */
  readonly ends: readonly LeaseEnd[];
  /** Leases that exist at the end, when all should be over, and by when each should have been. */
  readonly left: readonly { readonly id: bigint; readonly member: string }[];
  readonly endMs: number;
  /** How late a revocation may be, in milliseconds: elections, and the pace at which leases are revoked. */
  readonly graceMs: number;
}): Finding[] {
  const findings: Finding[] = [];
  const report = (message: string, moment: Moment): void => void findings.push({ checker: "lease", message, moment });
  const byId = new Map(input.leases.map((lease) => [lease.id, lease]));
  for (const end of input.ends) {
    const lease = byId.get(end.lease);
    if (lease === undefined)
      report(`lease ${end.lease} ended at revision ${end.revision}, but nobody asked for it`, end.seen);
    else if (lease.revokeInvoked >= end.seen) tooEarly(lease, end.seen, end.seenMs, `revision ${end.revision}`, report);
  }
  for (const lease of input.leases) {
    for (const { invoked, returned, returnedMs, by } of lease.missing) {
      if (lease.revokeInvoked < returned || lease.grantReturned >= invoked) continue;
      tooEarly(lease, returned, returnedMs, by, report);
    }
  }
  for (const { id, member } of input.left) {
    const lease = byId.get(id);
    if (lease === undefined)
      report(`member ${member} has lease ${id}, which nobody asked for`, Number.POSITIVE_INFINITY);
    else {
      const dueMs =
        Math.max(lease.grantInvokedMs, ...lease.renewals.map(({ invokedMs }) => invokedMs)) + lease.ttl * 1000;
      if (lease.ttl > 0 && dueMs + input.graceMs < input.endMs) {
        report(
          `lease ${id} of ${lease.ttl} s is still at member ${member} ${input.endMs - dueMs} ms after its time`,
          Number.POSITIVE_INFINITY,
        );
      }
    }
  }
  return findings;
}

function tooEarly(
  lease: LeaseLog,
  moment: Moment,
  atMs: number,
  what: string,
  report: (message: string, moment: Moment) => void,
): void {
  let untilMs = lease.ttl > 0 ? lease.grantInvokedMs + lease.ttl * 1000 : 0;
  for (const renewal of lease.renewals) {
    if (renewal.returned < moment) untilMs = Math.max(untilMs, renewal.invokedMs + renewal.ttl * 1000);
  }
  if (atMs < untilMs) report(`lease ${lease.id} was over ${untilMs - atMs} ms before its time, says ${what}`, moment);
}
