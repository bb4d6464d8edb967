import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantError } from "../../src/base/fatal.ts";
import { ConfChange, ConfChangeType, ConfState, type Entry, Message, MessageType } from "../../src/proto/raftpb.ts";
import type { RaftConfig } from "../../src/raft/config.ts";
import {
  ErrBootstrapNotEmpty,
  ErrBootstrapWithoutPeers,
  ErrProposalDropped,
  ErrStepLocalMsg,
  ErrStepPeerNotFound,
  RaftConfigError,
} from "../../src/raft/errors.ts";
import { MemoryStorage } from "../../src/raft/memory-storage.ts";
import { newEntry, newMessage } from "../../src/raft/messages.ts";
import { RawNode, type Ready } from "../../src/raft/rawnode.ts";
import { SeededRandom } from "./harness/random.ts";

type Settings = Partial<RaftConfig>;

function newNode(voters: readonly bigint[], settings: Settings = {}): { node: RawNode; storage: MemoryStorage } {
  const storage = new MemoryStorage();
  if (voters.length > 0) {
    const confState = ConfState.create({ voters: [...voters] });
    storage.applySnapshot({ data: Buffer.alloc(0), metadata: { confState, index: 1, term: 1 } });
    storage.setHardState({ term: 1, vote: 0n, commit: 1 });
  }
  const node = new RawNode({
    id: 1n,
    electionTicks: 10,
    heartbeatTicks: 1,
    inflightMessagesMax: 16,
    storage,
    random: new SeededRandom(1),
    ...settings,
  });
  return { node, storage };
}

/** Does the owner's duties until there are none. Returns the Readys. */
function drain(node: RawNode, storage: MemoryStorage): Ready[] {
  const readies: Ready[] = [];
  while (node.hasReady()) {
    const ready = node.ready();
    if (ready.hardState !== undefined) storage.setHardState(ready.hardState);
    storage.append(ready.entries);
    readies.push(ready);
    node.advance();
  }
  return readies;
}

function committed(readies: readonly Ready[]): Entry[] {
  return readies.flatMap((ready) => ready.committedEntries);
}

test("a bootstrapped single member elects itself and commits what is proposed, in order", () => {
  const { node, storage } = newNode([]);
  assert.equal(node.bootstrap([{ id: 1n, context: Buffer.from("member") }]), undefined);
  const [first] = drain(node, storage);
  assert.deepEqual(first!.hardState, { term: 1, vote: 0n, commit: 1 });
  assert.deepEqual(ConfChange.decode(first!.committedEntries[0]!.data).context, Buffer.from("member"));
  node.campaign();
  drain(node, storage);
  assert.ok(node.isLeader);
  assert.equal(node.proposeBatch([Buffer.from("a"), Buffer.from("b")]), undefined);
  const entries = committed(drain(node, storage));
  assert.deepEqual(
    entries.map(({ data }) => data.toString()),
    ["a", "b"],
  );
  assert.equal(node.applied, storage.lastIndex());
});

test("a batch of proposals is one write, one Ready and one message to each follower", () => {
  const { node, storage } = newNode([1n, 2n]);
  node.campaign();
  drain(node, storage);
  const vote = newMessage(MessageType.MsgVoteResp, 1n, 2n, node.term);
  assert.equal(node.step(vote), undefined);
  drain(node, storage);
  const ack = newMessage(MessageType.MsgAppResp, 1n, 2n, node.term);
  ack.index = storage.lastIndex();
  node.step(ack);
  drain(node, storage);
  node.proposeBatch(Array.from({ length: 100 }, (_, i) => Buffer.from(String(i))));
  const ready = node.ready();
  assert.equal(ready.entries.length, 100);
  assert.ok(ready.mustSync);
  assert.deepEqual(
    ready.messages.map(({ type, entries }) => [type, entries.length]),
    [[MessageType.MsgApp, 100]],
  );
});

test("bootstrap refuses a log that is not empty, and an empty group", () => {
  assert.equal(newNode([1n]).node.bootstrap([{ id: 1n, context: Buffer.alloc(0) }]), ErrBootstrapNotEmpty);
  assert.equal(newNode([]).node.bootstrap([]), ErrBootstrapWithoutPeers);
});

test("step refuses local messages, and responses from unknown nodes", () => {
  const { node } = newNode([1n, 2n]);
  assert.equal(node.step(newMessage(MessageType.MsgHup, 1n, 2n)), ErrStepLocalMsg);
  assert.equal(node.step(newMessage(MessageType.MsgUnreachable, 1n, 2n)), ErrStepLocalMsg);
  assert.equal(node.step(newMessage(MessageType.MsgAppResp, 1n, 9n, 1)), ErrStepPeerNotFound);
  assert.equal(node.propose(Buffer.from("nobody leads")), ErrProposalDropped);
});

test("messages that no peer would send do no harm", () => {
  const { node, storage } = newNode([1n]);
  node.campaign();
  drain(node, storage);
  const before = storage.lastIndex();
  const empty = newMessage(MessageType.MsgProp, 1n, 2n);
  assert.equal(node.step(empty), ErrProposalDropped);
  const malformed = newMessage(MessageType.MsgProp, 1n, 2n);
  malformed.entries.push({ ...newEntry(Buffer.from([0xff])), type: 1 });
  assert.equal(node.step(malformed), ErrProposalDropped);
  node.step(newMessage(MessageType.MsgReadIndex, 1n, 2n));
  node.step(newMessage(MessageType.MsgVote, 1n, 2n));
  drain(node, storage);
  assert.equal(storage.lastIndex(), before);

  const follower = newNode([1n, 2n]);
  const gap = newMessage(MessageType.MsgApp, 1n, 2n, 2);
  gap.index = 1;
  gap.logTerm = 1;
  gap.entries.push({ ...newEntry(Buffer.from("x")), index: 3, term: 2 });
  assert.equal(follower.node.step(gap), undefined);
  drain(follower.node, follower.storage);
  assert.equal(follower.storage.lastIndex(), 1);

  const snapshot = newMessage(MessageType.MsgSnap, 1n, 2n, 2);
  assert.equal(follower.node.step(snapshot), undefined);
});

