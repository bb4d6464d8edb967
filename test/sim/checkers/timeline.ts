/** A replicated state beside the keys, by the index of the log entry that made it, and the first member to have it. */
import { isDeepStrictEqual } from "node:util";
import type { Moment } from "./history.ts";

export interface Stage<T> {
  readonly index: number;
  readonly state: T;
  /** When it was first seen at a member. */
  readonly seen: Moment;
  readonly member: string;
}

export class Timeline<T> {
  readonly stages: Stage<T>[];

  constructor(first: T) {
    this.stages = [{ index: 0, state: first, seen: 0, member: "nobody" }];
  }

  /** The state after the entry at `index`. */
  at(index: number): Stage<T> {
    return this.stages.findLast((stage) => stage.index <= index)!;
  }

  /** `member` changed to `state` when it applied the entry at `index`. Returns what is wrong with that. */
  changed(member: string, index: number, state: T, seen: Moment): string | undefined {
    const last = this.stages.at(-1)!;
    if (index > last.index) {
      this.stages.push({ index, state, seen, member });
      return undefined;
    }
    const known = this.at(index);
    // Two changes by one entry: others can only see the last.
    if (known.index === index && known.member === member && known === last) {
      this.stages[this.stages.length - 1] = { ...known, state };
      return undefined;
    }
    return this.differs(member, index, state);
  }

  /** What is wrong with `member` having `state` after the entry at `index`. */
  differs(member: string, index: number, state: T): string | undefined {
    const known = this.at(index);
    if (isDeepStrictEqual(known.state, state)) return undefined;
    return `${member} has ${JSON.stringify(state)} at index ${index}, but ${known.member} had ${JSON.stringify(known.state)} since ${known.index}`;
  }

  /** The stages that can have served a request in this interval, by a lagging member or one that is up to date. */
  during(invoked: Moment, returned: Moment, mayLag: boolean): readonly Stage<T>[] {
    let first = 0;
    if (!mayLag) while (first + 1 < this.stages.length && this.stages[first + 1]!.seen < invoked) first++;
    return this.stages.slice(first).filter(({ seen }, i) => i === 0 || seen <= returned);
  }
}
