/**
 * The way of sampled requests through the log, for tracing. Called once for a batch, whatever is in it, and only while tracing
 * is on.
 */
import type { Entry } from "../../proto/raftpb.ts";

/** A proposal, as its trace sees it. */
export interface TracedProposal {
  /** 0 while it waits to be proposed. */
  readonly id: number;
  /** Its position in this leader's log; 0 while it has none, or when another member leads. */
  readonly index: number;
  readonly term: number;
}

export interface RequestTrace {
  /** What waited has been given to raft. */
  proposed(): void;
  /** The entries that raft had are written to the log. */
  written(): void;
  /** A sync of the log that took so long is over. */
  synced(tookMs: number): void;
  /** These entries are committed, and are applied now. */
  committed(entries: readonly Entry[]): void;
  /** It has changed the state, and is about to be answered. */
  applied(proposal: TracedProposal): void;
}
