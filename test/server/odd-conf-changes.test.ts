import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import { Cluster } from "../../src/membership/cluster.ts";
import { additionOf, removalOf } from "../../src/membership/conf-change.ts";
import {
  ConfChange,
  ConfChangeTransition,
  ConfChangeType,
  ConfChangeV2,
  ConfState,
  type Entry,
  EntryType,
  Snapshot,
} from "../../src/proto/raftpb.ts";
import { MemoryStorage } from "../../src/raft/memory-storage.ts";
import { RawNode } from "../../src/raft/rawnode.ts";
import { ConfChanges } from "../../src/server/apply/conf-changes.ts";
import type { Network } from "../../src/server/contract/network.ts";
import { MemoryLogger } from "../harness/in-process.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";

const { ConfChangeAddNode, ConfChangeAddLearnerNode, ConfChangeRemoveNode, ConfChangeUpdateNode } = ConfChangeType;

/** A log is read again at every start: an entry that no member can apply must not end any. */
describe("a configuration change in the log", () => {
  let cluster: Cluster;
  let node: RawNode;
  let changes: ConfChanges;
  let logger: MemoryLogger;

  beforeEach(() => {
    const clock = new VirtualClock();
    logger = new MemoryLogger();
    const backend = new MemoryBackend({ clock });
    cluster = new Cluster({ id: 7n, localId: 1n, backend, logger, serverVersion: "3.7.1" });
    const member = { peerUrls: ["http://127.0.0.1:1"], isLearner: false, name: "a", clientUrls: [] };
    cluster.applyConfChange(additionOf(1n, { ...member, id: 1n }));
    const storage = new MemoryStorage();
    storage.applySnapshot(
      Snapshot.create({ metadata: { index: 5, term: 1, confState: ConfState.create({ voters: [1n] }) } }),
    );
    node = new RawNode({
      id: 1n,
      electionTicks: 10,
      heartbeatTicks: 1,
      storage,
      applied: 5,
      random: { below: () => 0 },
      messageBytesMax: 1_000_000,
      inflightMessagesMax: 8,
    });
    const network = { addPeer() {}, removePeer() {}, updatePeer() {} } as unknown as Network;
    changes = new ConfChanges({ node, cluster, network, logger, clock, maxLearners: 1, onRemoved: () => {} });
  });

  const entry = (type: EntryType, data: Uint8Array): Entry => ({ type, term: 1, index: 6, data });
  const first = (fields: Partial<ConfChange>): Entry =>
    entry(EntryType.EntryConfChange, ConfChange.encode(ConfChange.create(fields)));
  const second = (fields: Partial<ConfChangeV2>): Entry =>
    entry(EntryType.EntryConfChangeV2, ConfChangeV2.encode(ConfChangeV2.create(fields)));
  const text = (json: string): Buffer => Buffer.from(json);

  const odd: Readonly<Record<string, () => Entry>> = {
    "that is no message": () => entry(EntryType.EntryConfChange, Buffer.from("xx")),
    "that is no message of the second version": () => entry(EntryType.EntryConfChangeV2, Buffer.from("xx")),
    "of a kind that there is not": () => first({ type: 99 as ConfChangeType, nodeId: 2n }),
    "that says nothing of whom it adds": () => first({ type: ConfChangeAddNode, nodeId: 2n }),
    "that describes a member as something else": () =>
      first({ type: ConfChangeAddLearnerNode, nodeId: 2n, context: text("7") }),
    "whose description breaks off": () => first({ type: ConfChangeUpdateNode, nodeId: 1n, context: text('{"id":') }),
    "that adds somebody nobody described": () => second({ changes: [{ type: ConfChangeAddNode, nodeId: 9n }] }),
    "of the second version and of a kind that there is not": () =>
      second({ changes: [{ type: 99 as ConfChangeType, nodeId: 1n }] }),
    "that leaves a joint configuration where there is none": () => second({}),
    "that enters a joint configuration without anybody": () =>
      second({
        transition: ConfChangeTransition.ConfChangeTransitionJointExplicit,
        changes: [{ type: ConfChangeRemoveNode, nodeId: 1n }],
      }),
    "that removes the last voter": () => entry(EntryType.EntryConfChange, ConfChange.encode(removalOf(3n, 1n))),
  };

  for (const [what, make] of Object.entries(odd)) {
    test(`${what} is skipped`, () => {
      assert.equal(changes.apply(make()), undefined);
      assert.deepEqual(node.raft.tracker.config.confState().voters, [1n]);
      assert.deepEqual(
        cluster.members().map(({ id, peerUrls }) => [id, peerUrls]),
        [[1n, ["http://127.0.0.1:1"]]],
      );
      assert.ok(logger.lines.some(({ level }) => level === "error"));
    });
  }
});
