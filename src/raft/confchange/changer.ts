/**
 * Configuration changes, checked before they take effect.
 *
 * Each method takes a tracker as it is and returns a new configuration with new progress, or throws ConfChangeError and
 * leaves everything as it was. Source: Raft thesis, chapter 4; joint consensus is its section 4.3.
 */
import { KvorumError } from "../../base/errors.ts";
import { type ConfChangeSingle, ConfChangeType } from "../../proto/raftpb.ts";
import { JointConfig } from "../quorum/joint.ts";
import { MajorityConfig } from "../quorum/majority.ts";
import type { TrackerConfig } from "../tracker/config.ts";
import { Progress } from "../tracker/progress.ts";
import type { ProgressMap, ProgressTracker } from "../tracker/tracker.ts";

/** The change does not fit the configuration it was applied to. */
export class ConfChangeError extends KvorumError {
  override name = "ConfChangeError";
  readonly code = "ERR_CONF_CHANGE";
}

export interface ChangedConfig {
  readonly config: TrackerConfig;
  readonly progress: ProgressMap;
}

export class Changer {
  readonly #tracker: ProgressTracker;
  readonly #lastIndex: number;

  /** `lastIndex` is the last index of the log, where probing of new members starts. */
  constructor(tracker: ProgressTracker, lastIndex: number) {
    this.#tracker = tracker;
    this.#lastIndex = lastIndex;
  }

  /** (1 2 3) becomes (1 2 3 with the changes) && (1 2 3). */
  enterJoint(autoLeave: boolean, changes: readonly ConfChangeSingle[]): ChangedConfig {
    const { config, progress } = this.#copy();
    const { incoming } = config.voters;
    if (config.voters.isJoint) throw new ConfChangeError("config is already joint");
    if (incoming.size === 0) throw new ConfChangeError("can't make a zero-voter config joint");
    config.voters = new JointConfig(incoming, new MajorityConfig(incoming.ids));
    this.#apply(config, progress, changes);
    config.autoLeave = autoLeave;
    return checked(config, progress);
  }

  /** From here on the incoming voters decide alone; staged learners become learners. */
  leaveJoint(): ChangedConfig {
    const { config, progress } = this.#copy();
    const { incoming, outgoing, isJoint } = config.voters;
    if (!isJoint) throw new ConfChangeError("can't leave a non-joint config");
    for (const id of config.learnersNext) {
      config.learners.add(id);
      progress.get(id)!.isLearner = true;
    }
    config.learnersNext.clear();
    for (const id of outgoing.ids) if (!incoming.has(id) && !config.learners.has(id)) progress.delete(id);
    config.voters = new JointConfig(incoming);
    config.autoLeave = false;
    return checked(config, progress);
  }

  /** The simple protocol: changes that together alter at most one voter, so that old and new majorities overlap. */
  simple(changes: readonly ConfChangeSingle[]): ChangedConfig {
    const { config, progress } = this.#copy();
    if (config.voters.isJoint) throw new ConfChangeError("can't apply simple config change in joint config");
    this.#apply(config, progress, changes);
    if (differences(this.#tracker.config.voters.incoming, config.voters.incoming) > 1) {
      throw new ConfChangeError("more than one voter changed without entering joint config");
    }
    return checked(config, progress);
  }

  #copy(): ChangedConfig {
    const progress: ProgressMap = new Map();
    for (const pr of this.#tracker.ordered) progress.set(pr.id, pr.copy());
    return checked(this.#tracker.config.clone(), progress);
  }

  /** Voters change in the incoming half only; the outgoing half stays as it was. */
  #apply(config: TrackerConfig, progress: ProgressMap, changes: readonly ConfChangeSingle[]): void {
    for (const { type, nodeId } of changes) {
      // The application zeroes the id of a change that it decided, while applying, to reject.
      if (nodeId === 0n) continue;
      switch (type) {
        case ConfChangeType.ConfChangeAddNode:
          this.#makeVoter(config, progress, nodeId);
          break;
        case ConfChangeType.ConfChangeAddLearnerNode:
          this.#makeLearner(config, progress, nodeId);
          break;
        case ConfChangeType.ConfChangeRemoveNode:
          remove(config, progress, nodeId);
          break;
        case ConfChangeType.ConfChangeUpdateNode:
          break;
        default:
          throw new ConfChangeError(`unexpected conf type ${type}`);
      }
    }
    if (config.voters.incoming.size === 0) throw new ConfChangeError("removed all voters");
  }

  #makeVoter(config: TrackerConfig, progress: ProgressMap, id: bigint): void {
    config.voters.incoming.ids.add(id);
    const pr = progress.get(id);
    if (pr === undefined) {
      progress.set(id, this.#newProgress(id, false));
      return;
    }
    pr.isLearner = false;
    config.learners.delete(id);
    config.learnersNext.delete(id);
  }

  #makeLearner(config: TrackerConfig, progress: ProgressMap, id: bigint): void {
    const pr = progress.get(id);
    if (pr === undefined) {
      config.learners.add(id);
      progress.set(id, this.#newProgress(id, true));
      return;
    }
    if (pr.isLearner) return;
    remove(config, progress, id);
    progress.set(id, pr);
    if (config.voters.outgoing.has(id)) config.learnersNext.add(id);
    else {
      pr.isLearner = true;
      config.learners.add(id);
    }
  }

  #newProgress(id: bigint, isLearner: boolean): Progress {
    const pr = new Progress(id, 0, Math.max(this.#lastIndex, 1), isLearner, this.#tracker.newInflights());
    // Counts as active; otherwise a quorum check could depose the leader before the new member has sent anything.
    pr.recentActive = true;
    return pr;
  }
}

function remove(config: TrackerConfig, progress: ProgressMap, id: bigint): void {
  config.voters.incoming.ids.delete(id);
  config.learners.delete(id);
  config.learnersNext.delete(id);
  if (!config.voters.outgoing.has(id)) progress.delete(id);
}

/** How many ids are in one of the two sets but not in both. */
function differences(a: MajorityConfig, b: MajorityConfig): number {
  let common = 0;
  for (const id of a.ids) if (b.has(id)) common++;
  return a.size + b.size - 2 * common;
}

/** Returns its arguments if they are consistent. */
function checked(config: TrackerConfig, progress: ProgressMap): ChangedConfig {
  for (const ids of [config.voters.ids(), config.learners, config.learnersNext]) {
    for (const id of ids) if (!progress.has(id)) throw new ConfChangeError(`no progress for ${id}`);
  }
  for (const id of config.learnersNext) {
    if (!config.voters.outgoing.has(id)) throw new ConfChangeError(`${id} is in LearnersNext, but not Voters[1]`);
    if (progress.get(id)!.isLearner) {
      throw new ConfChangeError(`${id} is in LearnersNext, but is already marked as learner`);
    }
  }
  for (const id of config.learners) {
    if (config.voters.outgoing.has(id)) throw new ConfChangeError(`${id} is in Learners and Voters[1]`);
    if (config.voters.incoming.has(id)) throw new ConfChangeError(`${id} is in Learners and Voters[0]`);
    if (!progress.get(id)!.isLearner) throw new ConfChangeError(`${id} is in Learners, but is not marked as learner`);
  }
  if (!config.voters.isJoint && config.autoLeave) throw new ConfChangeError("AutoLeave must be false when not joint");
  return { config, progress };
}
