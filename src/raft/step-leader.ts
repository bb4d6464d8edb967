/** Messages handled as a leader. */
import { type Message, MessageType } from "../proto/raftpb.ts";
import type { RaftError } from "./errors.ts";
import { hex } from "./logger.ts";
import { NONE, newMessage } from "./messages.ts";
import { proposeAsLeader } from "./proposal.ts";
import type { Raft } from "./raft.ts";
import { confirmReads, readIndexAsLeader, releasePendingReads } from "./reads.ts";
import { broadcastAppend, broadcastHeartbeat, maybeCommit, maybeSendAppend } from "./replication.ts";
import type { Progress } from "./tracker/progress.ts";

export function stepLeader(r: Raft, message: Message): RaftError | undefined {
  switch (message.type) {
    case MessageType.MsgBeat:
      broadcastHeartbeat(r);
      return undefined;
    case MessageType.MsgCheckQuorum:
      checkQuorum(r);
      return undefined;
    case MessageType.MsgProp:
      return proposeAsLeader(r, message.entries);
    case MessageType.MsgReadIndex:
      readIndexAsLeader(r, message);
      return undefined;
    case MessageType.MsgForgetLeader:
      return undefined;
    default:
      stepFromMember(r, message);
      return undefined;
  }
}

/** Steps down if no quorum was active since the last check; otherwise starts the next one. Thesis, section 6.2. */
export function checkQuorum(r: Raft): void {
  if (!r.tracker.quorumActive()) {
    r.logger.warn?.(`${hex(r.id)} stepped down to follower since quorum is not active`);
    r.becomeFollower(r.term, NONE);
  }
  for (const pr of r.tracker.ordered) if (pr.id !== r.id) pr.recentActive = false;
}

/** The messages that concern the progress of their sender. */
function stepFromMember(r: Raft, message: Message): void {
  const pr = r.tracker.get(message.from);
  if (pr === undefined) {
    r.logger.debug?.(`${hex(r.id)} no progress available for ${hex(message.from)}`);
    return;
  }
  switch (message.type) {
    case MessageType.MsgAppResp:
      pr.recentActive = true;
      if (message.reject) handleRejection(r, pr, message);
      else handleAck(r, pr, message.index);
      break;
    case MessageType.MsgHeartbeatResp:
      pr.recentActive = true;
      pr.msgAppFlowPaused = false;
      // Also when the follower has everything but is being probed: its answer ends the probing.
      if (pr.match < r.log.lastIndex() || pr.state === "StateProbe") maybeSendAppend(r, pr, true);
      confirmReads(r, message.from, message.context);
      break;
    case MessageType.MsgSnapStatus:
      handleSnapshotStatus(r, pr, message.reject);
      break;
    case MessageType.MsgUnreachable:
      // What was sent without waiting for answers is probably lost.
      if (pr.state === "StateReplicate") pr.becomeProbe();
      r.logger.debug?.(`${hex(r.id)} failed to send message to ${hex(pr.id)} because it is unreachable [${pr}]`);
      break;
    case MessageType.MsgTransferLeader:
      transferLeader(r, pr);
      break;
  }
}

/** The follower's log does not match where it was probed; its answer hints where it may. */
function handleRejection(r: Raft, pr: Progress, message: Message): void {
  const { logger, log } = r;
  const { index, rejectHint, logTerm } = message;
  logger.debug?.(
    `${hex(r.id)} received MsgAppResp(rejected, hint: (index ${rejectHint}, term ${logTerm})) from ${hex(pr.id)} ` +
      `for index ${index}`,
  );
  // The follower has `logTerm` at the hint, and its terms before that are no higher: entries here of later terms cannot
  // match, so the next probe skips them. As the follower does the same, it takes at most one probe per term.
  const next = logTerm > 0 ? log.findConflictByTerm(rejectHint, logTerm) : rejectHint;
  if (!pr.maybeDecrTo(index, next)) return;
  logger.debug?.(`${hex(r.id)} decreased progress of ${hex(pr.id)} to [${pr}]`);
  if (pr.state === "StateReplicate") pr.becomeProbe();
  maybeSendAppend(r, pr, true);
}

