import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import { InternalRaftRequest } from "../../../src/proto/etcdserverpb.ts";
import { ConfChange, ConfState, type Entry, type Message, MessageType, Snapshot } from "../../../src/proto/raftpb.ts";
import { MemoryStorage } from "../../../src/raft/memory-storage.ts";
import { newMessage } from "../../../src/raft/messages.ts";
import { RawNode } from "../../../src/raft/rawnode.ts";
import { BEYOND_LOG, messageProblem } from "../../../src/server/replication/message-check.ts";
import { SeededRandom } from "../../raft/harness/random.ts";
import { bytes, put } from "../requests.ts";

const { MsgApp, MsgAppResp, MsgHeartbeat, MsgPreVoteResp, MsgProp, MsgReadIndex, MsgSnap, MsgTimeoutNow, MsgVote } =
  MessageType;
const SELF = 1n;
const STRANGER = 9n;
const MEMBERS = [1n, 2n, 3n];
const PUT = InternalRaftRequest.encode(InternalRaftRequest.create({ put: put("key", "value") }));

/** One of three members, with entries up to 5 of term 2 in its log, and what it has sent. */
class Node {
  readonly raw: RawNode;
  readonly storage = new MemoryStorage();
  readonly sent: Message[] = [];

  constructor(seed = 1) {
    const random = new SeededRandom(seed);
    this.storage.applySnapshot(
      Snapshot.create({ metadata: { index: 3, term: 1, confState: ConfState.create({ voters: MEMBERS }) } }),
    );
    this.storage.append([entry(4, 2), entry(5, 2)]);
    this.storage.setHardState({ term: 2, vote: 0n, commit: 4 });
    this.raw = new RawNode({
      id: SELF,
      electionTicks: 10,
      heartbeatTicks: 1,
      storage: this.storage,
      random: { below: (bound: number) => random.below(bound) } as never,
      applied: 3,
      inflightMessagesMax: 16,
      preVote: true,
      checkQuorum: true,
    });
    this.settle();
  }

  /** As in the loop: checked messages are stepped, and the results stored. */
  receive(message: Message): string | undefined {
    const problem = messageProblem(this.raw.raft, message);
    if (problem === undefined) this.raw.step(message);
    this.settle();
    return problem;
  }

  settle(): void {
    while (this.raw.hasReady()) {
      const { hardState, entries, snapshot, messages } = this.raw.ready();
      if (hardState !== undefined) this.storage.setHardState(hardState);
      if (snapshot !== undefined) this.storage.applySnapshot(snapshot);
      this.storage.append(entries);
      this.sent.push(...messages);
      this.raw.advance();
    }
  }

  lead(): this {
    for (let i = 0; i < 20 && this.raw.raft.state === "StateFollower"; i++) this.raw.tick();
    this.settle();
    this.receive(from(2n, MsgPreVoteResp, { term: this.raw.term + 1 }));
    this.receive(from(2n, MessageType.MsgVoteResp, { term: this.raw.term }));
    assert.ok(this.raw.isLeader);
    return this;
  }

  follow(leader = 2n): this {
    assert.equal(this.receive(from(leader, MsgHeartbeat)), undefined);
    assert.equal(this.raw.leader, leader);
    return this;
  }
}

const entry = (index: number, term: number, fields: Partial<Entry> = {}): Entry => {
  return { type: 0, term, index, data: PUT, ...fields };
};

const from = (sender: bigint, type: Message["type"], fields: Partial<Message> = {}): Message => {
  return { ...newMessage(type, SELF, sender, 2), ...fields };
};

