/** Applies configuration changes, and handles their effect on this node. Thesis, chapter 4. */
import type { ConfChangeV2, ConfState, Snapshot } from "../proto/raftpb.ts";
import { confChangeEntry, entersJoint, leavesJoint } from "./confchange/change.ts";
import { Changer } from "./confchange/changer.ts";
import { hex } from "./logger.ts";
import { NONE } from "./messages.ts";
import { proposeAsLeader } from "./proposal.ts";
import type { Raft } from "./raft.ts";
import { broadcastAppend, maybeCommit, maybeSendAppend } from "./replication.ts";

/** Throws ConfChangeError if the change does not fit the configuration in force. */
export function applyConfChange(r: Raft, change: ConfChangeV2): ConfState {
  if (r.log.unstable.snapshot !== undefined) {
    // The configuration in force comes from a snapshot that is not loaded yet, and nothing after it is being applied:
    // the change comes from an entry before it, which was in progress when the snapshot arrived.
    r.logger.debug?.(`${hex(r.id)} ignored a conf change that the snapshot being restored covers`);
    return r.tracker.config.confState();
  }
  const changer = new Changer(r.tracker, r.log.lastIndex());
  const joint = entersJoint(change);
  const { config, progress } = leavesJoint(change)
    ? changer.leaveJoint()
    : joint !== undefined
      ? changer.enterJoint(joint.autoLeave, change.changes)
      : changer.simple(change.changes);
  r.tracker.use(config, progress);
  return configSwitched(r);
}

/** Acts on the tracker's new configuration. */
export function configSwitched(r: Raft): ConfState {
  const { config } = r.tracker;
  r.logger.info?.(`${hex(r.id)} switched to configuration ${config}`);
  const state = config.confState();
  const own = r.tracker.get(r.id);
  r.isLearner = own?.isLearner ?? false;
  if (r.state !== "StateLeader") return state;
  if (own === undefined || own.isLearner) {
    if (r.config.stepDownOnRemoval) r.becomeFollower(r.term, NONE);
    return state;
  }
  if (state.voters.length === 0) return state;
  // A smaller quorum may commit more. Otherwise new members need not wait for the next heartbeat.
  if (maybeCommit(r)) broadcastAppend(r);
  else for (const pr of r.tracker.ordered) if (pr.id !== r.id) maybeSendAppend(r, pr, false);
  if (r.leadTransferee !== NONE && !config.voters.has(r.leadTransferee)) r.leadTransferee = NONE;
  return state;
}

/** Entries up to `index` are applied, `bytes` of them in wire bytes. May start to leave a joint configuration. */
export function appliedTo(r: Raft, index: number, bytes: number): void {
  const applied = Math.max(index, r.log.applied);
  r.log.appliedTo(applied, bytes);
  const { config } = r.tracker;
  if (!config.autoLeave || applied < r.pendingConfIndex || r.state !== "StateLeader") return;
  // Empty, so no limit refuses it. During a leadership transfer it is dropped, and retried at the next apply.
  const error = proposeAsLeader(r, [confChangeEntry(undefined)]);
  if (error === undefined) r.logger.info?.(`initiating automatic transition out of joint configuration ${config}`);
  else {
    r.logger.debug?.(`not initiating automatic transition out of joint configuration ${config}: ${error.message}`);
  }
}

/** The snapshot is written and applied. */
export function appliedSnapshot(r: Raft, snapshot: Snapshot): void {
  const index = snapshot.metadata?.index ?? 0;
  r.log.unstable.stableSnapTo(index);
  appliedTo(r, index, 0);
}