/** The follower, or this node's own disk, has everything up to `index`. */
function handleAck(r: Raft, pr: Progress, index: number): void {
  // An acknowledgement that advances nothing still ends probing.
  if (!pr.maybeUpdate(index) && !(pr.match === index && pr.state === "StateProbe")) return;
  switch (pr.state) {
    case "StateProbe":
      pr.becomeReplicate();
      break;
    case "StateSnapshot":
      // Any snapshot it received, from here or elsewhere, is enough once it connects to this log.
      if (pr.match + 1 >= r.log.firstIndex()) {
        r.logger.debug?.(
          `${hex(r.id)} recovered from needing snapshot, resumed sending replication messages to ${hex(pr.id)} [${pr}]`,
        );
        pr.becomeProbe();
        pr.becomeReplicate();
      }
      break;
    case "StateReplicate":
      pr.inflights.freeTo(index);
      break;
  }
  const isSelf = pr.id === r.id;
  if (maybeCommit(r)) {
    releasePendingReads(r);
    broadcastAppend(r);
  } else if (!isSelf && pr.canBumpCommit(r.log.committed)) maybeSendAppend(r, pr, true);
  if (isSelf) return;
  // The window has room again: fill it.
  while (maybeSendAppend(r, pr, false));
  if (pr.id === r.leadTransferee && pr.match === r.log.lastIndex()) {
    r.logger.info?.(`${hex(r.id)} sent MsgTimeoutNow to ${hex(pr.id)} after received MsgAppResp`);
    r.send(newMessage(MessageType.MsgTimeoutNow, pr.id));
  }
}

function handleSnapshotStatus(r: Raft, pr: Progress, failed: boolean): void {
  if (pr.state !== "StateSnapshot") return;
  // Otherwise probing would start after a snapshot that never arrived.
  if (failed) pr.pendingSnapshot = 0;
  pr.becomeProbe();
  r.logger.debug?.(
    `${hex(r.id)} snapshot ${failed ? "failed" : "succeeded"}, resumed sending replication messages to ` +
      `${hex(pr.id)} [${pr}]`,
  );
  // After success its acknowledgement comes next; after failure, wait for a heartbeat before retrying.
  pr.msgAppFlowPaused = true;
}

/** Brings the follower up to date and then tells it to campaign at once. Thesis, section 3.10. */
function transferLeader(r: Raft, pr: Progress): void {
  const { logger } = r;
  if (pr.isLearner) {
    logger.debug?.(`${hex(r.id)} is learner. Ignored transferring leadership`);
    return;
  }
  const target = hex(pr.id);
  if (r.leadTransferee !== NONE) {
    if (r.leadTransferee === pr.id) {
      logger.info?.(
        `${hex(r.id)} [term ${r.term}] transfer leadership to ${target} is in progress, ` +
          `ignores request to same node ${target}`,
      );
      return;
    }
    logger.info?.(`${hex(r.id)} [term ${r.term}] abort previous transferring leadership to ${hex(r.leadTransferee)}`);
    r.leadTransferee = NONE;
  }
  if (pr.id === r.id) {
    logger.debug?.(`${hex(r.id)} is already leader. Ignored transferring leadership to self`);
    return;
  }
  logger.info?.(`${hex(r.id)} [term ${r.term}] starts to transfer leadership to ${target}`);
  // It has one election timeout to succeed.
  r.electionElapsed = 0;
  r.leadTransferee = pr.id;
  if (pr.match === r.log.lastIndex()) {
    r.send(newMessage(MessageType.MsgTimeoutNow, pr.id));
    logger.info?.(`${hex(r.id)} sends MsgTimeoutNow to ${target} immediately as ${target} already has up-to-date log`);
  } else maybeSendAppend(r, pr, true);
}
