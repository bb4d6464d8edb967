/** Rebuilds a configuration from a stored ConfState, by the changes that lead to it from an empty one. */
import { broken } from "../../base/fatal.ts";
import { type ConfChangeSingle, ConfChangeType, type ConfState } from "../../proto/raftpb.ts";
import type { ProgressTracker } from "../tracker/tracker.ts";
import { Changer } from "./changer.ts";

/**
 * Brings an empty tracker to the configuration. A joint one is reached by adding the outgoing voters one by one, and
 * then entering the joint state with all of them removed and all incoming voters added. Throws ConfChangeError if no
 * changes lead to such a configuration, InvariantError if they led elsewhere.
 */
export function restoreConfig(tracker: ProgressTracker, lastIndex: number, state: ConfState): void {
  const incoming: ConfChangeSingle[] = [
    ...changes(ConfChangeType.ConfChangeAddNode, state.voters),
    ...changes(ConfChangeType.ConfChangeAddLearnerNode, state.learners),
    ...changes(ConfChangeType.ConfChangeAddLearnerNode, state.learnersNext),
  ];
  const isJoint = state.votersOutgoing.length > 0;
  const first = isJoint ? changes(ConfChangeType.ConfChangeAddNode, state.votersOutgoing) : incoming;
  for (const change of first) {
    const { config, progress } = new Changer(tracker, lastIndex).simple([change]);
    tracker.use(config, progress);
  }
  if (isJoint) {
    const removals = changes(ConfChangeType.ConfChangeRemoveNode, state.votersOutgoing);
    const { config, progress } = new Changer(tracker, lastIndex).enterJoint(state.autoLeave, [
      ...removals,
      ...incoming,
    ]);
    tracker.use(config, progress);
  }
  const restored = confStateKey(tracker.config.confState());
  const wanted = confStateKey(state);
  if (restored !== wanted) broken(`ConfStates not equivalent after sorting: ${restored} and ${wanted}`);
}

/** Equal for configurations that differ only in the order of their ids. */
export function confStateKey(state: ConfState): string {
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = state;
  const lists = [voters, votersOutgoing, learners, learnersNext].map((ids) => ids.map(String).sort().join(" "));
  return `${lists.join(" | ")} | ${autoLeave}`;
}

function changes(type: ConfChangeType, ids: readonly bigint[]): ConfChangeSingle[] {
  return ids.map((nodeId) => ({ type, nodeId }));
}
