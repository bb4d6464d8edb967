/**
 * The state of one raft node and the transitions between its roles. The handling of messages is in step.ts and the
 * step-*.ts files, one per role; RawNode is the public interface.
 *
 * Pure and deterministic: same messages, ticks and random numbers, same state. Source: "Consensus: Bridging Theory and
 * Practice" (Ongaro, the Raft thesis).
 */

import { broken, invariant } from "../base/fatal.ts";
import { EMPTY_BYTES } from "../base/protobuf.ts";
import { type HardState, type Message, MessageType } from "../proto/raftpb.ts";
import { restoreConfig } from "./confchange/restore.ts";
import { type RaftConfig, type ResolvedRaftConfig, resolveConfig } from "./config.ts";
import { RaftLog } from "./log.ts";
import { hex, type RaftLogger } from "./logger.ts";
import { configSwitched } from "./membership.ts";
import { messageTypeName, NONE, newEntry } from "./messages.ts";
import { sortedIds } from "./quorum/majority.ts";
import { ReadOnly, type ReadState } from "./read-only.ts";
import { appendEntries } from "./replication.ts";
import { ProgressTracker } from "./tracker/tracker.ts";

/** Role of a node, named as etcd prints it. */
export type StateType = "StateFollower" | "StateCandidate" | "StateLeader" | "StatePreCandidate";

export class Raft {
  readonly id: bigint;
  readonly config: ResolvedRaftConfig;
  readonly logger: RaftLogger;
  readonly log: RaftLog;
  tracker: ProgressTracker;

  term = 0;
  /** Candidate that got this node's vote in `term`. */
  vote = NONE;
  state: StateType = "StateFollower";
  /** Leader of `term`, as far as known. */
  lead = NONE;
  isLearner = false;

  /** To other nodes, sent at once. */
  messages: Message[] = [];
  /**
   * Votes and acknowledgements, to other nodes or to this one. They promise what only holds once it is stable, so they
   * wait until everything unstable at their time is written. Thesis, section 3.8.
   */
  messagesAfterAppend: Message[] = [];
  readStates: ReadState[] = [];

  /** Target of the leadership transfer in progress. Thesis, section 3.10. */
  leadTransferee = NONE;
  /**
   * At or above the index of the last configuration change in the log that may not be applied yet. The leader proposes
   * no other until it is applied: only one may be pending.
   */
  pendingConfIndex = 0;
  /** Estimate, never too high, of the payload bytes of a leader's uncommitted entries. */
  uncommittedBytes = 0;
  readOnly: ReadOnly;
  /** Requests that arrived before the leader committed an entry of its term. */
  pendingReadIndexMessages: Message[] = [];

  /** Ticks since a valid message from the leader, or since the last election or quorum check. */
  electionElapsed = 0;
  heartbeatElapsed = 0;
  /** Drawn from [electionTicks, 2 * electionTicks) at each change of role. */
  randomizedElectionTimeout = 0;

  /** Throws RaftConfigError; ConfChangeError or InvariantError if the storage holds no valid state. */
  constructor(config: RaftConfig) {
    this.config = resolveConfig(config);
    const { id, storage, logger } = this.config;
    this.id = id;
    this.logger = logger;
    this.log = new RaftLog(storage, logger, this.config.committedBytesMax);
    this.tracker = this.newTracker();
    this.readOnly = new ReadOnly(this.config.readOnlyOption);

    const { hardState, confState } = storage.initialState();
    const lastIndex = this.log.lastIndex();
    const lastTerm = this.log.lastTerm();
    restoreConfig(this.tracker, lastIndex, confState);
    configSwitched(this);
    if (hardState !== undefined) this.#load(hardState);
    if (this.config.applied > 0) this.log.appliedTo(this.config.applied, 0);
    this.becomeFollower(this.term, NONE);
    this.logger.info?.(
      `newRaft ${hex(id)} [peers: [${sortedIds(this.tracker.config.voters.ids()).map(hex).join(",")}], ` +
        `term: ${this.term}, commit: ${this.log.committed}, applied: ${this.log.applied}, ` +
        `lastindex: ${lastIndex}, lastterm: ${lastTerm}]`,
    );
  }

  newTracker(): ProgressTracker {
    return new ProgressTracker(this.config.inflightMessagesMax, this.config.inflightBytesMax);
  }

  becomeFollower(term: number, lead: bigint): void {
    this.#reset(term);
    this.lead = lead;
    this.state = "StateFollower";
    this.logger.info?.(`${hex(this.id)} became follower at term ${this.term}`);
  }

