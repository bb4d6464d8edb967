/** A node's observable state at one moment. */
import type { Raft, StateType } from "./raft.ts";
import type { TrackerConfig } from "./tracker/config.ts";
import type { ProgressStatus } from "./tracker/progress.ts";

export interface BasicStatus {
  readonly id: bigint;
  readonly term: number;
  readonly vote: bigint;
  readonly commit: number;
  /** 0 without a leader. */
  readonly lead: bigint;
  readonly state: StateType;
  readonly applied: number;
  /** 0 unless a transfer is in progress. */
  readonly leadTransferee: bigint;
}

export interface Status extends BasicStatus {
  readonly config: TrackerConfig;
  /** By id, in rising order; empty unless this node is leader. */
  readonly progress: ReadonlyMap<bigint, ProgressStatus>;
}

export function basicStatus(r: Raft): BasicStatus {
  return {
    id: r.id,
    term: r.term,
    vote: r.vote,
    commit: r.log.committed,
    lead: r.lead,
    state: r.state,
    applied: r.log.applied,
    leadTransferee: r.leadTransferee,
  };
}

export function status(r: Raft): Status {
  const progress = new Map<bigint, ProgressStatus>();
  if (r.state === "StateLeader") for (const pr of r.tracker.ordered) progress.set(pr.id, pr.status());
  return { ...basicStatus(r), config: r.tracker.config.clone(), progress };
}
