import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfChange, ConfChangeType, ConfState, type Entry } from "../../../src/proto/raftpb.ts";
import { MemoryStorage } from "../../../src/raft/memory-storage.ts";
import { RawNode } from "../../../src/raft/rawnode.ts";
import { Role } from "../../../src/server/replication/role.ts";
import { SeededRandom } from "../../raft/harness/random.ts";

/** The only voter, with its storage. */
class Solo {
  readonly storage = new MemoryStorage();
  readonly node: RawNode;

  constructor() {
    const confState = ConfState.create({ voters: [1n] });
    this.storage.applySnapshot({ data: Buffer.alloc(0), metadata: { confState, index: 1, term: 1 } });
    this.storage.setHardState({ term: 1, vote: 0n, commit: 1 });
    this.node = new RawNode({
      id: 1n,
      electionTicks: 10,
      heartbeatTicks: 1,
      inflightMessagesMax: 16,
      storage: this.storage,
      random: new SeededRandom(1),
    });
  }

  /** Writes what is ready. Returns the empty entries that were committed. */
  drain(): Entry[] {
    const empty: Entry[] = [];
    while (this.node.hasReady()) {
      const ready = this.node.ready();
      if (ready.hardState !== undefined) this.storage.setHardState(ready.hardState);
      this.storage.append(ready.entries);
      empty.push(...ready.committedEntries.filter(({ data }) => data.length === 0));
      this.node.advance();
    }
    return empty;
  }
}

test("a term starts once, although membership changes that raft refuses are empty entries too", () => {
  const solo = new Solo();
  const { node } = solo;
  const role = new Role(node, 1n, false);
  const lead = (): Entry[] => {
    node.campaign();
    const entries = solo.drain();
    role.update([1n], false);
    return entries;
  };
  const [first] = lead();
  assert.equal(role.leadsInTerm, false);
  assert.equal(role.termStarted(first!.term), true);
  assert.equal(role.leadsInTerm, true);

  const change = ConfChange.create({ type: ConfChangeType.ConfChangeUpdateNode, nodeId: 1n });
  node.proposeConfChange(change);
  node.proposeConfChange(change);
  const [refused] = solo.drain();
  assert.equal(refused!.term, first!.term);
  assert.equal(role.termStarted(refused!.term), false, "leases would be extended again");
  assert.equal(role.leadsInTerm, true);
});
