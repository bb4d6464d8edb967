/** Falsifications, each of which TLC must find in a trace: they show that an accepted trace means something. */
import type { TraceEvent } from "./event.ts";

export interface Doctor {
  readonly name: string;
  /** The falsified trace; undefined where there is nothing to falsify. */
  readonly apply: (events: readonly TraceEvent[]) => TraceEvent[] | undefined;
}

export const DOCTORS: readonly Doctor[] = [
  {
    name: "a commit index one too high",
    apply: (events) => change(events, isLast(events, "Commit"), (event) => event.state.commit++),
  },
  {
    name: "another vote",
    apply: (events) => change(events, isLast(events, "BecomeLeader"), (event) => (event.state.vote = "99")),
  },
  {
    name: "a term that nobody began",
    apply: (events) => change(events, isLast(events, "ReceiveAppendEntriesRequest"), (event) => event.state.term++),
  },
  {
    name: "an acknowledgement of more than there is",
    apply: (events) => {
      const at = events.findLastIndex(({ name, msg }) => {
        // The index of a rejection carries no information.
        return name === "ReceiveAppendEntriesResponse" && msg!.type === "MsgAppResp" && !msg!.reject;
      });
      return change(
        events,
        (_, i) => i === at,
        (event) => (event.msg!.index += 100),
      );
    },
  },
  {
    name: "an entry less sent",
    apply: (events) =>
      change(
        events,
        (event, i) => event.msg?.type === "MsgApp" && event.msg.entries > 0 && event.name.startsWith("Send") && i > 0,
        (event) => event.msg!.entries--,
      ),
  },
  {
    name: "a leader with a vote less",
    apply: (events) => {
      const leads = events.findIndex(({ name }) => name === "BecomeLeader");
      const { nid, state } = events[leads] ?? {};
      const vote = events.findIndex(({ name, msg }, i) => {
        if (name !== "ReceiveRequestVoteResponse" || i > leads) return false;
        return msg!.to === nid && msg!.term === state!.term && !msg!.reject;
      });
      return vote < 0 ? undefined : events.filter((_, i) => i !== vote);
    },
  },
  {
    name: "a log that lost an entry in a restart",
    apply: (events) => {
      const ready = new Set<string>();
      let restart = -1;
      events.forEach(({ name, nid, log }, i) => {
        if (name === "Ready") ready.add(nid);
        else if (name !== "InitState") return;
        else if (ready.has(nid) && log > 1) restart = i;
      });
      return change(
        events,
        (_, i) => i === restart,
        (event) => event.log--,
      );
    },
  },
];

function isLast(events: readonly TraceEvent[], name: TraceEvent["name"]) {
  const at = events.findLastIndex((event) => event.name === name);
  return (_: TraceEvent, i: number): boolean => i === at;
}

/** A copy with a change at the first event accepted by `chosen`. */
function change(
  events: readonly TraceEvent[],
  chosen: (event: TraceEvent, i: number) => boolean,
  edit: (event: TraceEvent) => void,
): TraceEvent[] | undefined {
  const at = events.findIndex(chosen);
  if (at < 0) return undefined;
  const copy = structuredClone(events[at]!);
  edit(copy);
  return events.toSpliced(at, 1, copy);
}
