/**
 * Checks the assumptions that raft makes about other members' messages, before raft sees them: a message that no
 * correct member could have sent must not break an invariant and so end the process, or be taken for a correct one.
 *
 * A sender outside the configuration may be a member that this one does not know yet, because its log is behind;
 * otherwise it could not catch up. So an unknown sender is accepted as leader or candidate while this member knows no
 * other leader, and for no other message.
 */
import { InvariantError } from "../../base/fatal.ts";
import { decodeMember } from "../../membership/member.ts";
import {
  ConfChange,
  ConfChangeType,
  ConfChangeV2,
  type Entry,
  EntryType,
  type Message,
  MessageType,
} from "../../proto/raftpb.ts";
import { ConfChangeError } from "../../raft/confchange/changer.ts";
import { restoreConfig } from "../../raft/confchange/restore.ts";
import { isTransfer } from "../../raft/election.ts";
import { NONE } from "../../raft/messages.ts";
import type { Raft } from "../../raft/raft.ts";
import { objectionToRequest } from "../log/entry.ts";
import { holdsLongTxn } from "../log/txn-size.ts";

/**
 * Larger terms and indexes could not be incremented safely: numbers are exact up to 2^53. Elections alone never get
 * there.
 */
const NUMBER_MAX = 2 ** 52;

/** Beyond the log: from the leader, this means that this member has lost entries that it had acknowledged. */
export const BEYOND_LOG =
  "it says that entries are committed which this member acknowledged and does not have: the data directory was emptied, " +
  "restored or damaged. Stop this member, remove it from the cluster, and add it again with an empty data directory";

/** Why raft must not see this message in its present state; undefined when it may. */
export function messageProblem(r: Raft, message: Message): string | undefined {
  const { type, from, term } = message;
  if (!TYPES.has(type)) return `type ${type} is not sent between members`;
  if (from === NONE) return "it names no sender";
  if (term > NUMBER_MAX || message.index > NUMBER_MAX || message.commit > NUMBER_MAX)
    return "its numbers are too large";
  // Forwarded messages carry no term, and may return to their origin.
  const isPassedOn = type === MessageType.MsgProp || type === MessageType.MsgReadIndex;
  if (isPassedOn) {
    if (term !== 0) return "it must not have a term";
  } else if (term === 0) return "it has no term";
  else if (from === r.id && type !== MessageType.MsgTransferLeader) return "it names this member as its sender";
  if (r.tracker.get(from) === undefined) {
    const problem = strangerProblem(r, message);
    if (problem !== undefined) return problem;
  }
  switch (type) {
    case MessageType.MsgApp:
      return appProblem(message);
    case MessageType.MsgHeartbeat:
      // A message of an old term is only answered.
      return term >= r.term && message.commit > r.log.lastIndex() ? BEYOND_LOG : undefined;
    case MessageType.MsgSnap:
      return snapshotProblem(r, message);
    case MessageType.MsgAppResp: {
      const isAhead = term === r.term && r.state === "StateLeader" && message.index > r.log.lastIndex();
      return isAhead && !message.reject ? "it acknowledges entries that were never sent" : undefined;
    }
    case MessageType.MsgTimeoutNow:
      return from === r.lead && term === r.term ? undefined : "only the leader may ask for an election";
    case MessageType.MsgProp:
      return proposalProblem(message);
    default:
      return undefined;
  }
}

const TYPES: ReadonlySet<MessageType> = new Set([
  MessageType.MsgProp,
  MessageType.MsgApp,
  MessageType.MsgAppResp,
  MessageType.MsgVote,
  MessageType.MsgVoteResp,
  MessageType.MsgSnap,
  MessageType.MsgHeartbeat,
  MessageType.MsgHeartbeatResp,
  MessageType.MsgTransferLeader,
  MessageType.MsgTimeoutNow,
  MessageType.MsgReadIndex,
  MessageType.MsgReadIndexResp,
  MessageType.MsgPreVote,
  MessageType.MsgPreVoteResp,
]);

