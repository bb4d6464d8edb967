/**
 * Leases: none ends before its time, all end after it, and while a lease lives, its attached keys do too.
 *
 * Times are from one clock, whose rate all members share. A lease lives at least its TTL from the moment its grant or
 * last renewal was requested.
 */
import type { Finding, Moment } from "./history.ts";

/** The clients' actions on one lease. */
export interface LeaseLog {
  readonly id: bigint;
  /** Seconds, as granted; 0 until the grant was answered. */
  ttl: number;
  readonly grantInvoked: Moment;
  readonly grantInvokedMs: number;
  /** Infinity: no answer, or an error. */
  grantReturned: Moment;
  /** Renewals that were acknowledged with the lease alive. */
  readonly renewals: { readonly invokedMs: number; readonly returned: Moment; readonly ttl: number }[];
  /** When a client first requested its revocation; it may end from then on. Infinity: never. */
  revokeInvoked: Moment;
  /** Answers saying that it does not exist. */
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
  /** Leases that still exist at the end, when all should be gone, and when each should have ended. */
  readonly left: readonly { readonly id: bigint; readonly member: string }[];
  readonly endMs: number;
  /** Permitted delay of a revocation, in milliseconds: elections, and the revocation rate. */
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