test("a follower forwards a transfer request from the network", () => {
  const { node, storage } = newNode([1n, 2n, 3n]);
  node.step(newMessage(MessageType.MsgHeartbeat, 1n, 2n, 2));
  drain(node, storage);
  node.step(newMessage(MessageType.MsgTransferLeader, 1n, 3n, 2));
  const [ready] = drain(node, storage);
  assert.deepEqual(
    ready!.messages.map(({ type, from, to }) => [type, from, to]),
    [[MessageType.MsgTransferLeader, 3n, 2n]],
  );
});

test("a proposal from the network is copied, so that its sender may send it twice", () => {
  const { node, storage } = newNode([1n]);
  node.campaign();
  drain(node, storage);
  const proposal = newMessage(MessageType.MsgProp, 1n, 2n);
  proposal.entries.push(newEntry(Buffer.from("twice")));
  node.step(proposal);
  node.step(proposal);
  const entries = committed(drain(node, storage));
  assert.deepEqual(
    entries.map(({ index }) => index),
    [3, 4],
  );
  assert.equal(proposal.entries[0]!.index, 0);
});

test("a restarted member continues where it was, and applies nothing twice", () => {
  const { node, storage } = newNode([1n]);
  node.campaign();
  drain(node, storage);
  node.propose(Buffer.from("a"));
  drain(node, storage);
  const again = new RawNode({
    id: 1n,
    electionTicks: 10,
    heartbeatTicks: 1,
    inflightMessagesMax: 16,
    storage,
    random: new SeededRandom(2),
    applied: node.applied,
  });
  assert.equal(again.term, node.term);
  assert.equal(again.committed, node.committed);
  assert.deepEqual(committed(drain(again, storage)), []);
  again.campaign();
  const entries = committed(drain(again, storage));
  assert.deepEqual(
    entries.map(({ index, data }) => [index, data.length]),
    [[node.committed + 1, 0]],
  );
});

test("entries for applying come in portions of committedBytesMax", () => {
  const { node, storage } = newNode([1n], { committedBytesMax: 250 });
  node.campaign();
  drain(node, storage);
  node.proposeBatch(Array.from({ length: 10 }, () => Buffer.alloc(100)));
  const portions = drain(node, storage)
    .map(({ committedEntries }) => committedEntries.length)
    .filter((length) => length > 0);
  assert.deepEqual(portions, [2, 2, 2, 2, 2]);
});

test("election timeouts are drawn from [electionTicks, 2 * electionTicks) each time", () => {
  const drawn = new Set<number>();
  const { node } = newNode([1n, 2n]);
  for (let i = 0; i < 200; i++) {
    node.campaign();
    drawn.add(node.raft.randomizedElectionTimeout);
  }
  assert.deepEqual(
    [...drawn].sort((a, b) => a - b),
    Array.from({ length: 10 }, (_, i) => 10 + i),
  );
});

test("a Ready must be advanced before the next one is taken", () => {
  const { node } = newNode([1n]);
  node.campaign();
  node.ready();
  assert.throws(() => node.ready(), InvariantError);
});

test("settings that contradict each other are refused with the rule they break", () => {
  const refused: [Settings, RegExp][] = [
    [{ id: 0n }, /cannot use none as id/],
    [{ id: 0xffff_ffff_ffff_ffffn }, /cannot use local target as id/],
    [{ heartbeatTicks: 0 }, /heartbeat tick must be greater than 0/],
    [{ electionTicks: 1 }, /election tick must be greater than heartbeat tick/],
    [{ inflightMessagesMax: 0 }, /max inflight messages must be greater than 0/],
    [{ messageBytesMax: 100, inflightBytesMax: 99 }, /max inflight bytes must be >= max message size/],
    [{ readOnlyOption: "lease-based" }, /CheckQuorum must be enabled/],
  ];
  for (const [settings, rule] of refused) {
    assert.throws(
      () => newNode([1n], settings),
      (error: Error) => error instanceof RaftConfigError && rule.test(error.message),
    );
  }
});

test("a refused change, with node id 0, leaves the configuration as it is", () => {
  const { node } = newNode([1n, 2n]);
  const change = ConfChange.create({ type: ConfChangeType.ConfChangeRemoveNode, nodeId: 0n });
  assert.deepEqual(node.applyConfChange(change).voters, [1n, 2n]);
  const status = node.status();
  assert.equal(String(status.config), "voters=(1 2)");
  assert.equal(status.progress.size, 0);
});

test("messages survive their encoding", () => {
  const { node, storage } = newNode([1n, 2n]);
  node.campaign();
  for (const message of drain(node, storage).flatMap((ready) => ready.messages)) {
    const decoded = Message.decode(Message.encode(message));
    assert.deepEqual({ ...decoded, context: [...decoded.context] }, { ...message, context: [...message.context] });
  }
});