const NOT_A_MEMBER = "its sender is no member of the cluster as far as this member knows";

function strangerProblem(r: Raft, message: Message): string | undefined {
  // A joining member knows no members until the log, or a snapshot, names them.
  if (r.tracker.ordered.length === 0) return undefined;
  const { type, from } = message;
  switch (type) {
    case MessageType.MsgApp:
    case MessageType.MsgHeartbeat:
    case MessageType.MsgSnap:
      return r.lead === from || !hearsLeader(r) ? undefined : NOT_A_MEMBER;
    case MessageType.MsgVote:
    case MessageType.MsgPreVote:
      return hearsLeader(r) || isTransfer(message) ? NOT_A_MEMBER : undefined;
    default:
      return NOT_A_MEMBER;
  }
}

/** A leader steps down when it has no quorum, and a follower's leader is silent then. */
const hearsLeader = (r: Raft): boolean =>
  r.state === "StateLeader" || (r.lead !== NONE && r.electionElapsed < r.config.electionTicks);

function appProblem({ term, index, logTerm, entries }: Message): string | undefined {
  let previousTerm = logTerm;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!;
    if (entry.index !== index + 1 + i || entry.term < previousTerm || entry.term > term) {
      return "its entries do not follow one on the other";
    }
    previousTerm = entry.term;
    if (entry.type !== EntryType.EntryNormal && !isConfChange(entry)) return UNREADABLE_CHANGE;
  }
  return logTerm > term ? "it follows on an entry of a later term" : undefined;
}

/**
 * Every member must apply what is committed, so entries that no member can read must not be proposed. Long transactions
 * are left to `LongProposals`.
 */
function proposalProblem({ entries }: Message): string | undefined {
  if (entries.length === 0) return "it proposes nothing";
  for (const entry of entries) {
    if (entry.type !== EntryType.EntryNormal) {
      if (!isConfChange(entry)) return UNREADABLE_CHANGE;
    } else if (!isLongProposal(entry)) {
      const objection = objectionToRequest(entry.data);
      if (objection !== undefined) return proposalObjection(objection);
    }
  }
  return undefined;
}

/** Decoding it takes more than one turn. */
export const isLongProposal = ({ type, data }: Entry): boolean => type === EntryType.EntryNormal && holdsLongTxn(data);

export const proposalObjection = (objection: string): string =>
  `it proposes a request that cannot be applied: ${objection}`;

const UNREADABLE_CHANGE = "it has a configuration change that cannot be read";

function isConfChange({ type, data }: Entry): boolean {
  try {
    if (type === EntryType.EntryConfChangeV2) {
      return ConfChangeV2.decode(data).changes.every((change) => KNOWN_CHANGES.has(change.type));
    }
    const change = ConfChange.decode(data);
    if (type !== EntryType.EntryConfChange || !KNOWN_CHANGES.has(change.type)) return false;
    if (change.type === ConfChangeType.ConfChangeRemoveNode) return true;
    // The change must describe the member. Throws for invalid JSON, or an invalid member.
    decodeMember(change.nodeId, Buffer.from(change.context).toString("utf8"));
    return true;
  } catch {
    return false;
  }
}

const KNOWN_CHANGES: ReadonlySet<number> = new Set(Object.values(ConfChangeType));

function snapshotProblem(r: Raft, { term, snapshot }: Message): string | undefined {
  const metadata = snapshot?.metadata;
  if (metadata?.confState === undefined || metadata.index === 0 || metadata.term === 0) {
    return "its snapshot has no index, term or configuration";
  }
  if (metadata.index > NUMBER_MAX || metadata.term > term) return "its snapshot is of a later term";
  try {
    restoreConfig(r.newTracker(), metadata.index, metadata.confState);
    return undefined;
  } catch (error) {
    if (!(error instanceof ConfChangeError) && !(error instanceof InvariantError)) throw error;
    return `its snapshot has a configuration that cannot be: ${error.message}`;
  }
}
