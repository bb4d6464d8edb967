/** Creates and classifies raft messages. Fields and their meaning: proto/raftpb/raft.proto and the notes in rawnode.ts. */
import { broken } from "../base/fatal.ts";
import { EMPTY_BYTES } from "../base/protobuf.ts";
import { type Entry, type Message, MessageType } from "../proto/raftpb.ts";

/** No node: an absent leader, an uncast vote. */
export const NONE = 0n;
/** Addressee of MsgStorageAppend: the thread that writes entries, hard state and snapshots to disk. */
export const LOCAL_APPEND_THREAD = 0xffff_ffff_ffff_ffffn;
/** Addressee of MsgStorageApply: the thread that applies committed entries. */
export const LOCAL_APPLY_THREAD = 0xffff_ffff_ffff_fffen;

/** One object shape for all messages of the core. `from` and `term` of 0 are filled in on sending. */
export function newMessage(type: MessageType, to: bigint, from: bigint = NONE, term = 0): Message {
  return {
    type,
    to,
    from,
    term,
    logTerm: 0,
    index: 0,
    entries: [],
    commit: 0,
    snapshot: undefined,
    reject: false,
    rejectHint: 0,
    context: EMPTY_BYTES,
    vote: 0n,
    responses: [],
  };
}

/** A copy for another node, with term 0 so that sending fills in its own; messages given to step() stay unchanged. */
export function forwarded(message: Message, to: bigint): Message {
  const copy = newMessage(message.type, to, message.from);
  copy.entries = message.entries;
  copy.context = message.context;
  return copy;
}

export function newEntry(data: Uint8Array): Entry {
  return { type: 0, term: 0, index: 0, data };
}

export function isLocalMsgTarget(id: bigint): boolean {
  return id === LOCAL_APPEND_THREAD || id === LOCAL_APPLY_THREAD;
}

/** Messages that a node only makes for itself. */
export function isLocalMsg(type: MessageType): boolean {
  switch (type) {
    case MessageType.MsgHup:
    case MessageType.MsgBeat:
    case MessageType.MsgUnreachable:
    case MessageType.MsgSnapStatus:
    case MessageType.MsgCheckQuorum:
    case MessageType.MsgStorageAppend:
    case MessageType.MsgStorageAppendResp:
    case MessageType.MsgStorageApply:
    case MessageType.MsgStorageApplyResp:
      return true;
    default:
      return false;
  }
}

export function isResponseMsg(type: MessageType): boolean {
  switch (type) {
    case MessageType.MsgAppResp:
    case MessageType.MsgVoteResp:
    case MessageType.MsgHeartbeatResp:
    case MessageType.MsgUnreachable:
    case MessageType.MsgReadIndexResp:
    case MessageType.MsgPreVoteResp:
    case MessageType.MsgStorageAppendResp:
    case MessageType.MsgStorageApplyResp:
      return true;
    default:
      return false;
  }
}

export function voteResponseType(type: MessageType): MessageType {
  if (type === MessageType.MsgVote) return MessageType.MsgVoteResp;
  if (type === MessageType.MsgPreVote) return MessageType.MsgPreVoteResp;
  return broken(`not a vote message: ${type}`);
}

const typeNames = Object.keys(MessageType);

export function messageTypeName(type: MessageType): string {
  return typeNames[type] ?? String(type);
}
