/** Two majorities that must agree: the voters of a joint configuration. Source: Raft thesis, section 4.3. */
import { type AckedIndexer, describeAcked, MajorityConfig, type VoteResult } from "./majority.ts";

export class JointConfig {
  readonly incoming: MajorityConfig;
  /** Empty unless the configuration is joint. */
  readonly outgoing: MajorityConfig;

  constructor(incoming = new MajorityConfig(), outgoing = new MajorityConfig()) {
    this.incoming = incoming;
    this.outgoing = outgoing;
  }

  get isJoint(): boolean {
    return this.outgoing.size > 0;
  }

  has(id: bigint): boolean {
    return this.incoming.has(id) || this.outgoing.has(id);
  }

  /** All voters of both halves. */
  ids(): Set<bigint> {
    return new Set([...this.incoming.ids, ...this.outgoing.ids]);
  }

  /** The largest index committed in both halves. */
  committedIndex(acked: AckedIndexer): number {
    return Math.min(this.incoming.committedIndex(acked), this.outgoing.committedIndex(acked));
  }

  voteResult(votes: ReadonlyMap<bigint, boolean>): VoteResult {
    const a = this.incoming.voteResult(votes);
    const b = this.outgoing.voteResult(votes);
    if (a === b) return a;
    return a === "VoteLost" || b === "VoteLost" ? "VoteLost" : "VotePending";
  }

  describe(acked: AckedIndexer): string {
    return describeAcked(this.ids(), acked);
  }

  toString(): string {
    return this.isJoint ? `${this.incoming}&&${this.outgoing}` : this.incoming.toString();
  }
}
