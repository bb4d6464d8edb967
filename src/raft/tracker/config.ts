/** The active configuration: voters and learners. Source: Raft thesis, chapter 4. */
import { ConfState } from "../../proto/raftpb.ts";
import { JointConfig } from "../quorum/joint.ts";
import { idsToString, MajorityConfig, sortedIds } from "../quorum/majority.ts";

export class TrackerConfig {
  voters = new JointConfig();
  /** Leave the joint configuration as soon as it is applied, without a request from the application. */
  autoLeave = false;
  /** Disjoint from the voters of both halves. */
  learners = new Set<bigint>();
  /** Voters of the outgoing half that become learners when the joint configuration is left; they vote until then. */
  learnersNext = new Set<bigint>();

  clone(): TrackerConfig {
    const copy = new TrackerConfig();
    copy.voters = new JointConfig(
      new MajorityConfig(this.voters.incoming.ids),
      new MajorityConfig(this.voters.outgoing.ids),
    );
    copy.autoLeave = this.autoLeave;
    copy.learners = new Set(this.learners);
    copy.learnersNext = new Set(this.learnersNext);
    return copy;
  }

  confState(): ConfState {
    return ConfState.create({
      voters: this.voters.incoming.sorted(),
      votersOutgoing: this.voters.outgoing.sorted(),
      learners: sortedIds(this.learners),
      learnersNext: sortedIds(this.learnersNext),
      autoLeave: this.autoLeave,
    });
  }

  toString(): string {
    let text = `voters=${this.voters}`;
    if (this.learners.size > 0) text += ` learners=${idsToString(this.learners)}`;
    if (this.learnersNext.size > 0) text += ` learners_next=${idsToString(this.learnersNext)}`;
    if (this.autoLeave) text += " autoleave";
    return text;
  }
}
