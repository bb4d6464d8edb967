/** What a leader sends: entries, snapshots, heartbeats; and how its log grows and commits. Thesis, section 3.5. */
import { broken } from "../base/fatal.ts";
import type { Entry } from "../proto/raftpb.ts";
import { MessageType } from "../proto/raftpb.ts";
import { payloadsSize } from "./entry-size.ts";
import { ErrSnapshotTemporarilyUnavailable } from "./errors.ts";
import { hex } from "./logger.ts";
import { newMessage } from "./messages.ts";
import type { Raft } from "./raft.ts";
import type { Progress } from "./tracker/progress.ts";

const NO_ENTRIES: Entry[] = [];

/**
 * Appends new entries to the leader's log, setting their term and index; takes ownership of them. False, with nothing
 * done, if they would exceed the limit on uncommitted bytes.
 */
export function appendEntries(r: Raft, entries: Entry[]): boolean {
  const bytes = payloadsSize(entries);
  // Everything is allowed when nothing is uncommitted, and empty entries always are.
  if (r.uncommittedBytes > 0 && bytes > 0 && r.uncommittedBytes + bytes > r.config.uncommittedBytesMax) {
    r.logger.warn?.(
      `${hex(r.id)} appending new entries to log would exceed uncommitted entry size limit; dropping proposal`,
    );
    return false;
  }
  r.uncommittedBytes += bytes;
  let index = r.log.lastIndex();
  const { term } = r;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!;
    entry.term = term;
    entry.index = ++index;
  }
  r.log.append(entries);
  // The leader acknowledges to itself, like any follower, once the entries are stable.
  const ack = newMessage(MessageType.MsgAppResp, r.id);
  ack.index = index;
  r.send(ack);
  return true;
}

export function reduceUncommitted(r: Raft, bytes: number): void {
  r.uncommittedBytes = Math.max(0, r.uncommittedBytes - bytes);
}

/** Commits what a quorum has, in this term. True if the commit index moved; the caller then broadcasts it. */
export function maybeCommit(r: Raft): boolean {
  return r.log.maybeCommit(r.tracker.committed(), r.term);
}

export function broadcastAppend(r: Raft): void {
  const { ordered } = r.tracker;
  for (let i = 0; i < ordered.length; i++) {
    const pr = ordered[i]!;
    if (pr.id !== r.id) maybeSendAppend(r, pr, true);
  }
}

export function broadcastHeartbeat(r: Raft): void {
  const context = r.readOnly.heartbeatContext();
  for (const pr of r.tracker.ordered) {
    if (pr.id === r.id) continue;
    const message = newMessage(MessageType.MsgHeartbeat, pr.id);
    // A follower may lack entries, or have different ones, past its match: it must not commit them.
    message.commit = Math.min(pr.match, r.log.committed);
    message.context = context;
    r.send(message);
    pr.sentCommit(message.commit);
  }
}

/**
 * Sends what follows pr.next, or a snapshot where that is compacted, unless the flow is paused. An empty message, which
 * carries the commit index, is only sent if `sendIfEmpty`. True if something was sent.
 */
export function maybeSendAppend(r: Raft, pr: Progress, sendIfEmpty: boolean): boolean {
  if (pr.isPaused) return false;
  const { log } = r;
  const previous = pr.next - 1;
  const previousTerm = log.term(previous);
  if (previousTerm === undefined) return maybeSendSnapshot(r, pr);

  let entries: Entry[] = NO_ENTRIES;
  // With a full window only an empty message is sent: if the whole window was lost, its answer restarts the flow.
  if (pr.state !== "StateReplicate" || !pr.inflights.full) {
    const found = log.entriesFrom(pr.next, r.config.messageBytesMax);
    if (found === undefined) return sendIfEmpty && maybeSendSnapshot(r, pr);
    entries = found;
  }
  if (entries.length === 0 && !sendIfEmpty) return false;

  const message = newMessage(MessageType.MsgApp, pr.id);
  message.index = previous;
  message.logTerm = previousTerm;
  if (entries.length > 0) message.entries = entries;
  message.commit = log.committed;
  r.send(message);
  pr.sentEntries(entries.length, payloadsSize(entries));
  pr.sentCommit(log.committed);
  return true;
}

function maybeSendSnapshot(r: Raft, pr: Progress): boolean {
  const { logger, log } = r;
  if (!pr.recentActive) {
    logger.debug?.(`ignore sending snapshot to ${hex(pr.id)} since it is not recently active`);
    return false;
  }
  const snapshot = currentSnapshot(r);
  if (snapshot === undefined) {
    logger.debug?.(`${hex(r.id)} failed to send snapshot to ${hex(pr.id)} because snapshot is temporarily unavailable`);
    return false;
  }
  const { index, term } = snapshot.metadata ?? { index: 0, term: 0 };
  if (index === 0) broken("need non-empty snapshot");
  logger.debug?.(
    `${hex(r.id)} [firstindex: ${log.firstIndex()}, commit: ${log.committed}] sent snapshot` +
      `[index: ${index}, term: ${term}] to ${hex(pr.id)} [${pr}]`,
  );
  pr.becomeSnapshot(index);
  logger.debug?.(`${hex(r.id)} paused sending replication messages to ${hex(pr.id)} [${pr}]`);
  const message = newMessage(MessageType.MsgSnap, pr.id);
  message.snapshot = snapshot;
  r.send(message);
  return true;
}

function currentSnapshot(r: Raft) {
  try {
    return r.log.snapshot();
  } catch (error) {
    if (error === ErrSnapshotTemporarilyUnavailable) return undefined;
    throw error;
  }
}