  becomeCandidate(): void {
    if (this.state === "StateLeader") broken("invalid transition [leader -> candidate]");
    this.#reset(this.term + 1);
    this.vote = this.id;
    this.state = "StateCandidate";
    this.logger.info?.(`${hex(this.id)} became candidate at term ${this.term}`);
  }

  /** Neither term nor vote change: the pre-vote only asks. */
  becomePreCandidate(): void {
    if (this.state === "StateLeader") broken("invalid transition [leader -> pre-candidate]");
    this.tracker.resetVotes();
    this.lead = NONE;
    this.state = "StatePreCandidate";
    this.logger.info?.(`${hex(this.id)} became pre-candidate at term ${this.term}`);
  }

  becomeLeader(): void {
    if (this.state === "StateFollower") broken("invalid transition [follower -> leader]");
    invariant(this.vote === this.id, "a leader has voted for itself", this.vote, this.id);
    this.#reset(this.term);
    this.lead = this.id;
    this.state = "StateLeader";
    const own = this.tracker.get(this.id) ?? broken("a leader must be in its configuration");
    own.becomeReplicate();
    own.recentActive = true;
    // An unapplied entry may be a change. Waiting for all of them is cheaper than looking.
    this.pendingConfIndex = this.log.lastIndex();
    // Entries of earlier terms commit only together with one of this term.
    if (!appendEntries(this, [newEntry(EMPTY_BYTES)])) broken("empty entry was dropped");
    this.logger.info?.(`${hex(this.id)} became leader at term ${this.term}`);
  }

  /** Queues a message for the next Ready, filling in sender and term. */
  send(message: Message): void {
    if (message.from === NONE) message.from = this.id;
    const { type } = message;
    switch (type) {
      case MessageType.MsgVote:
      case MessageType.MsgPreVote:
      case MessageType.MsgVoteResp:
      case MessageType.MsgPreVoteResp:
        // The term of a campaign is not always the sender's own.
        if (message.term === 0) broken(`term should be set when sending ${messageTypeName(type)}`);
        break;
      case MessageType.MsgProp:
      case MessageType.MsgReadIndex:
        // Forwarded to the leader as if proposed there: with term 0.
        break;
      default:
        if (message.term !== 0) {
          broken(`term should not be set when sending ${messageTypeName(type)} (was ${message.term})`);
        }
        message.term = this.term;
    }
    if (type === MessageType.MsgAppResp || type === MessageType.MsgVoteResp || type === MessageType.MsgPreVoteResp) {
      this.messagesAfterAppend.push(message);
      return;
    }
    if (message.to === this.id) broken(`message should not be self-addressed when sending ${messageTypeName(type)}`);
    this.messages.push(message);
  }

  /** Whether this node may campaign: a voter, with no snapshot waiting to be written. */
  get promotable(): boolean {
    const own = this.tracker.get(this.id);
    return own !== undefined && !own.isLearner && this.log.unstable.snapshot === undefined;
  }

  get pastElectionTimeout(): boolean {
    return this.electionElapsed >= this.randomizedElectionTimeout;
  }

  /** The log may be read at the commit index only once an entry of the leader's own term is committed. */
  get committedInCurrentTerm(): boolean {
    return this.log.term(this.log.committed) === this.term;
  }

  #load(state: HardState): void {
    const last = this.log.lastIndex();
    if (state.term === 0 && state.vote === NONE && state.commit === 0) return;
    if (state.commit < this.log.committed || state.commit > last) {
      broken(`${hex(this.id)} state.commit ${state.commit} is out of range [${this.log.committed}, ${last}]`);
    }
    this.log.committed = state.commit;
    this.term = state.term;
    this.vote = state.vote;
  }

  #reset(term: number): void {
    invariant(term >= this.term, "the term never falls", term, this.term);
    if (this.term !== term) {
      this.term = term;
      this.vote = NONE;
    }
    this.lead = NONE;
    this.electionElapsed = 0;
    this.heartbeatElapsed = 0;
    const { electionTicks, random } = this.config;
    this.randomizedElectionTimeout = electionTicks + random.below(electionTicks);
    this.leadTransferee = NONE;
    this.tracker.resetVotes();
    const last = this.log.lastIndex();
    for (const pr of this.tracker.ordered) pr.restart(pr.id === this.id ? last : 0, last + 1);
    this.pendingConfIndex = 0;
    this.uncommittedBytes = 0;
    this.readOnly = new ReadOnly(this.readOnly.option);
  }
}
