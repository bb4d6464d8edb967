/** Messages handled as a candidate or pre-candidate. */
import { type Message, MessageType } from "../proto/raftpb.ts";
import { campaign, poll } from "./election.ts";
import { ErrProposalDropped, type RaftError } from "./errors.ts";
import { handleAppendEntries, handleHeartbeat, handleSnapshot } from "./follower-log.ts";
import { hex } from "./logger.ts";
import { messageTypeName, NONE } from "./messages.ts";
import type { Raft } from "./raft.ts";
import { broadcastAppend } from "./replication.ts";

export function stepCandidate(r: Raft, message: Message): RaftError | undefined {
  const { type, from } = message;
  switch (type) {
    case MessageType.MsgProp:
      r.logger.info?.(`${hex(r.id)} no leader at term ${r.term}; dropping proposal`);
      return ErrProposalDropped;
    // Another node leads this term.
    case MessageType.MsgApp:
      r.becomeFollower(message.term, from);
      handleAppendEntries(r, message);
      return undefined;
    case MessageType.MsgHeartbeat:
      r.becomeFollower(message.term, from);
      handleHeartbeat(r, message);
      return undefined;
    case MessageType.MsgSnap:
      r.becomeFollower(message.term, from);
      handleSnapshot(r, message);
      return undefined;
    case MessageType.MsgPreVoteResp:
      // Late pre-vote answers may reach the node as a candidate.
      if (r.state === "StatePreCandidate") countVote(r, message);
      return undefined;
    case MessageType.MsgVoteResp:
      if (r.state === "StateCandidate") countVote(r, message);
      return undefined;
    case MessageType.MsgTimeoutNow:
      r.logger.debug?.(`${hex(r.id)} [term ${r.term} state ${r.state}] ignored MsgTimeoutNow from ${hex(from)}`);
      return undefined;
    default:
      return undefined;
  }
}

function countVote(r: Raft, message: Message): void {
  const { granted, rejected, result } = poll(r, message.from, message.type, !message.reject);
  r.logger.info?.(
    `${hex(r.id)} has received ${granted} ${messageTypeName(message.type)} votes and ${rejected} vote rejections`,
  );
  if (result === "VoteWon") {
    if (r.state === "StatePreCandidate") campaign(r, "election");
    else {
      r.becomeLeader();
      broadcastAppend(r);
    }
  } else if (result === "VoteLost") r.becomeFollower(r.term, NONE);
}
