/**
 * The guarantees of a watch, against the history: events come in the order of revisions (ordered), once (unique), none
 * is left out (reliable), all of a revision together (atomic), a broken watch resumes from any revision that is not
 * compacted (resumable), and a progress notification says that everything before it was delivered (bookmarkable).
 * Source: https://etcd.io/docs/v3.6/learning/api_guarantees/#watch-apis
 */
import { isDeepStrictEqual } from "node:util";
import type { Finding, Moment, Operation, Revision } from "./history.ts";
import { showEvents } from "./linearizability.ts";
import { inRange, type KeySpace, type Kv } from "./model.ts";

/** One watch of a client, over all the streams it needed. */
export interface WatchLog {
  readonly id: number;
  readonly key: string;
  readonly end: string;
  readonly prevKv: boolean;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  readonly steps: WatchStep[];
}

export interface WatchedEvent {
  readonly key: string;
  readonly kv: Kv | undefined;
  readonly mod: number;
  readonly prev: Kv | undefined;
}

export type WatchStep =
  /** A stream began from `startRevision`, 0 for new events only; `revision` is the answer's header. */
  | { readonly kind: "created"; readonly startRevision: number; readonly revision: number; readonly moment: Moment }
  | {
      readonly kind: "events";
      readonly revision: number;
      readonly events: readonly WatchedEvent[];
      readonly moment: Moment;
    }
  | { readonly kind: "progress"; readonly revision: number; readonly moment: Moment }
  | { readonly kind: "compacted"; readonly compactRevision: number; readonly moment: Moment }
  /** The client had this watch, live, when the cluster was at rest. */
  | { readonly kind: "settled"; readonly moment: Moment };

export function checkWatches(input: {
  readonly watches: readonly WatchLog[];
  readonly revisions: readonly Revision[];
  readonly space: KeySpace;
  readonly operations: readonly Operation[];
}): Finding[] {
  const findings: Finding[] = [];
  const compactions = input.operations.flatMap(({ action, invoked }) =>
    action.kind === "compact" ? [{ revision: action.revision, invoked }] : [],
  );
  for (const watch of input.watches) checkWatch(watch, input.revisions, input.space, compactions, findings);
  return findings;
}

function checkWatch(
  watch: WatchLog,
  revisions: readonly Revision[],
  space: KeySpace,
  compactions: readonly { readonly revision: number; readonly invoked: Moment }[],
  findings: Finding[],
): void {
  const report = (message: string, moment: Moment): void => {
    findings.push({ checker: "watch", message: `watch ${watch.id} on ${watch.key}..${watch.end}: ${message}`, moment });
  };
  const compactedBy = (moment: Moment): number =>
    Math.max(0, ...compactions.filter(({ invoked }) => invoked <= moment).map(({ revision }) => revision));
  /** The events it must get from revisions from..to. */
  const expected = (from: number, to: number): { key: string; kv: Kv | undefined; mod: number }[] => {
    const events: { key: string; kv: Kv | undefined; mod: number }[] = [];
    for (let revision = Math.max(2, from); revision <= to; revision++) {
      for (const { key, kv } of revisions[revision - 2]?.events ?? []) {
        if (!inRange(key, watch.key, watch.end)) continue;
        if (kv === undefined ? watch.noDelete : watch.noPut) continue;
        events.push({ key, kv, mod: revision });
      }
    }
    return events;
  };
  const last = revisions.at(-1)?.revision ?? 1;
  /** The first revision that was not delivered yet. */
  let next = 0;
  /** Start of the current stream. */
  let from = 0;
  for (const step of watch.steps) {
    switch (step.kind) {
      case "created":
        from = step.startRevision;
        if (next === 0) next = step.startRevision > 0 ? step.startRevision : step.revision + 1;
        break;
      case "events": {
        const { events, moment } = step;
        const to = events.at(-1)?.mod ?? 0;
        if (to > step.revision)
          report(`an event of revision ${to} came with revision ${step.revision} in the header`, moment);
        const plain = events.map(({ key, kv, mod }) => ({ key, kv, mod }));
        const wanted = expected(next, to);
        if (!isDeepStrictEqual(plain, wanted)) {
          report(
            `from revision ${next} it must get ${showEvents(wanted)} up to revision ${to}, but got ${showEvents(plain)}`,
            moment,
          );
        }
        for (const event of events) {
          const prev = watch.prevKv ? space.at(event.key, event.mod - 1) : undefined;
          if (isDeepStrictEqual(event.prev, prev)) continue;
          const gone = event.prev === undefined && compactedBy(moment) > event.mod - 1;
          if (!gone)
            report(`the previous value of ${event.key} at revision ${event.mod} is not what was there`, moment);
        }
        next = Math.max(next, to + 1);
        break;
      }
      case "progress": {
        const missed = expected(next, Math.min(step.revision, last));
        if (missed.length > 0) {
          report(`told of progress to ${step.revision}, but it lacks ${showEvents(missed)}`, step.moment);
        }
        if (step.revision < from) {
          report(`told of progress to ${step.revision} before its start at ${from}`, step.moment);
        }
        if (step.revision > last)
          report(`told of progress to revision ${step.revision}, which no member has`, step.moment);
        next = Math.max(next, step.revision + 1);
        break;
      }
      case "compacted":
        if (step.compactRevision > compactedBy(step.moment)) {
          report(`told of a compaction at ${step.compactRevision}, which nobody asked for`, step.moment);
        }
        if (next > step.compactRevision) {
          report(`ended for a compaction at ${step.compactRevision}, but it needs only ${next}`, step.moment);
        }
        // The client continues from there, and knows that it missed something.
        next = Math.max(next, step.compactRevision);
        break;
      case "settled": {
        const missed = expected(next, last);
        if (missed.length > 0) report(`never got ${showEvents(missed)}`, step.moment);
        break;
      }
    }
  }
}
