/** Messages handled as a follower. */
import { type Message, MessageType } from "../proto/raftpb.ts";
import { hup } from "./election.ts";
import { ErrProposalDropped, type RaftError } from "./errors.ts";
import { handleAppendEntries, handleHeartbeat, handleSnapshot } from "./follower-log.ts";
import { hex } from "./logger.ts";
import { forwarded, NONE } from "./messages.ts";
import type { Raft } from "./raft.ts";

export function stepFollower(r: Raft, message: Message): RaftError | undefined {
  const { logger } = r;
  switch (message.type) {
    case MessageType.MsgProp:
      return forwardProposal(r, message);
    case MessageType.MsgApp:
      heardFromLeader(r, message.from);
      handleAppendEntries(r, message);
      return undefined;
    case MessageType.MsgHeartbeat:
      heardFromLeader(r, message.from);
      handleHeartbeat(r, message);
      return undefined;
    case MessageType.MsgSnap:
      heardFromLeader(r, message.from);
      handleSnapshot(r, message);
      return undefined;
    case MessageType.MsgTransferLeader:
      if (r.lead === NONE) {
        logger.info?.(`${hex(r.id)} no leader at term ${r.term}; dropping leader transfer msg`);
      } else r.send(forwarded(message, r.lead));
      return undefined;
    case MessageType.MsgForgetLeader:
      forgetLeader(r);
      return undefined;
    case MessageType.MsgTimeoutNow:
      logger.info?.(
        `${hex(r.id)} [term ${r.term}] received MsgTimeoutNow from ${hex(message.from)} ` +
          "and starts an election to get leadership.",
      );
      hup(r, "transfer");
      return undefined;
    case MessageType.MsgReadIndex:
      if (r.lead === NONE) {
        logger.info?.(`${hex(r.id)} no leader at term ${r.term}; dropping index reading msg`);
      } else r.send(forwarded(message, r.lead));
      return undefined;
    case MessageType.MsgReadIndexResp:
      if (message.entries.length === 1) {
        r.readStates.push({ index: message.index, requestCtx: message.entries[0]!.data });
      } else {
        logger.error?.(
          `${hex(r.id)} invalid format of MsgReadIndexResp from ${hex(message.from)}, ` +
            `entries count: ${message.entries.length}`,
        );
      }
      return undefined;
    default:
      return undefined;
  }
}

function heardFromLeader(r: Raft, lead: bigint): void {
  r.electionElapsed = 0;
  r.lead = lead;
}

function forwardProposal(r: Raft, message: Message): RaftError | undefined {
  if (r.lead === NONE) {
    r.logger.info?.(`${hex(r.id)} no leader at term ${r.term}; dropping proposal`);
    return ErrProposalDropped;
  }
  if (r.config.disableProposalForwarding) {
    r.logger.info?.(`${hex(r.id)} not forwarding to leader ${hex(r.lead)} at term ${r.term}; dropping proposal`);
    return ErrProposalDropped;
  }
  r.send(forwarded(message, r.lead));
  return undefined;
}

/** Lets this node grant a vote or pre-vote before its election timeout. A lease must not be forgotten. */
function forgetLeader(r: Raft): void {
  if (r.readOnly.option === "lease-based") {
    r.logger.error?.("ignoring MsgForgetLeader due to ReadOnlyLeaseBased");
    return;
  }
  if (r.lead === NONE) return;
  r.logger.info?.(`${hex(r.id)} forgetting leader ${hex(r.lead)} at term ${r.term}`);
  r.lead = NONE;
}