describe("a message from an unknown sender", () => {
  let node: Node;
  beforeEach(() => {
    node = new Node();
  });

  test("is not accepted while there is a leader, whatever its term", () => {
    for (const member of [node.follow(), new Node().lead()]) {
      const { term, leader } = member.raw;
      for (const type of [MsgApp, MsgHeartbeat, MsgVote, MessageType.MsgPreVote]) {
        assert.match(member.receive(from(STRANGER, type, { term: 100 })) ?? "", /no member/, `${type}`);
      }
      assert.deepEqual([member.raw.term, member.raw.leader], [term, leader]);
    }
  });

  test("is accepted as a leader's or a candidate's where no leader is known: this member may be the one that is behind", () => {
    assert.equal(node.receive(from(STRANGER, MsgVote, { term: 3, index: 5, logTerm: 2 })), undefined);
    const entries = [entry(6, 3)];
    assert.equal(
      node.receive(from(STRANGER, MsgApp, { term: 3, index: 5, logTerm: 2, entries, commit: 6 })),
      undefined,
    );
    assert.deepEqual([node.raw.leader, node.raw.committed], [STRANGER, 6]);
    assert.equal(node.receive(from(STRANGER, MsgHeartbeat, { term: 3 })), undefined);
  });

  test("is accepted again when the leader has been silent for an election timeout", () => {
    node.follow();
    for (let i = 0; i < 10 && node.raw.leader !== 0n; i++) node.raw.tick();
    assert.equal(node.receive(from(STRANGER, MsgHeartbeat, { term: 100 })), undefined);
  });

  test("proposes nothing, reads nothing, and starts no election", () => {
    const request = { term: 0, entries: [entry(0, 0)] };
    for (const [type, fields] of [
      [MsgProp, request],
      [MsgReadIndex, request],
      [MsgTimeoutNow, {}],
      [MessageType.MsgTransferLeader, {}],
    ] as const) {
      assert.match(node.receive(from(STRANGER, type, fields)) ?? "", /no member/);
    }
    assert.match(
      node.receive(from(STRANGER, MsgVote, { term: 3, context: bytes("CampaignTransfer") })) ?? "",
      /no member/,
    );
  });

  test("is accepted by a joining member that knows no member yet", () => {
    const storage = new MemoryStorage();
    const joining = new RawNode({
      id: SELF,
      electionTicks: 10,
      heartbeatTicks: 1,
      storage,
      random: { below: () => 0 } as never,
      inflightMessagesMax: 16,
    });
    for (const leader of [2n, 3n]) {
      const message = from(leader, MsgHeartbeat, { term: Number(leader) });
      assert.equal(messageProblem(joining.raft, message), undefined);
      joining.step(message);
    }
    assert.equal(joining.leader, 3n);
  });
});

describe("impossible messages of a member are refused", () => {
  test("a heartbeat that commits beyond the log, with what to do", () => {
    const node = new Node();
    assert.equal(node.receive(from(2n, MsgHeartbeat, { commit: 6 })), BEYOND_LOG);
    assert.equal(node.receive(from(2n, MsgHeartbeat, { commit: 5 })), undefined);
    assert.equal(node.raw.committed, 5);
  });

  const change = (fields: Partial<ConfChange>): Uint8Array => ConfChange.encode(ConfChange.create(fields));
  const refusals: Record<string, Message> = {
    "no sender": from(0n, MsgHeartbeat),
    "this member's own name": from(SELF, MsgHeartbeat),
    "a term beyond what can be counted": from(2n, MsgHeartbeat, { term: 2 ** 53 }),
    "no term": from(2n, MsgHeartbeat, { term: 0 }),
    "a proposal with a term": from(2n, MsgProp, { term: 3, entries: [entry(0, 0)] }),
    "a message that is never sent": from(2n, MessageType.MsgHup),
    "a type that there is not": from(2n, 77 as Message["type"]),
    "entries with a gap": from(2n, MsgApp, { index: 5, logTerm: 2, entries: [entry(6, 2), entry(8, 2)] }),
    "entries whose terms fall": from(2n, MsgApp, { index: 5, logTerm: 2, entries: [entry(6, 1)] }),
    "entries of a later term than its own": from(2n, MsgApp, { index: 5, logTerm: 2, entries: [entry(6, 3)] }),
    "an entry of an unknown type": from(2n, MsgApp, {
      index: 5,
      logTerm: 2,
      entries: [entry(6, 2, { type: 5 as Entry["type"] })],
    }),
    "a change that is no change": from(2n, MsgApp, {
      index: 5,
      logTerm: 2,
      entries: [entry(6, 2, { type: 1, data: bytes("not a change") })],
    }),
    "a change that adds nobody": from(2n, MsgProp, {
      term: 0,
      entries: [entry(0, 0, { type: 1, data: change({ nodeId: 7n }) })],
    }),
    "a request that nobody can read": from(2n, MsgProp, { term: 0, entries: [entry(0, 0, { data: bytes("\x1a") })] }),
    "a proposal of nothing": from(2n, MsgProp, { term: 0 }),
    "a snapshot without a configuration": from(2n, MsgSnap, {
      snapshot: Snapshot.create({ metadata: { index: 9, term: 2, confState: undefined } }),
    }),
    "a snapshot whose configuration has no voter": from(2n, MsgSnap, {
      snapshot: Snapshot.create({ metadata: { index: 9, term: 2, confState: ConfState.create({ learners: [1n] }) } }),
    }),
    "a snapshot of a later term": from(2n, MsgSnap, {
      snapshot: Snapshot.create({ metadata: { index: 9, term: 3, confState: ConfState.create({ voters: MEMBERS }) } }),
    }),
    "an election asked for by a follower": from(3n, MsgTimeoutNow),
  };
  for (const [what, message] of Object.entries(refusals)) {
    test(what, () => {
      const node = new Node().follow();
      const before = JSON.stringify([node.raw.term, node.raw.raft.log.lastIndex(), node.raw.committed]);
      assert.notEqual(node.receive(message), undefined);
      assert.equal(JSON.stringify([node.raw.term, node.raw.raft.log.lastIndex(), node.raw.committed]), before);
    });
  }

  test("an acknowledgement of what a leader has not sent", () => {
    const node = new Node().lead();
    const index = node.raw.raft.log.lastIndex() + 1;
    assert.notEqual(node.receive(from(2n, MsgAppResp, { term: node.raw.term, index })), undefined);
  });
});

