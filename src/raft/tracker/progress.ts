/**
 * The leader's view of a follower: how much of the log it has, and how it may be sent more.
 *
 * - StateProbe: its last index is a guess; one message at a time until it answers.
 * - StateReplicate: it follows; entries are sent without waiting for answers, within the inflight window.
 * - StateSnapshot: it needs compacted entries; nothing is sent until the outcome of the snapshot is known.
 *
 * Invariant: 0 <= match < next. Source: Raft thesis, sections 3.5 and 10.2.
 */
import { broken, invariant } from "../../base/fatal.ts";
import type { Inflights } from "./inflights.ts";

export type ProgressState = "StateProbe" | "StateReplicate" | "StateSnapshot";

export class Progress {
  readonly id: bigint;
  /** Its log matches the leader's up to here. */
  match: number;
  /** Index of the next entry to send; those in (match, next) are in flight. In StateSnapshot: pendingSnapshot + 1. */
  next: number;
  state: ProgressState = "StateProbe";
  /** Index of the snapshot being sent, in StateSnapshot. */
  pendingSnapshot = 0;
  /** Active since the last quorum check. Always true for the leader itself. */
  recentActive = false;
  /** No MsgApp until the next heartbeat response: a probe is in flight, or the window is full. */
  msgAppFlowPaused = false;
  isLearner: boolean;
  inflights: Inflights;
  /** Highest commit index sent to it. Falls back with `next`. In StateSnapshot: pendingSnapshot. */
  #sentCommit = 0;

  constructor(id: bigint, match: number, next: number, isLearner: boolean, inflights: Inflights) {
    this.id = id;
    this.match = match;
    this.next = next;
    this.isLearner = isLearner;
    this.inflights = inflights;
  }

  /** A copy with the same values. The inflight window stays shared, because the original is then discarded. */
  copy(): Progress {
    const copy = new Progress(this.id, this.match, this.next, this.isLearner, this.inflights);
    copy.state = this.state;
    copy.pendingSnapshot = this.pendingSnapshot;
    copy.recentActive = this.recentActive;
    copy.msgAppFlowPaused = this.msgAppFlowPaused;
    copy.#sentCommit = this.#sentCommit;
    return copy;
  }

  /** Resets everything but the role, for a new term whose first entry to send is `next`. */
  restart(match: number, next: number): void {
    this.match = match;
    this.next = next;
    this.recentActive = false;
    this.#sentCommit = 0;
    this.#enter("StateProbe");
  }

  becomeProbe(): void {
    // After a received snapshot, probing continues after it.
    const received = this.state === "StateSnapshot" ? this.pendingSnapshot : 0;
    this.#enter("StateProbe");
    this.next = Math.max(this.match, received) + 1;
    this.#limitSentCommit();
  }

  becomeReplicate(): void {
    this.#enter("StateReplicate");
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    this.#enter("StateSnapshot");
    this.pendingSnapshot = index;
    this.next = index + 1;
    this.#sentCommit = index;
  }

  /** Notes that a MsgApp was sent with `count` entries from `next` on, of `bytes` payload bytes. */
  sentEntries(count: number, bytes: number): void {
    if (this.state === "StateReplicate") {
      if (count > 0) {
        this.next += count;
        this.#check();
        this.inflights.add(this.next - 1, bytes);
      }
      // With a full window this message serves as a probe: no more until an answer.
      this.msgAppFlowPaused = this.inflights.full;
    } else if (this.state === "StateProbe") {
      if (count > 0) this.msgAppFlowPaused = true;
    } else broken(`sending append in unhandled state ${this.state}`);
  }

  sentCommit(commit: number): void {
    this.#sentCommit = commit;
  }

  /** Whether sending this commit index could advance the follower's. */
  canBumpCommit(commit: number): boolean {
    return commit > this.#sentCommit && this.#sentCommit < this.next - 1;
  }

  /** Handles an acknowledgement up to `index`; false if it is stale. */
  maybeUpdate(index: number): boolean {
    if (index <= this.match) return false;
    this.match = index;
    if (this.next <= index) this.next = index + 1;
    this.#check();
    this.msgAppFlowPaused = false;
    return true;
  }

  /**
   * Handles the rejection of the MsgApp that followed index `rejected`, with the follower's hint where logs may match.
   * False if it is stale: a reordered or duplicated message may reject what was acknowledged since.
   */
  maybeDecrTo(rejected: number, matchHint: number): boolean {
    if (this.state === "StateReplicate") {
      if (rejected <= this.match) return false;
      this.next = this.match + 1;
      this.#limitSentCommit();
      return true;
    }
    // One probe is in flight at a time, so a genuine rejection names the index before `next`.
    if (this.next - 1 !== rejected) return false;
    this.next = Math.max(Math.min(rejected, matchHint + 1), this.match + 1);
    this.#check();
    this.#limitSentCommit();
    this.msgAppFlowPaused = false;
    return true;
  }

  get isPaused(): boolean {
    return this.msgAppFlowPaused || this.state === "StateSnapshot";
  }

  /** A copy for observers; later changes do not show in it. */
  status(): ProgressStatus {
    return {
      match: this.match,
      next: this.next,
      state: this.state,
      isLearner: this.isLearner,
      isPaused: this.isPaused,
      pendingSnapshot: this.pendingSnapshot,
      recentActive: this.recentActive,
      inflightCount: this.inflights.count,
      inflightFull: this.inflights.full,
    };
  }

  toString(): string {
    return describeProgress(this.status());
  }

  #enter(state: ProgressState): void {
    this.msgAppFlowPaused = false;
    this.pendingSnapshot = 0;
    this.state = state;
    this.inflights.reset();
  }

  #check(): void {
    invariant(this.match < this.next, "what is sent next is behind what the follower has", this.match, this.next);
  }

  #limitSentCommit(): void {
    if (this.#sentCommit > this.next - 1) this.#sentCommit = this.next - 1;
  }
}

/** A progress at one moment. */
export interface ProgressStatus {
  readonly match: number;
  readonly next: number;
  readonly state: ProgressState;
  readonly isLearner: boolean;
  readonly isPaused: boolean;
  /** 0 unless in StateSnapshot. */
  readonly pendingSnapshot: number;
  readonly recentActive: boolean;
  readonly inflightCount: number;
  readonly inflightFull: boolean;
}

export function describeProgress(pr: ProgressStatus): string {
  let text = `${pr.state} match=${pr.match} next=${pr.next}`;
  if (pr.isLearner) text += " learner";
  if (pr.isPaused) text += " paused";
  if (pr.pendingSnapshot > 0) text += ` pendingSnap=${pr.pendingSnapshot}`;
  if (!pr.recentActive) text += " inactive";
  if (pr.inflightCount > 0) text += ` inflight=${pr.inflightCount}${pr.inflightFull ? "[full]" : ""}`;
  return text;
}
