/** The configuration, with the progress and votes of its members. */
import type { AckedIndexer, VoteResult } from "../quorum/majority.ts";
import { sortedIds } from "../quorum/majority.ts";
import { TrackerConfig } from "./config.ts";
import { Inflights } from "./inflights.ts";
import type { Progress } from "./progress.ts";

export type ProgressMap = Map<bigint, Progress>;

export interface Tally {
  readonly granted: number;
  readonly rejected: number;
  readonly result: VoteResult;
}

export class ProgressTracker implements AckedIndexer {
  readonly inflightCountMax: number;
  readonly inflightBytesMax: number;
  config = new TrackerConfig();
  #progress: ProgressMap = new Map();
  /** All progress in rising order of ids: the order in which messages are sent. */
  #ordered: readonly Progress[] = [];
  #votes = new Map<bigint, boolean>();

  constructor(inflightCountMax: number, inflightBytesMax: number) {
    this.inflightCountMax = inflightCountMax;
    this.inflightBytesMax = inflightBytesMax;
  }

  get progress(): ReadonlyMap<bigint, Progress> {
    return this.#progress;
  }

  get ordered(): readonly Progress[] {
    return this.#ordered;
  }

  get(id: bigint): Progress | undefined {
    return this.#progress.get(id);
  }

  /** Activates a configuration made by confchange/. */
  use(config: TrackerConfig, progress: ProgressMap): void {
    this.config = config;
    this.#progress = progress;
    this.#ordered = sortedIds(progress.keys()).map((id) => progress.get(id)!);
  }

  newInflights(): Inflights {
    return new Inflights(this.inflightCountMax, this.inflightBytesMax);
  }

  /** Whether a node is the only voter: it is its own quorum. */
  isOnlyVoter(id: bigint): boolean {
    const { voters } = this.config;
    return voters.incoming.size === 1 && !voters.isJoint && voters.incoming.has(id);
  }

  ackedIndex(id: bigint): number | undefined {
    return this.#progress.get(id)?.match;
  }

  /** The largest index that the voters have acknowledged by quorum. */
  committed(): number {
    return this.config.voters.committedIndex(this);
  }

  /** Whether a quorum was active since the last check. */
  quorumActive(): boolean {
    const active = new Map<bigint, boolean>();
    for (const pr of this.#ordered) if (!pr.isLearner) active.set(pr.id, pr.recentActive);
    return this.config.voters.voteResult(active) === "VoteWon";
  }

  resetVotes(): void {
    this.#votes = new Map();
  }

  /** A node's first vote counts; it may not change within a term. */
  recordVote(id: bigint, granted: boolean): void {
    if (!this.#votes.has(id)) this.#votes.set(id, granted);
  }

  tallyVotes(): Tally {
    let granted = 0;
    let rejected = 0;
    for (const pr of this.#ordered) {
      const vote = pr.isLearner ? undefined : this.#votes.get(pr.id);
      if (vote === true) granted++;
      else if (vote === false) rejected++;
    }
    return { granted, rejected, result: this.config.voters.voteResult(this.#votes) };
  }
}
