/**
 * The observations of real members' clients, in the form that the simulator's checkers take, and their result.
 *
 * All moments are milliseconds of the observer's monotonic clock. Watches, one on each member from revision 1 on,
 * report what was committed: a revision counts as known from the first moment at which any client received it. That is
 * later than its commit, never earlier, so no check is stricter than the guarantees.
 */
import { isDeepStrictEqual } from "node:util";
import type { Finding, Moment, Operation, Revision } from "../sim/checkers/history.ts";
import { checkLeases, type LeaseLog } from "../sim/checkers/lease.ts";
import { checkLinearizability, showEvents } from "../sim/checkers/linearizability.ts";
import type { ModelEvent } from "../sim/checkers/model.ts";
import { checkWatches, type WatchLog } from "../sim/checkers/watch.ts";

/** A watch of everything on one member, from revision 1 on. */
export interface Observed {
  readonly member: string;
  readonly log: WatchLog;
}

export interface History {
  readonly operations: readonly Operation[];
  readonly watches: readonly WatchLog[];
  readonly observed: readonly Observed[];
  readonly leases: readonly LeaseLog[];
  /** Leases that members still had at `endMs`. */
  readonly leasesLeft: readonly { readonly id: bigint; readonly member: string }[];
  readonly endMs: Moment;
}

export interface Verdict {
  readonly findings: readonly Finding[];
  readonly revisions: number;
  /** Ended leases whose end clients would have seen. */
  readonly leaseEnds: number;
}

/** Permitted delay of a lease's end: elections, each of which restarts all leases. */
const LEASE_GRACE_MS = 30_000;

export function judge(history: History): Verdict {
  const findings: Finding[] = [];
  const revisions = committed(history, findings);
  const { operations, leases, leasesLeft, endMs } = history;
  const linearized = checkLinearizability({ operations, revisions, seenIsKnown: true, isSerializable });
  findings.push(...linearized.findings);
  const watches = [...history.watches, ...history.observed.map(({ log }) => log)];
  findings.push(...checkWatches({ watches, revisions, space: linearized.space, operations }));
  const ends = [...linearized.leaseEnds].map(([revision, lease]) => {
    const { seen } = revisions[revision - 2]!;
    return { lease, revision, seen, seenMs: seen };
  });
  findings.push(...checkLeases({ leases, ends, left: leasesLeft, endMs, graceMs: LEASE_GRACE_MS }));
  return { findings, revisions: revisions.length, leaseEnds: ends.length };
}

export const isSerializable = ({ action }: Operation): boolean =>
  (action.kind === "range" && action.request.serializable) ||
  // A transaction with only comparisons is answered from the member's local state.
  (action.kind === "txn" && action.request.success.length + action.request.failure.length === 0);

/** The revisions as reported by members, which must be the same at all, without gaps. */
function committed({ operations, watches, observed }: History, findings: Finding[]): Revision[] {
  const all = new Map<number, { events: readonly ModelEvent[]; seen: Moment; member: string }>();
  for (const { member, log } of observed) {
    for (const { revision, events, moment } of revisionsOf(log)) {
      const known = all.get(revision);
      if (known === undefined) all.set(revision, { events, seen: moment, member });
      else {
        known.seen = Math.min(known.seen, moment);
        if (!isDeepStrictEqual(known.events, events)) {
          const message = `revision ${revision} is ${showEvents(events)} at ${member}, but ${showEvents(known.events)} at ${known.member}`;
          findings.push({ checker: "state", message, moment });
        }
      }
    }
  }
  const revisions: Revision[] = [];
  for (let revision = 2; revision <= all.size + 1; revision++) {
    const known = all.get(revision);
    if (known === undefined) {
      const message = `no member told of revision ${revision}, but they did of ${all.size - revisions.length} later ones`;
      findings.push({ checker: "state", message, moment: Number.POSITIVE_INFINITY });
      break;
    }
    revisions.push({ revision, events: known.events, seen: known.seen });
  }
  return knownFrom(revisions, operations, watches);
}

/** A transaction's events may come in several responses only if fragmented, which is not requested here. */
function revisionsOf(log: WatchLog): { revision: number; events: ModelEvent[]; moment: Moment }[] {
  const found: { revision: number; events: ModelEvent[]; moment: Moment }[] = [];
  for (const step of log.steps) {
    if (step.kind !== "events") continue;
    for (const { key, kv, mod } of step.events) {
      const last = found.at(-1);
      if (last?.revision === mod && last.moment === step.moment) last.events.push({ key, kv });
      else found.push({ revision: mod, events: [{ key, kv }], moment: step.moment });
    }
  }
  return found;
}

/** A client that learns of a revision knows that all before it are committed. */
function knownFrom(
  revisions: readonly Revision[],
  operations: readonly Operation[],
  watches: readonly WatchLog[],
): Revision[] {
  const told = new Float64Array(revisions.length + 3).fill(Number.POSITIVE_INFINITY);
  const tell = (revision: number, moment: Moment): void => {
    const at = Math.min(revision, revisions.length + 1);
    told[at] = Math.min(told[at]!, moment);
  };
  for (const { revision, seen } of revisions) tell(revision, seen);
  for (const { outcome, returned } of operations) if (outcome.kind === "ok") tell(outcome.revision, returned);
  for (const { steps } of watches) for (const step of steps) if ("revision" in step) tell(step.revision, step.moment);
  for (let revision = revisions.length; revision >= 2; revision--) {
    told[revision] = Math.min(told[revision]!, told[revision + 1]!);
  }
  return revisions.map(({ revision, events }) => ({ revision, events, seen: told[revision]! }));
}
