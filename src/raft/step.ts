/** The entry point of every message and tick: first the rules for all roles, then the role's own. */
import { type Message, MessageType } from "../proto/raftpb.ts";
import { handleVoteRequest, hup, ignoredForLease, rejectVote } from "./election.ts";
import { entriesSize, payloadsSize } from "./entry-size.ts";
import type { RaftError } from "./errors.ts";
import { hex } from "./logger.ts";
import { appliedSnapshot, appliedTo } from "./membership.ts";
import { messageTypeName, NONE, newMessage } from "./messages.ts";
import type { Raft } from "./raft.ts";
import { broadcastHeartbeat, reduceUncommitted } from "./replication.ts";
import { stepCandidate } from "./step-candidate.ts";
import { stepFollower } from "./step-follower.ts";
import { checkQuorum, stepLeader } from "./step-leader.ts";

/** Handles one message. Takes ownership of a MsgProp's entries; everything else in the message stays unchanged. */
export function step(r: Raft, message: Message): RaftError | undefined {
  const { type, term } = message;
  // Messages with term 0 are local, or treated as local.
  if (term > r.term) {
    if (!enterTerm(r, message)) return undefined;
  } else if (term !== 0 && term < r.term) {
    answerOldTerm(r, message);
    return undefined;
  }
  switch (type) {
    case MessageType.MsgHup:
      hup(r, r.config.preVote ? "pre-election" : "election");
      return undefined;
    case MessageType.MsgVote:
    case MessageType.MsgPreVote:
      if (term !== 0) handleVoteRequest(r, message);
      return undefined;
    case MessageType.MsgStorageAppendResp:
      if (message.index !== 0) r.log.unstable.stableTo(message.index, message.logTerm);
      if (message.snapshot !== undefined) appliedSnapshot(r, message.snapshot);
      return undefined;
    case MessageType.MsgStorageApplyResp:
      storageApplied(r, message);
      return undefined;
    default:
      return stepRole(r, message);
  }
}

function stepRole(r: Raft, message: Message): RaftError | undefined {
  switch (r.state) {
    case "StateLeader":
      return stepLeader(r, message);
    case "StateFollower":
      return stepFollower(r, message);
    default:
      return stepCandidate(r, message);
  }
}

/** Handles a later term. False if the message must not be processed further. */
function enterTerm(r: Raft, message: Message): boolean {
  const { type, term, from } = message;
  const asksVote = type === MessageType.MsgVote || type === MessageType.MsgPreVote;
  if (asksVote && ignoredForLease(r, message)) return false;
  // A pre-vote only asks about the term. When granted, it returns with that term, and the real vote will raise it.
  if (type === MessageType.MsgPreVote) return true;
  if (type === MessageType.MsgPreVoteResp && !message.reject) return true;
  r.logger.info?.(
    `${hex(r.id)} [term: ${r.term}] received a ${messageTypeName(type)} message with higher term from ` +
      `${hex(from)} [term: ${term}]`,
  );
  const fromLeader = type === MessageType.MsgApp || type === MessageType.MsgHeartbeat || type === MessageType.MsgSnap;
  r.becomeFollower(term, fromLeader ? from : NONE);
  return true;
}

function answerOldTerm(r: Raft, message: Message): void {
  const { type, from, term } = message;
  const fromLeader = type === MessageType.MsgHeartbeat || type === MessageType.MsgApp;
  if (fromLeader && (r.config.checkQuorum || r.config.preVote)) {
    // A node whose term rose while it was partitioned cannot get votes, because the lease or the pre-vote protects the
    // leader. Its answer makes the leader step down, so that an election brings all nodes to one term.
    r.send(newMessage(MessageType.MsgAppResp, from));
    return;
  }
  if (type === MessageType.MsgPreVote) {
    // Without an answer, a candidate of a lower term with a longer log could wait forever.
    rejectVote(r, message);
    return;
  }
  if (type === MessageType.MsgStorageAppendResp) {
    // The entries may have been overwritten since; see newStorageAppendResp. A snapshot is committed state of any term.
    if (message.index !== 0) {
      r.logger.info?.(
        `${hex(r.id)} [term: ${r.term}] ignored entry appends from a ${messageTypeName(type)} message with lower term ` +
          `[term: ${term}]`,
      );
    }
    if (message.snapshot !== undefined) appliedSnapshot(r, message.snapshot);
    return;
  }
  r.logger.info?.(
    `${hex(r.id)} [term: ${r.term}] ignored a ${messageTypeName(type)} message with lower term from ` +
      `${hex(from)} [term: ${term}]`,
  );
}

function storageApplied(r: Raft, message: Message): void {
  const { entries } = message;
  const last = entries.at(-1);
  if (last === undefined) return;
  appliedTo(r, last.index, entriesSize(entries));
  reduceUncommitted(r, payloadsSize(entries));
}

/** Advances time by one tick. */
export function tick(r: Raft): void {
  if (r.state === "StateLeader") tickHeartbeat(r);
  else tickElection(r);
}

function tickElection(r: Raft): void {
  r.electionElapsed++;
  if (!r.promotable || !r.pastElectionTimeout) return;
  r.electionElapsed = 0;
  hup(r, r.config.preVote ? "pre-election" : "election");
}

function tickHeartbeat(r: Raft): void {
  r.heartbeatElapsed++;
  r.electionElapsed++;
  if (r.electionElapsed >= r.config.electionTicks) {
    r.electionElapsed = 0;
    if (r.config.checkQuorum) checkQuorum(r);
    // A transfer that has not succeeded by now is given up: accept proposals again.
    r.leadTransferee = NONE;
  }
  if (r.state === "StateLeader" && r.heartbeatElapsed >= r.config.heartbeatTicks) {
    r.heartbeatElapsed = 0;
    broadcastHeartbeat(r);
  }
}
