/** What a follower does with the leader's entries, commit index and snapshots. Thesis, sections 3.5 and 5. */
import { ConfState, type Message, MessageType, type Snapshot } from "../proto/raftpb.ts";
import { restoreConfig } from "./confchange/restore.ts";
import { describeConfState } from "./describe.ts";
import { hex } from "./logger.ts";
import { configSwitched } from "./membership.ts";
import { NONE, newMessage } from "./messages.ts";
import type { Raft } from "./raft.ts";

export function handleAppendEntries(r: Raft, message: Message): void {
  const { log } = r;
  const { from, index, logTerm, entries } = message;
  if (!isConsecutive(message)) {
    r.logger.error?.(`${hex(r.id)} ignored a MsgApp from ${hex(from)} whose entries do not follow ${logTerm}/${index}`);
    return;
  }
  const response = newMessage(MessageType.MsgAppResp, from);
  if (index < log.committed) {
    // Stale; the response gives the commit index, so that the leader can continue.
    response.index = log.committed;
    r.send(response);
    return;
  }
  const last = log.maybeAppend(index, logTerm, entries, message.commit);
  if (last !== undefined) {
    response.index = last;
    r.send(response);
    return;
  }
  r.logger.debug?.(
    `${hex(r.id)} [logterm: ${log.term(index) ?? 0}, index: ${index}] rejected MsgApp ` +
      `[logterm: ${logTerm}, index: ${index}] from ${hex(from)}`,
  );
  // The leader's terms up to `index` are at most `logTerm`, so no entry here of a later term can match: the hint skips
  // a divergent tail at once instead of index by index.
  const hint = log.findConflictByTerm(Math.min(index, log.lastIndex()), logTerm);
  response.index = index;
  response.reject = true;
  response.rejectHint = hint;
  response.logTerm = log.term(hint) ?? 0;
  r.send(response);
}

/** Whether the entries have rising indexes without a gap, and terms that never fall or pass the leader's. */
function isConsecutive(message: Message): boolean {
  const { entries } = message;
  let { index, logTerm } = message;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!;
    if (entry.index !== index + 1 || entry.term < logTerm) return false;
    index = entry.index;
    logTerm = entry.term;
  }
  return entries.length === 0 || logTerm <= message.term;
}

export function handleHeartbeat(r: Raft, message: Message): void {
  r.log.commitTo(message.commit);
  const response = newMessage(MessageType.MsgHeartbeatResp, message.from);
  response.context = message.context;
  r.send(response);
}

export function handleSnapshot(r: Raft, message: Message): void {
  const metadata = message.snapshot?.metadata;
  const restored = message.snapshot !== undefined && restore(r, message.snapshot);
  r.logger.info?.(
    `${hex(r.id)} [commit: ${r.log.committed}] ${restored ? "restored" : "ignored"} snapshot ` +
      `[index: ${metadata?.index ?? 0}, term: ${metadata?.term ?? 0}]`,
  );
  const response = newMessage(MessageType.MsgAppResp, message.from);
  response.index = restored ? r.log.lastIndex() : r.log.committed;
  r.send(response);
}

/** Replaces the log and the configuration by a snapshot. False if it brings nothing new. */
function restore(r: Raft, snapshot: Snapshot): boolean {
  const { log, logger } = r;
  const { index, term, confState } = snapshot.metadata ?? { index: 0, term: 0, confState: undefined };
  if (index <= log.committed) return false;
  if (r.state !== "StateFollower") {
    // The roles make this unreachable. Taking a new term is harmless; restoring would not be.
    logger.warn?.(`${hex(r.id)} attempted to restore snapshot as leader; should never happen`);
    r.becomeFollower(r.term + 1, NONE);
    return false;
  }
  const state = confState ?? ConfState.create();
  // Nodes in learnersNext are among the outgoing voters.
  if (![state.voters, state.learners, state.votersOutgoing].some((ids) => ids.includes(r.id))) {
    logger.warn?.(
      `${hex(r.id)} attempted to restore snapshot but it is not in the ConfState ${describeConfState(state)}; ` +
        "should never happen",
    );
    return false;
  }
  if (log.matchTerm(index, term)) {
    logger.info?.(`${describeLog(r)} fast-forwarded commit to snapshot [index: ${index}, term: ${term}]`);
    log.commitTo(index);
    return false;
  }
  log.restore(snapshot);
  r.tracker = r.newTracker();
  restoreConfig(r.tracker, log.lastIndex(), state);
  configSwitched(r);
  logger.info?.(`${describeLog(r)} restored snapshot [index: ${index}, term: ${term}]`);
  return true;
}

function describeLog(r: Raft): string {
  const { log } = r;
  return `${hex(r.id)} [commit: ${log.committed}, lastindex: ${log.lastIndex()}, lastterm: ${log.lastTerm()}]`;
}
