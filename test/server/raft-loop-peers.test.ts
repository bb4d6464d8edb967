import assert from "node:assert/strict";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { InternalRaftRequest, RequestOp, TxnRequest } from "../../src/proto/etcdserverpb.ts";
import {
  ConfChange,
  ConfState,
  type Entry,
  EntryType,
  type Message,
  MessageType,
  Snapshot,
} from "../../src/proto/raftpb.ts";
import { newMessage } from "../../src/raft/messages.ts";
import { RaftLoop } from "../../src/server/replication/raft-loop.ts";
import { type Bootstrapped, bootstrap } from "../../src/server/start/bootstrap.ts";
import { serverOptions, tempDir } from "../harness/in-process.ts";
import { noPeers } from "../harness/no-peers.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";
import { waitFor } from "../harness/wait.ts";
import { HeldDisk } from "./held-disk.ts";
import { bytes, put } from "./requests.ts";

const { MsgApp, MsgAppResp, MsgPreVoteResp, MsgProp, MsgSnap, MsgVoteResp } = MessageType;

describe("the raft loop of one of three members", () => {
  let dir: ReturnType<typeof tempDir>;
  let disk: HeldDisk;
  let clock: VirtualClock;
  let parts: Bootstrapped;
  let loop: RaftLoop;
  let proposals: string[];
  let applied: string[];
  let sent: Message[];
  let blocked: boolean;
  let installed: number[];
  let finishInstall: (() => void) | undefined;
  let others: bigint[];
  /** The last reported leader, and the leaders at the times when reads could be requested. */
  let told: bigint;
  let asked: bigint[];

  beforeEach(async () => {
    dir = tempDir();
    disk = new HeldDisk();
    clock = new VirtualClock();
    const initialCluster = new Map(
      ["a", "b", "c"].map((name, i) => [name, [`http://127.0.0.1:${10_001 + i}`]] as const),
    );
    const options = serverOptions(join(dir.path, "data"), { name: "a", initialCluster, disk, unsafeNoFsync: false });
    parts = await bootstrap(options, noPeers);
    others = parts.members.map(({ id }) => id).filter((id) => id !== parts.memberId);
    proposals = [];
    applied = [];
    told = 0n;
    asked = [];
    sent = [];
    blocked = false;
    installed = [];
    finishInstall = undefined;
    loop = new RaftLoop({
      node: parts.node,
      storage: parts.storage,
      wal: parts.wal,
      clock,
      hooks: {
        apply,
        propose() {
          if (proposals.length === 0 || !loop.takesProposals) return;
          parts.node.proposeBatch(proposals.map(bytes));
          proposals = [];
        },
        askReads: () => asked.push(told),
        readState() {},
        stateChanged() {
          told = parts.node.leader;
        },
        saveSnapshot(snapshot) {
          const { index, term, confState } = snapshot.metadata!;
          parts.wal.saveSnapshot({ index, term, confState });
        },
        installSnapshot(snapshot, done) {
          installed.push(snapshot.metadata!.index);
          finishInstall = done;
        },
        send: (messages) => sent.push(...messages),
        blocked: () => blocked,
        fail(error) {
          throw error;
        },
        observeSync() {},
        observeWrite() {},
        refused: (message, problem) => assert.fail(`refused ${message.type}: ${problem}`),
      },
    });
    loop.run();
    await waitFor("it has applied who its members are", () => parts.node.applied === 3);
  });

  afterEach(async () => {
    disk.holding = false;
    while (disk.heldCount > 0) disk.release();
    finishInstall?.();
    await loop.stop();
    parts.wal.close();
    await parts.backend.close();
    parts.unlock();
    dir.remove();
  });

  function apply(entries: readonly Entry[]): boolean {
    for (const { type, data } of entries) {
      if (type === EntryType.EntryConfChange) parts.node.applyConfChange(ConfChange.decode(data));
      else if (data.length > 0) applied.push(Buffer.from(data).toString());
    }
    return true;
  }

  /** Delivers messages that arrive in one turn, and lets the loop handle them. */
  function arrive(...messages: Message[]): void {
    for (const message of messages) loop.receive({ ...message, to: parts.memberId });
    clock.settle();
  }

  const from = (i: number, type: Message["type"], fields: Partial<Message> = {}): Message => ({
    ...newMessage(type, parts.memberId, others[i]!, parts.node.term),
    ...fields,
  });

  const ofType = (type: Message["type"]): Message[] => sent.filter((message) => message.type === type);

  async function lead(): Promise<void> {
    parts.node.campaign();
    loop.run();
    arrive(from(0, MsgPreVoteResp, { term: parts.node.term + 1 }));
    arrive(from(0, MsgVoteResp));
    assert.ok(parts.node.isLeader);
    acknowledge();
    await waitFor("its first entry is applied", () => parts.node.applied === 4);
    sent.length = 0;
  }

  /** Both others have everything that this leader has. */
  function acknowledge(): void {
    const index = parts.node.raft.log.lastIndex();
    arrive(from(0, MsgAppResp, { index }), from(1, MsgAppResp, { index }));
  }

  /** An entry of a leader's term 5 that follows the local log. */
  const entry = (index: number, text: string): Entry => ({ type: 0, term: 5, index, data: bytes(text) });

  function append(index: number, texts: readonly string[], commit: number): Message {
    const entries = texts.map((text, i) => entry(index + i, text));
    const logTerm = index === 4 ? 1 : 5;
    return from(0, MsgApp, { term: 5, index: index - 1, logTerm, entries, commit });
  }

  test("sends a leader's batch before it is synced here", async () => {
    await lead();
    disk.holding = true;
    proposals = ["x"];
    loop.run();
    assert.equal(ofType(MsgApp).length, 2);
    assert.equal(disk.heldCount, 1);
    assert.deepEqual(applied, []);
  });

  test("applies a batch as soon as it is acknowledged, while the next one is synced", async () => {
    await lead();
    disk.holding = true;
    proposals = ["a", "b", "c"];
    loop.run();
    proposals = ["d", "e", "f"];
    disk.release();
    assert.equal(disk.heldCount, 1, "the second batch is being synced");
    assert.deepEqual(applied, []);
    arrive(from(0, MsgAppResp, { index: parts.node.raft.log.lastIndex() - 3 }));
    assert.deepEqual(applied, ["a", "b", "c"]);
    assert.equal(disk.heldCount, 1);
  });

  test("applies nothing that is acknowledged by the others, but not durable here", async () => {
    await lead();
    disk.holding = true;
    proposals = ["a", "b", "c"];
    loop.run();
    acknowledge();
    assert.equal(parts.node.committed, parts.node.raft.log.lastIndex());
    assert.deepEqual(applied, []);
    disk.release();
    assert.deepEqual(applied, ["a", "b", "c"]);
  });

  test("holds followers' proposals during a sync for the next batch, or the end of a transfer", async () => {
    await lead();
    const last = parts.node.raft.log.lastIndex();
    disk.holding = true;
    proposals = ["a", "b", "c"];
    loop.run();
    const request = (text: string): Uint8Array =>
      InternalRaftRequest.encode(InternalRaftRequest.create({ put: put(text) }));
    const prop = (text: string): Message =>
      from(1, MsgProp, { term: 0, entries: [{ type: 0, term: 0, index: 0, data: request(text) }] });
    arrive(prop("x"), prop("y"));
    assert.equal(parts.node.raft.log.lastIndex(), last + 3);
    disk.release();
    assert.equal(parts.node.raft.log.lastIndex(), last + 5);
    disk.holding = false;
    while (disk.heldCount > 0) disk.release();
    acknowledge();
    parts.node.transferLeader(others[0]!);
    loop.run();
    arrive(prop("z"));
    assert.equal(parts.node.raft.log.lastIndex(), last + 5);
    assert.equal(loop.takesProposals, false);
    for (let i = 0; i < 20; i++) parts.node.tick();
    loop.run();
    assert.equal(ofType(MsgProp).length, 0);
  });

  test("checks a long transaction of another member in slices, and proposes it then", async () => {
    await lead();
    const last = parts.node.raft.log.lastIndex();
    const success = Array.from({ length: 20_000 }, (_, i) => RequestOp.create({ requestPut: put(`key ${i}`) }));
    const data = InternalRaftRequest.encode(InternalRaftRequest.create({ txn: TxnRequest.create({ success }) }));
    const long = from(1, MsgProp, { term: 0, entries: [{ type: 0, term: 0, index: 0, data }] });
    loop.receive({ ...long, to: parts.memberId });
    let turns = 0;
    for (; parts.node.raft.log.lastIndex() === last; turns++)
      assert.ok(clock.turn(), "it goes on until it is proposed");
    assert.ok(turns >= 5, `${turns} turns`);
    assert.equal(parts.node.raft.log.lastIndex(), last + 1);
  });

  test("writes what a leader sends in one turn with one sync, and acknowledges it once, afterwards", () => {
    disk.holding = true;
    disk.events.length = 0;
    arrive(append(4, ["a", "b"], 3), append(6, ["c"], 3), append(7, ["d"], 5));
    assert.equal(disk.heldCount, 1);
    assert.equal(ofType(MsgAppResp).length, 0);
    disk.release();
    // Each causes one; the outbox sends the last.
    assert.deepEqual(ofType(MsgAppResp).at(-1)!.index, 7);
    assert.deepEqual(applied, ["a", "b"]);
    assert.equal(disk.events.filter((event) => event === "sync begins").length, 1);
  });

  test("reports another leader before reads are requested from it", async () => {
    await lead();
    asked.length = 0;
    arrive(from(1, MsgApp, { term: parts.node.term + 1, index: 4, logTerm: parts.node.term }));
    assert.equal(parts.node.leader, others[1]);
    assert.ok(asked.length > 0);
    assert.deepEqual([...new Set(asked)], [others[1]]);
  });

  test("answers other members while it syncs", () => {
    disk.holding = true;
    arrive(append(4, ["a", "b", "c"], 3));
    arrive(from(0, MessageType.MsgHeartbeat, { term: 5, commit: 3 }));
    assert.equal(ofType(MessageType.MsgHeartbeatResp).length, 1);
    assert.equal(ofType(MsgAppResp).length, 0);
  });

  test("replaces earlier entries that wait to be applied by a snapshot", async () => {
    blocked = true;
    const acknowledged = (index: number): Promise<true> =>
      waitFor(`${index} is durable`, () => ofType(MsgAppResp).at(-1)?.index === index);
    arrive(append(4, ["a", "b", "c"], 6));
    await acknowledged(6);
    assert.deepEqual(applied, []);
    const confState = ConfState.create({ voters: [parts.memberId, ...others] });
    const snapshot = Snapshot.create({ metadata: { index: 50, term: 5, confState } });
    arrive(from(0, MsgSnap, { term: 5, snapshot }));
    await acknowledged(50);
    arrive(from(0, MsgApp, { term: 5, index: 50, logTerm: 5, entries: [entry(51, "later")], commit: 51 }));
    await acknowledged(51);
    blocked = false;
    loop.run();
    assert.deepEqual(installed, [50]);
    assert.deepEqual(applied, [], "nothing before it is installed");
    finishInstall!();
    finishInstall = undefined;
    assert.deepEqual(applied, ["later"]);
    assert.equal(parts.node.applied, 51);
  });

  test("reports an unreachable member once", async () => {
    await lead();
    loop.reportUnreachable(others[0]!);
    loop.reportUnreachable(others[0]!);
    clock.settle();
    assert.equal(parts.node.status().progress.get(others[0]!)!.state, "StateProbe");
  });
});
