/**
 * Long transactions that other members forward to this leader, checked in slices before raft sees them: decoding a
 * hundred thousand operations takes some 50 ms. Messages are done in the order in which they came. What waits is
 * bounded; more is refused, and its client is told that the request timed out.
 */
import type { Clock } from "../../base/clock.ts";
import { SliceBudget } from "../../base/slice-budget.ts";
import type { Slices } from "../../base/slices.ts";
import { type Entry, EntryType, type Message, MessageType } from "../../proto/raftpb.ts";
import { objectionInSlices } from "../log/entry.ts";
import { OPS_AT_ONCE } from "../log/txn-size.ts";
import { isLongProposal, proposalObjection } from "./message-check.ts";

const WAITING_BYTES_MAX = 64 * 1024 * 1024;

export class LongProposals {
  readonly #clock: Clock;
  readonly #done: (message: Message, problem: string | undefined) => void;
  readonly #waiting: {
    readonly message: Message;
    readonly bytes: number;
    readonly slices: Slices<string | undefined>;
  }[] = [];
  #bytes = 0;
  #stopped = false;

  /** `done` gets each message with the problem that its check found, in a later turn. */
  constructor(clock: Clock, done: (message: Message, problem: string | undefined) => void) {
    this.#clock = clock;
    this.#done = done;
  }

  /** Takes a message with a long transaction; false for any other. */
  take(message: Message): boolean {
    if (message.type !== MessageType.MsgProp || !message.entries.some(isLongProposal)) return false;
    const bytes = message.entries.reduce((sum, { data }) => sum + data.length, 0);
    if (this.#bytes > 0 && this.#bytes + bytes > WAITING_BYTES_MAX) {
      this.#clock.defer(() => this.#finish(message, "too many long transactions of other members wait to be checked"));
      return true;
    }
    this.#bytes += bytes;
    if (this.#waiting.push({ message, bytes, slices: check(message.entries) }) === 1) this.#clock.defer(this.#step);
    return true;
  }

  stop(): void {
    this.#stopped = true;
    this.#waiting.length = 0;
  }

  readonly #step = (): void => {
    const first = this.#waiting[0];
    if (first === undefined) return;
    const { done, value } = first.slices.next();
    if (done === true) {
      this.#waiting.shift();
      this.#bytes -= first.bytes;
      this.#finish(first.message, value);
    }
    if (this.#waiting.length > 0) this.#clock.defer(this.#step);
  };

  #finish(message: Message, problem: string | undefined): void {
    if (!this.#stopped) this.#done(message, problem);
  }
}

function* check(entries: readonly Entry[]): Slices<string | undefined> {
  const budget = new SliceBudget(OPS_AT_ONCE * SLICE_OPS, Number.POSITIVE_INFINITY);
  for (const entry of entries) {
    if (entry.type !== EntryType.EntryNormal) continue;
    const objection = isLongProposal(entry) ? yield* objectionInSlices(entry.data, budget) : undefined;
    if (objection !== undefined) return proposalObjection(objection);
  }
  return undefined;
}

/** Of what is decoded at once elsewhere: some two milliseconds. */
const SLICE_OPS = 8;
