/**
 * The events of a trace, as etcd's raft writes them for its TLA+ specification, and their output format: one JSON
 * object per line. Source of names and fields: state_trace.go and Traceetcdraft.tla of go.etcd.io/raft.
 */
import type { Message } from "../../../src/proto/raftpb.ts";
import { MessageType } from "../../../src/proto/raftpb.ts";
import { messageTypeName } from "../../../src/raft/messages.ts";
import type { Raft } from "../../../src/raft/raft.ts";

export type EventName =
  | "InitState"
  | "BecomeCandidate"
  | "BecomeFollower"
  | "BecomeLeader"
  | "Commit"
  | "Replicate"
  | "ChangeConf"
  | "ApplyConfChange"
  | "Ready"
  | "SendAppendEntriesRequest"
  | "ReceiveAppendEntriesRequest"
  | "SendAppendEntriesResponse"
  | "ReceiveAppendEntriesResponse"
  | "SendRequestVoteRequest"
  | "ReceiveRequestVoteRequest"
  | "SendRequestVoteResponse"
  | "ReceiveRequestVoteResponse";

export type Role = "StateFollower" | "StateCandidate" | "StateLeader";

/** Ids are decimal strings; "0" is none. */
export interface TraceEvent {
  name: EventName;
  /** The node of the event. */
  nid: string;
  state: { term: number; vote: string; commit: number };
  role: Role;
  /** Last index of the log. */
  log: number;
  /** Voters: incoming and outgoing. */
  conf: [string[], string[]];
  msg?: TraceMessage;
  prop?: { cc: { changes?: TraceChange[]; newconf?: string[] } };
}

export interface TraceChange {
  nid: string;
  action: "AddNewServer" | "RemoveServer" | "AddLearner";
}

export interface TraceMessage {
  type: string;
  term: number;
  from: string;
  to: string;
  /** Their number; for a snapshot, its last index, as if it contained the whole log. */
  entries: number;
  logTerm: number;
  index: number;
  commit: number;
  vote: string;
  reject: boolean;
  rejectHint: number;
}

/** The kind of the message: the specification has two requests with their responses, and heartbeats are appends. */
export function kindOf(
  type: MessageType,
): "AppendEntriesRequest" | "AppendEntriesResponse" | "RequestVoteRequest" | "RequestVoteResponse" | undefined {
  switch (type) {
    case MessageType.MsgApp:
    case MessageType.MsgHeartbeat:
    case MessageType.MsgSnap:
      return "AppendEntriesRequest";
    case MessageType.MsgAppResp:
    case MessageType.MsgHeartbeatResp:
      return "AppendEntriesResponse";
    case MessageType.MsgVote:
      return "RequestVoteRequest";
    case MessageType.MsgVoteResp:
      return "RequestVoteResponse";
    default:
      return undefined;
  }
}

/** The event with the node's current state. */
export function newEvent(name: EventName, raft: Raft): TraceEvent {
  const { voters } = raft.tracker.config;
  return {
    name,
    nid: String(raft.id),
    state: { term: raft.term, vote: String(raft.vote), commit: raft.log.committed },
    role: roleOf(raft),
    log: raft.log.lastIndex(),
    conf: [voters.incoming.sorted().map(String), voters.outgoing.sorted().map(String)],
  };
}

/** The specification has no pre-vote: a pre-candidate is still a follower. */
export function roleOf({ state }: Raft): Role {
  return state === "StatePreCandidate" ? "StateFollower" : state;
}

export function newTraceMessage(message: Message): TraceMessage {
  const { type, index, entries, commit } = message;
  const isSnapshot = type === MessageType.MsgSnap;
  return {
    type: messageTypeName(type),
    term: message.term,
    from: String(message.from),
    to: String(message.to),
    entries: isSnapshot ? (message.snapshot?.metadata?.index ?? 0) : entries.length,
    logTerm: isSnapshot ? 0 : message.logTerm,
    index: isSnapshot ? 0 : index,
    // A receiver commits no more than it was sent; the specification's sender reports no more either.
    commit: type === MessageType.MsgApp ? Math.min(commit, index + entries.length) : commit,
    vote: String(message.vote),
    reject: message.reject,
    rejectHint: message.rejectHint,
  };
}

/** Lines with increasing times, because etcd's script sorts by them. */
export function toNdjson(events: readonly TraceEvent[]): string {
  return events
    .map((event, i) => {
      const ts = (1_000_000_000 + i / 1_000_000).toFixed(6);
      return `{"level":"debug","ts":${ts},"msg":"trace","tag":"trace","event":${JSON.stringify(event)}}\n`;
    })
    .join("");
}
