/** Campaigns and votes. Thesis, sections 3.4, 3.6.1 and, for the pre-vote, 9.6. */
import { invariant } from "../base/fatal.ts";
import { type Message, MessageType } from "../proto/raftpb.ts";
import { hex } from "./logger.ts";
import { messageTypeName, NONE, newMessage, voteResponseType } from "./messages.ts";
import { sortedIds } from "./quorum/majority.ts";
import type { Raft } from "./raft.ts";
import type { Tally } from "./tracker/tracker.ts";

/** `transfer`: asked for by the leader itself, so its lease does not protect it and no pre-vote is needed. */
export type CampaignKind = "pre-election" | "election" | "transfer";

/** What the vote requests of a transfer carry, so that voters ignore the old leader's lease. */
const TRANSFER_CONTEXT = new TextEncoder().encode("CampaignTransfer");

/** Starts a campaign if this node may. */
export function hup(r: Raft, kind: CampaignKind): void {
  const { logger } = r;
  if (r.state === "StateLeader") {
    logger.debug?.(`${hex(r.id)} ignoring MsgHup because already leader`);
    return;
  }
  if (!r.promotable) {
    logger.warn?.(`${hex(r.id)} is unpromotable and can not campaign`);
    return;
  }
  if (r.log.hasUnappliedConfChange()) {
    logger.warn?.(
      `${hex(r.id)} cannot campaign at term ${r.term} since there are still pending configuration changes to apply`,
    );
    return;
  }
  logger.info?.(`${hex(r.id)} is starting a new election at term ${r.term}`);
  campaign(r, kind);
}

export function campaign(r: Raft, kind: CampaignKind): void {
  let type: MessageType;
  let term: number;
  if (kind === "pre-election") {
    r.becomePreCandidate();
    type = MessageType.MsgPreVote;
    // The term it would get: its own has not changed.
    term = r.term + 1;
  } else {
    r.becomeCandidate();
    type = MessageType.MsgVote;
    term = r.term;
  }
  const lastIndex = r.log.lastIndex();
  const lastTerm = r.log.lastTerm();
  for (const id of sortedIds(r.tracker.config.voters.ids())) {
    if (id === r.id) {
      // Its own vote counts, like the others', once it is stable.
      r.send(newMessage(voteResponseType(type), id, NONE, term));
      continue;
    }
    r.logger.info?.(
      `${hex(r.id)} [logterm: ${lastTerm}, index: ${lastIndex}] sent ${messageTypeName(type)} request to ` +
        `${hex(id)} at term ${r.term}`,
    );
    const request = newMessage(type, id, NONE, term);
    request.index = lastIndex;
    request.logTerm = lastTerm;
    if (kind === "transfer") request.context = TRANSFER_CONTEXT;
    r.send(request);
  }
}

/** Counts a vote. */
export function poll(r: Raft, id: bigint, type: MessageType, granted: boolean): Tally {
  r.logger.info?.(
    `${hex(r.id)} received ${messageTypeName(type)}${granted ? "" : " rejection"} from ${hex(id)} at term ${r.term}`,
  );
  r.tracker.recordVote(id, granted);
  return r.tracker.tallyVotes();
}

/** Whether the request must be ignored because the leader's lease has, as far as this node knows, not expired. */
export function ignoredForLease(r: Raft, request: Message): boolean {
  const inLease = r.config.checkQuorum && r.lead !== NONE && r.electionElapsed < r.config.electionTicks;
  if (!inLease || isTransfer(request)) return false;
  r.logger.info?.(
    `${describeVoter(r)} ignored ${describeRequest(request)} at term ${r.term}: ` +
      `lease is not expired (remaining ticks: ${r.config.electionTicks - r.electionElapsed})`,
  );
  return true;
}

/** Answers a MsgVote of this term, or a MsgPreVote of this or a later one. */
export function handleVoteRequest(r: Raft, request: Message): void {
  const { type, from, term } = request;
  const mayVote =
    r.vote === from || (r.vote === NONE && r.lead === NONE) || (type === MessageType.MsgPreVote && term > r.term);
  // Learners answer too: a promoted learner may not know of its promotion yet, and its vote may be needed.
  if (!mayVote || !r.log.isUpToDate(request.index, request.logTerm)) {
    rejectVote(r, request);
    return;
  }
  r.logger.info?.(`${describeVoter(r)} cast ${describeRequest(request, "for")} at term ${r.term}`);
  // In the request's term: a pre-vote asks about a later term, and the candidate ignores answers of an older one.
  r.send(newMessage(voteResponseType(type), from, NONE, term));
  if (type === MessageType.MsgVote) {
    invariant(term === r.term, "a vote is given in its term", term, r.term);
    r.electionElapsed = 0;
    r.vote = from;
  }
}

/** In the voter's own term, so that a stale candidate learns of it. */
export function rejectVote(r: Raft, request: Message): void {
  r.logger.info?.(`${describeVoter(r)} rejected ${describeRequest(request)} at term ${r.term}`);
  const response = newMessage(voteResponseType(request.type), request.from, NONE, r.term);
  response.reject = true;
  r.send(response);
}

/** Whether the leader itself has asked for the election. */
export function isTransfer(request: Message): boolean {
  return Buffer.compare(request.context, TRANSFER_CONTEXT) === 0;
}

function describeVoter(r: Raft): string {
  return `${hex(r.id)} [logterm: ${r.log.lastTerm()}, index: ${r.log.lastIndex()}, vote: ${hex(r.vote)}]`;
}

function describeRequest(request: Message, preposition = "from"): string {
  const { type, from, logTerm, index } = request;
  return `${messageTypeName(type)} ${preposition} ${hex(from)} [logterm: ${logTerm}, index: ${index}]`;
}
