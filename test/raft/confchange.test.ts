import assert from "node:assert/strict";
import { test } from "node:test";
import { type ConfChangeSingle, ConfChangeType, ConfState } from "../../src/proto/raftpb.ts";
import { Changer, ConfChangeError } from "../../src/raft/confchange/changer.ts";
import { confStateKey, restoreConfig } from "../../src/raft/confchange/restore.ts";
import { NO_LIMIT } from "../../src/raft/entry-size.ts";
import { ProgressTracker } from "../../src/raft/tracker/tracker.ts";
import { SeededRandom } from "./harness/random.ts";

const types = [
  ConfChangeType.ConfChangeAddNode,
  ConfChangeType.ConfChangeAddLearnerNode,
  ConfChangeType.ConfChangeRemoveNode,
  ConfChangeType.ConfChangeUpdateNode,
];

function newTracker(): ProgressTracker {
  return new ProgressTracker(4, NO_LIMIT);
}

function randomChanges(random: SeededRandom): ConfChangeSingle[] {
  return Array.from({ length: random.below(5) }, () => {
    return { type: types[random.below(types.length)]!, nodeId: BigInt(random.below(8)) };
  });
}

/** Applies a change if it fits. */
function attempt(tracker: ProgressTracker, change: (changer: Changer) => ReturnType<Changer["simple"]>): void {
  const before = String(tracker.config);
  try {
    const { config, progress } = change(new Changer(tracker, 10));
    assert.equal(String(tracker.config), before, "a change leaves the configuration that it starts from as it is");
    tracker.use(config, progress);
  } catch (error) {
    if (!(error instanceof ConfChangeError)) throw error;
  }
}

test("every configuration reached by changes is restored from its stored form", () => {
  const random = new SeededRandom(7);
  for (let round = 0; round < 300; round++) {
    const tracker = newTracker();
    for (let i = 0; i < 12; i++) {
      const changes = randomChanges(random);
      const kind = random.below(3);
      attempt(tracker, (changer) => {
        if (kind === 0) return changer.simple(changes.slice(0, 1));
        return kind === 1 ? changer.enterJoint(random.oneIn(2), changes) : changer.leaveJoint();
      });
      const state = tracker.config.confState();
      const restored = newTracker();
      restoreConfig(restored, 10, state);
      assert.equal(String(restored.config), String(tracker.config));
      assert.deepEqual([...restored.progress.keys()].sort(), [...tracker.progress.keys()].sort());
      for (const pr of tracker.ordered) assert.equal(restored.get(pr.id)!.isLearner, pr.isLearner);
    }
  }
});

test("changes through a joint configuration end where the same changes one by one do", () => {
  const random = new SeededRandom(11);
  for (let round = 0; round < 300; round++) {
    const [joint, single] = [newTracker(), newTracker()];
    const start = ConfState.create({ voters: [1n, 2n, 3n], learners: [4n] });
    for (const tracker of [joint, single]) restoreConfig(tracker, 10, start);
    // The first voter stays, so that no order of the changes leaves none.
    const changes = randomChanges(random).filter(({ nodeId }) => nodeId !== 1n);
    attempt(joint, (changer) => changer.enterJoint(false, changes));
    attempt(joint, (changer) => changer.leaveJoint());
    for (const change of changes) attempt(single, (changer) => changer.simple([change]));
    assert.equal(confStateKey(joint.config.confState()), confStateKey(single.config.confState()));
  }
});

test("a new member counts as active, and is probed from the end of the log", () => {
  const tracker = newTracker();
  attempt(tracker, (changer) => changer.simple([{ type: ConfChangeType.ConfChangeAddNode, nodeId: 1n }]));
  assert.equal(String(tracker.get(1n)), "StateProbe match=0 next=10");
});
