import assert from "node:assert/strict";
import { test } from "node:test";
import { MessageType } from "../../src/proto/raftpb.ts";
import { waitFor } from "../harness/wait.ts";
import { append, closeAll, message, type Node, startNode, startNodes } from "./loopback.ts";

const established = (node: Node, reader: string) =>
  node.logger.lines.filter(
    (line) =>
      line.message === "established TCP streaming connection with remote peer" &&
      (line.fields["stream-writer-type"] ?? line.fields["stream-reader-type"]) === reader,
  ).length;

/** Both streams in both directions. */
const connected = (nodes: readonly Node[]): Promise<unknown> =>
  waitFor("all streams are open", () =>
    nodes.every((node) =>
      ["stream MsgApp v2", "stream Message"].every((kind) => established(node, kind) >= 2 * (nodes.length - 1)),
    ),
  );

test("members open both streams to each other, and each peer becomes active once", async () => {
  const nodes = await startNodes(3);
  try {
    await connected(nodes);
    for (const node of nodes) {
      const became = node.logger.lines.filter((line) => line.message === "peer became active");
      assert.equal(became.length, 2);
      for (const other of nodes) {
        const since = node.transport.activeSince(other.id);
        assert.equal(since === undefined, other === node);
      }
    }
  } finally {
    await closeAll(nodes);
  }
});

test("messages of a kind arrive in the order in which they were sent, entries and all", async () => {
  const nodes = await startNodes(2);
  const [a, b] = nodes as [Node, Node];
  try {
    await connected(nodes);
    let index = 0;
    for (let round = 0; round < 50; round++) {
      const batch = [];
      for (let i = 0; i < 20; i++) {
        const sizes = Array.from({ length: i % 4 }, (_, k) => (k === 3 ? 0 : 10 + 300 * k * (i % 3)));
        batch.push(append(1n, 2n, index, sizes, 1 + Math.floor(round / 10)));
        index += sizes.length;
      }
      a.transport.send(batch);
    }
    const received = await waitFor(
      "all messages have come",
      () => b.receiver.messages.length === 1000 && b.receiver.messages,
    );
    let next = 0;
    for (const { entries, index: at, from, to } of received) {
      assert.equal(at, next);
      assert.equal(from, 1n);
      assert.equal(to, 2n);
      for (const entry of entries) {
        assert.equal(entry.index, ++next);
        assert.ok(entry.data.every((byte) => byte === (entry.index - 1) % 256));
      }
    }
    assert.equal(next, index);
  } finally {
    await closeAll(nodes);
  }
});

test("large messages go over the streams whole", async () => {
  const nodes = await startNodes(2);
  const [a, b] = nodes as [Node, Node];
  try {
    await connected(nodes);
    a.transport.send([append(1n, 2n, 0, [3_000_000, 70_000, 0, 1_500_000])]);
    a.transport.send([
      message({ type: MessageType.MsgHeartbeat, from: 1n, to: 2n, context: Buffer.alloc(200_000, 7) }),
    ]);
    await waitFor("both have come", () => b.receiver.messages.length === 2);
    const app = b.receiver.messages.find(({ type }) => type === MessageType.MsgApp)!;
    assert.deepEqual(
      app.entries.map(({ data }) => data.length),
      [3_000_000, 70_000, 0, 1_500_000],
    );
    const heartbeat = b.receiver.messages.find(({ type }) => type === MessageType.MsgHeartbeat)!;
    assert.equal(heartbeat.context.length, 200_000);
  } finally {
    await closeAll(nodes);
  }
});

test("without a stream messages are posted one by one", async () => {
  const a = await startNode(1n);
  const b = await startNode(2n);
  try {
    // b does not know a, so a gets no stream; b remembers where a can be answered.
    a.transport.addPeer({ id: 2n, urls: [b.url] });
    a.transport.send([message({ type: MessageType.MsgVote, from: 1n, to: 2n, term: 5 })]);
    await waitFor("the vote has come", () => b.receiver.messages.length === 1);
    b.transport.send([message({ type: MessageType.MsgVoteResp, from: 2n, to: 1n, term: 5 })]);
    const answer = await waitFor("the answer has come", () => a.receiver.messages[0]);
    assert.equal(answer.type, MessageType.MsgVoteResp);
    assert.ok(b.logger.has("added new remote peer"));
    assert.ok(b.logger.has("failed to find remote peer in cluster"));
  } finally {
    await closeAll([a, b]);
  }
});
