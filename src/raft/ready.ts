/**
 * The work a node gives its owner: the Ready, and the messages to the local storage threads that replace parts of it.
 */
import { type Entry, type HardState, type Message, MessageType, type Snapshot } from "../proto/raftpb.ts";
import { LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, newMessage } from "./messages.ts";
import type { Raft, StateType } from "./raft.ts";
import type { ReadState } from "./read-only.ts";

/** Volatile state: the leader, and this node's role. */
export interface SoftState {
  readonly lead: bigint;
  readonly state: StateType;
}

/**
 * Work for the owner, in the order given in rawnode.ts. The owner may keep the arrays; entries, messages and snapshots
 * must not be changed, because others still refer to them.
 */
export interface Ready {
  /** Set when it changed. */
  readonly softState: SoftState | undefined;
  /** To write. Set when it changed. */
  readonly hardState: HardState | undefined;
  /** Answers to readIndex(): serve the read with this context once `index` is applied. */
  readonly readStates: readonly ReadState[];
  /** To write, replacing everything in the log from the first one's index on. */
  readonly entries: Entry[];
  /** To write, and to apply before any committed entry. */
  readonly snapshot: Snapshot | undefined;
  /** To apply to the state machine, in order. */
  readonly committedEntries: Entry[];
  /** To send, once the writes are durable; with asyncStorageWrites at once, or to the storage threads. */
  readonly messages: Message[];
  /** Whether the writes must be synced to disk; if false, losing them in a crash does no harm. */
  readonly mustSync: boolean;
}

/**
 * Tells the local append thread what to write, in asynchronous mode. `responses` go to their addressees when everything
 * in this message, and in those before it, is durable. The message's term, vote and commit are the hard state, or all 0
 * if it did not change.
 */
export function newStorageAppend(r: Raft, ready: Ready): Message {
  const message = newMessage(MessageType.MsgStorageAppend, LOCAL_APPEND_THREAD, r.id);
  message.entries = ready.entries;
  if (ready.hardState !== undefined) {
    message.term = ready.hardState.term;
    message.vote = ready.hardState.vote;
    message.commit = ready.hardState.commit;
  }
  message.snapshot = ready.snapshot;
  message.responses = r.messagesAfterAppend;
  // After the acknowledgements: while they are handled, the terms of new entries are still found in the unstable log.
  if (needsStorageAppendResp(r, ready)) message.responses.push(newStorageAppendResp(r, ready));
  return message;
}

export function needsStorageAppendResp(r: Raft, ready: Ready): boolean {
  return r.log.unstable.length > 0 || ready.snapshot !== undefined;
}

/**
 * Tells the node that everything written so far is stable.
 *
 * The response carries the node's term and is ignored if the term has changed when it returns. Otherwise this could
 * happen: entries of term 1 are being written; a leader of term 2 overwrites them; a leader of term 3 sends the entries
 * of term 1 again. The first write completes and matches the unstable log, which would be trimmed while the write of
 * the term-2 entries is still to come, and a read of the storage would return those.
 *
 * Because responses can be ignored, each one covers the whole unstable log, not only the entries of its own message: a
 * term change is itself written, so a later response always follows.
 */
export function newStorageAppendResp(r: Raft, ready: Ready): Message {
  const message = newMessage(MessageType.MsgStorageAppendResp, r.id, LOCAL_APPEND_THREAD, r.term);
  if (r.log.unstable.length > 0) {
    message.index = r.log.lastIndex();
    message.logTerm = r.log.lastTerm();
  }
  message.snapshot = ready.snapshot;
  return message;
}

/** Tells the local apply thread what to apply, in asynchronous mode. */
export function newStorageApply(r: Raft, entries: Entry[]): Message {
  const message = newMessage(MessageType.MsgStorageApply, LOCAL_APPLY_THREAD, r.id);
  message.entries = entries;
  message.responses.push(newStorageApplyResp(r, entries));
  return message;
}

/** Tells the node that the entries are applied. With term 0: committed entries are committed in every term. */
export function newStorageApplyResp(r: Raft, entries: Entry[]): Message {
  const message = newMessage(MessageType.MsgStorageApplyResp, r.id, LOCAL_APPLY_THREAD);
  message.entries = entries;
  return message;
}
