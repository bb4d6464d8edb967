/** Read-index requests at the leader, from arrival until their index is confirmed. Thesis, section 6.4. */
import type { Message } from "../proto/raftpb.ts";
import { MessageType } from "../proto/raftpb.ts";
import { hex } from "./logger.ts";
import { NONE, newMessage } from "./messages.ts";
import type { Raft } from "./raft.ts";
import { UNCONFIRMED_READS_MAX } from "./read-only.ts";
import { broadcastHeartbeat } from "./replication.ts";

export function readIndexAsLeader(r: Raft, request: Message): void {
  if (request.entries.length !== 1) {
    r.logger.error?.(
      `${hex(r.id)} invalid format of MsgReadIndex from ${hex(request.from)}, entries count: ${request.entries.length}`,
    );
    return;
  }
  if (r.readOnly.full || r.pendingReadIndexMessages.length >= UNCONFIRMED_READS_MAX) {
    r.logger.warn?.(`${hex(r.id)} has too many reads waiting for confirmation; dropping index reading msg`);
    return;
  }
  // Before the first commit of its term a leader does not know the commit index: after a restart the stored one may lag
  // behind acknowledged entries, even with a single voter.
  if (!r.committedInCurrentTerm) {
    r.pendingReadIndexMessages.push(request);
    return;
  }
  startRead(r, request);
}

/** Starts the waiting requests after the commit index moved. */
export function releasePendingReads(r: Raft): void {
  if (r.pendingReadIndexMessages.length === 0) return;
  if (!r.committedInCurrentTerm) {
    r.logger.error?.("pending MsgReadIndex should be released only after first commit in current term");
    return;
  }
  const requests = r.pendingReadIndexMessages;
  r.pendingReadIndexMessages = [];
  for (const request of requests) startRead(r, request);
}

/** Handles the echo in a heartbeat response: answers the reads that a quorum has now confirmed. */
export function confirmReads(r: Raft, from: bigint, context: Uint8Array): void {
  if (r.readOnly.option !== "safe" || context.length === 0) return;
  r.readOnly.receiveAck(from, context);
  for (const { request, index } of r.readOnly.advance(r.tracker.config.voters)) respond(r, request, index);
}

function startRead(r: Raft, request: Message): void {
  // A removed leader may still lead while the one remaining voter commits without it, so it must ask too.
  if (r.tracker.isOnlyVoter(r.id) || r.readOnly.option === "lease-based") {
    respond(r, request, r.log.committed);
    return;
  }
  r.readOnly.add(r.log.committed, request);
  r.readOnly.receiveAck(r.id, r.readOnly.heartbeatContext());
  broadcastHeartbeat(r);
}

function respond(r: Raft, request: Message, index: number): void {
  if (request.from === NONE || request.from === r.id) {
    r.readStates.push({ index, requestCtx: request.entries[0]!.data });
    return;
  }
  const response = newMessage(MessageType.MsgReadIndexResp, request.from);
  response.index = index;
  response.entries = request.entries;
  r.send(response);
}
