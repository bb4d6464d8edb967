/** How long clients were without an answer: the figures of a run. */
import type { Moment, Operation } from "../sim/checkers/history.ts";
import { type Answer, answerWrote } from "../sim/checkers/model.ts";
import { isSerializable } from "./history.ts";

/** Longest times in milliseconds without an acknowledged write and without a linearizable read. */
export interface Gap {
  readonly write: number;
  readonly read: number;
}

export interface Gaps {
  /** At any member. */
  readonly cluster: Gap;
  /** At the affected members, the worst; undefined without any. */
  readonly hit: Gap | undefined;
  /** At the worst of the others. */
  readonly others: Gap | undefined;
  /** From the end of a fault until every member had served a write and a linearizable read; the longest of all. */
  readonly recovery: number;
}

interface Answered {
  readonly member: string;
  readonly invoked: Moment;
  readonly returned: Moment;
  readonly kind: "write" | "read";
}

/** A fault at some members, until the next one. */
export interface Hit {
  readonly moment: Moment;
  readonly members: readonly string[];
}

export function gapsOf(input: {
  readonly operations: readonly Operation[];
  /** Members present for the whole window. */
  readonly members: readonly string[];
  readonly hits: readonly Hit[];
  readonly from: Moment;
  readonly to: Moment;
  readonly healed: readonly Moment[];
}): Gaps {
  const answered = input.operations.flatMap((operation) => answeredOf(operation) ?? []);
  const gap = (members: readonly string[], from: Moment, to: Moment): Gap => {
    const of = (kind: Answered["kind"]): number => {
      const moments = answered
        .filter((each) => each.kind === kind && members.includes(each.member))
        .map(({ returned }) => returned);
      return Math.round(longest(moments, from, to));
    };
    return { write: of("write"), read: of("read") };
  };
  /** The worst single members, each from one fault to the next. */
  const worst = (isMeant: (member: string, hit: Hit) => boolean): Gap | undefined => {
    const hits = input.hits.length > 0 ? input.hits : [{ moment: input.from, members: [] }];
    const gaps = hits.flatMap((hit, i) =>
      input.members
        .filter((member) => isMeant(member, hit))
        .map((member) => gap([member], hit.moment, hits[i + 1]?.moment ?? input.to)),
    );
    return gaps.length === 0
      ? undefined
      : { write: Math.max(...gaps.map(({ write }) => write)), read: Math.max(...gaps.map(({ read }) => read)) };
  };
  const first = (member: string, kind: Answered["kind"], after: Moment): number =>
    Math.min(
      ...answered
        .filter((each) => each.member === member && each.kind === kind && each.invoked >= after)
        .map(({ returned }) => returned),
    ) - after;
  const recoveries = input.healed.flatMap((moment) =>
    input.members.flatMap((member) => [first(member, "write", moment), first(member, "read", moment)]),
  );
  const everyone = [...new Set(answered.map(({ member }) => member))];
  return {
    cluster: gap(everyone, input.from, input.to),
    hit: worst((member, { members }) => members.includes(member)),
    others: worst((member, { members }) => !members.includes(member)),
    recovery: Math.round(Math.max(0, ...recoveries)),
  };
}

/** Whether a member has answered a write and a linearizable read requested after a moment. */
export function serves(operations: readonly Operation[], member: string, after: Moment): boolean {
  let write = false;
  let read = false;
  for (let i = operations.length - 1; i >= 0 && operations[i]!.invoked >= after; i--) {
    if (operations[i]!.member !== member) continue;
    const kind = answeredOf(operations[i]!)?.kind;
    write ||= kind === "write";
    read ||= kind === "read";
  }
  return write && read;
}

/** Acknowledged with an effect, or read from the whole cluster. */
function answeredOf(operation: Operation): Answered | undefined {
  const { action, outcome, member, invoked, returned } = operation;
  if (outcome.kind !== "ok" || action.kind === "compact" || action.kind === "other") return undefined;
  if (answerWrote(outcome.answer as Answer)) return { member, invoked, returned, kind: "write" };
  if (action.kind !== "range" || isSerializable(operation)) return undefined;
  return { member, invoked, returned, kind: "read" };
}

/** The longest interval between `from` and `to` without any of the moments. */
function longest(moments: readonly Moment[], from: Moment, to: Moment): number {
  let gap = 0;
  let last = from;
  for (const moment of [...moments].sort((a, b) => a - b)) {
    if (moment < from) continue;
    if (moment > to) break;
    gap = Math.max(gap, moment - last);
    last = moment;
  }
  return Math.max(gap, to - last);
}
