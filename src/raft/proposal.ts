/** Proposals at the leader: checked, appended, replicated. */
import { EMPTY_BYTES, ProtobufError } from "../base/protobuf.ts";
import type { Entry } from "../proto/raftpb.ts";
import { EntryType } from "../proto/raftpb.ts";
import { asV2, confChangeOf } from "./confchange/change.ts";
import { describeConfChange } from "./describe.ts";
import { ErrProposalDropped, type RaftError } from "./errors.ts";
import { hex } from "./logger.ts";
import { NONE, newEntry } from "./messages.ts";
import type { Raft } from "./raft.ts";
import { appendEntries, broadcastAppend } from "./replication.ts";

/** Appends entries as the leader and takes ownership of them. Undefined, or ErrProposalDropped with nothing done. */
export function proposeAsLeader(r: Raft, entries: Entry[]): RaftError | undefined {
  if (entries.length === 0) {
    r.logger.error?.(`${hex(r.id)} stepped empty MsgProp`);
    return ErrProposalDropped;
  }
  // Removed from the configuration while leading.
  if (r.tracker.get(r.id) === undefined) return ErrProposalDropped;
  if (r.leadTransferee !== NONE) {
    r.logger.debug?.(
      `${hex(r.id)} [term ${r.term}] transfer leadership to ${hex(r.leadTransferee)} is in progress; dropping proposal`,
    );
    return ErrProposalDropped;
  }
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!;
    if (entry.type === EntryType.EntryNormal) continue;
    const verdict = checkConfChange(r, entry);
    if (verdict === "malformed") return ErrProposalDropped;
    if (verdict === "refused") entries[i] = newEntry(EMPTY_BYTES);
    else r.pendingConfIndex = r.log.lastIndex() + i + 1;
  }
  if (!appendEntries(r, entries)) return ErrProposalDropped;
  broadcastAppend(r);
  return undefined;
}

/** A rejected change is replaced by an empty entry, so that its proposer sees it commit without effect. */
function checkConfChange(r: Raft, entry: Entry): "accepted" | "refused" | "malformed" {
  const { logger, tracker } = r;
  try {
    const change = confChangeOf(entry)!;
    const isJoint = tracker.config.voters.isJoint;
    const leaves = asV2(change).changes.length === 0;
    let objection: string | undefined;
    if (r.pendingConfIndex > r.log.applied) {
      objection = `possible unapplied conf change at index ${r.pendingConfIndex} (applied to ${r.log.applied})`;
    } else if (isJoint && !leaves) objection = "must transition out of joint config first";
    else if (!isJoint && leaves) objection = "not in joint state; refusing empty conf change";
    if (objection === undefined || r.config.disableConfChangeValidation) return "accepted";
    logger.info?.(
      `${hex(r.id)} ignoring conf change ${describeConfChange(change)} at config ${tracker.config}: ${objection}`,
    );
    return "refused";
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    logger.error?.(`${hex(r.id)} dropping a proposed conf change that cannot be decoded: ${error.message}`);
    return "malformed";
  }
}