test("no accepted message breaks an invariant, from any sender and in any order", () => {
  let taken = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const random = new SeededRandom(seed);
    const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!;
    const node = new Node(seed);
    for (let i = 0; i < 300; i++) {
      if (random.oneIn(10)) node.raw.tick();
      const { raft } = node.raw;
      const number = (): number =>
        pick([0, 1, 2, 3, raft.term, raft.term + 1, raft.log.committed, raft.log.lastIndex()]);
      const near = (): number => pick([number(), raft.log.lastIndex() + random.below(4), 2 ** 40, 2 ** 53, 2 ** 64]);
      const index = near();
      const logTerm = raft.log.term(index) ?? number();
      const entries = Array.from({ length: random.below(4) }, (_, at) =>
        entry(random.oneIn(8) ? near() : index + 1 + at, random.oneIn(4) ? number() : Math.max(logTerm, raft.term), {
          type: pick([0, 0, 0, 1, 2, 5]) as Entry["type"],
          data: pick([PUT, PUT, bytes("?"), Buffer.alloc(0)]),
        }),
      );
      const voters = Array.from({ length: random.below(4) }, () => BigInt(1 + random.below(4)));
      const message: Message = {
        ...newMessage(random.below(25) as Message["type"], SELF, pick([0n, 1n, 2n, 3n, 2n, 3n, STRANGER])),
        term: random.oneIn(20) ? near() : raft.term + random.below(2),
        index,
        logTerm,
        entries,
        commit: near(),
        reject: random.oneIn(3),
        rejectHint: near(),
        context: pick([
          Buffer.alloc(0),
          Buffer.alloc(8, 1),
          bytes("CampaignTransfer"),
          raft.readOnly.heartbeatContext(),
        ]),
        snapshot: random.oneIn(2)
          ? undefined
          : Snapshot.create({
              metadata: {
                index: near(),
                term: number(),
                confState: ConfState.create({ voters, learners: random.oneIn(3) ? [4n] : [] }),
              },
            }),
      };
      try {
        if (node.receive(message) === undefined) taken++;
      } catch (error) {
        const text = JSON.stringify(message, (_, value) => (typeof value === "bigint" ? `${value}` : value));
        throw new Error(`seed ${seed}, message ${i}: ${text}`, { cause: error });
      }
    }
  }
  assert.ok(taken > 1000, `only ${taken} messages were taken`);
});
