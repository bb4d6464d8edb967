import assert from "node:assert/strict";
import { test } from "node:test";
import { MessageType } from "../../src/proto/raftpb.ts";
import { waitFor } from "../harness/wait.ts";
import { append, closeAll, message, type Node, startNode, startNodes } from "./loopback.ts";
import { open, startFake, streamRequest } from "./raw-http.ts";

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

test("messages of a kind arrive in the order in which they were sent, with all entries", async () => {
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

test("large messages are sent over the streams completely", async () => {
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

const beat = (from: bigint, to: bigint, context = "") =>
  message({ type: MessageType.MsgHeartbeat, from, to, context: Buffer.from(context) });

const count = (node: Node, text: string): number => node.logger.lines.filter((line) => line.message === text).length;

test("broken streams are reopened, and messages continue", async () => {
  const nodes = await startNodes(2);
  const [a, b] = nodes as [Node, Node];
  try {
    await connected(nodes);
    for (const socket of b.sockets) socket.destroy();
    for (const socket of a.sockets) socket.destroy();
    await waitFor("all streams are open again", () =>
      nodes.every((node) => ["stream MsgApp v2", "stream Message"].every((kind) => established(node, kind) >= 4)),
    );
    a.transport.send([beat(1n, 2n), append(1n, 2n, 0, [10])]);
    await waitFor("both messages have come", () => b.receiver.messages.length === 2);
    assert.ok(count(a, "lost TCP streaming connection with remote peer") > 0);
    assert.ok(a.transport.activeSince(2n) !== undefined);
  } finally {
    await closeAll(nodes);
  }
});

test("a member that returns on the same port is found again", async () => {
  const a = await startNode(1n);
  let b = await startNode(2n);
  try {
    a.transport.addPeer({ id: 2n, urls: [b.url] });
    b.transport.addPeer({ id: 1n, urls: [a.url] });
    await connected([a, b]);
    await b.close();
    await waitFor("the loss is noticed", () => a.transport.activeSince(2n) === undefined);
    assert.equal(count(a, "peer became inactive (message send to peer failed)"), 1);
    b = await startNode(2n, { port: b.port });
    b.transport.addPeer({ id: 1n, urls: [a.url] });
    await waitFor("it is active again", () => a.transport.activeSince(2n) !== undefined);
    await connected([b]);
    a.transport.send([beat(1n, 2n)]);
    await waitFor("the message has come", () => b.receiver.messages.length === 1);
  } finally {
    await closeAll([a, b]);
  }
});

test("a removed member is told so, by stream and by post, once", async () => {
  const nodes = await startNodes(2);
  const [a, b] = nodes as [Node, Node];
  try {
    await connected(nodes);
    b.receiver.removedIds.add(1n);
    b.transport.removePeer(1n);
    await waitFor("it has heard", () => a.receiver.removedCount === 1);
    a.transport.send([beat(1n, 2n)]);
    await waitFor("the post is refused", () => a.receiver.unreachable.length > 0);
    assert.equal(a.receiver.removedCount, 1);
    assert.ok(b.logger.has("rejected stream from remote peer because it was removed"));
    assert.ok(b.logger.has("removed remote peer"));
    assert.equal(b.receiver.messages.length, 0);
  } finally {
    await closeAll(nodes);
  }
});

test("members of different clusters do not communicate", async () => {
  const a = await startNode(1n, { clusterId: 0xaan });
  const b = await startNode(2n, { clusterId: 0xbbn });
  try {
    a.transport.addPeer({ id: 2n, urls: [b.url] });
    b.transport.addPeer({ id: 1n, urls: [a.url] });
    a.transport.send([beat(1n, 2n)]);
    const line = await waitFor("it is logged", () =>
      a.logger.lines.find(
        (one) => one.message === "request sent was ignored by remote peer due to cluster ID mismatch",
      ),
    );
    assert.deepEqual(line.fields, {
      "remote-peer-id": "2",
      "remote-peer-cluster-id": "bb",
      "local-member-id": "1",
      "local-member-cluster-id": "aa",
      error: "cluster ID mismatch",
    });
    await waitFor("the post is refused too", () => a.logger.has("request sent was ignored due to cluster ID mismatch"));
    assert.equal(a.transport.activeSince(2n), undefined);
    assert.deepEqual(a.receiver.unreachable, [2n]);
    assert.equal(a.receiver.removedCount, 0);
    assert.equal(b.receiver.messages.length, 0);
  } finally {
    await closeAll([a, b]);
  }
});

test("a message for another member does not make this one believe it was removed", async () => {
  const a = await startNode(1n);
  const b = await startNode(2n);
  try {
    a.transport.addPeer({ id: 3n, urls: [b.url] });
    a.transport.send([beat(1n, 3n)]);
    await waitFor("it is refused", () => a.receiver.unreachable.length === 1);
    assert.ok(b.logger.has("rejected Raft message to mismatch member"));
    assert.equal(a.receiver.removedCount, 0);
  } finally {
    await closeAll([a, b]);
  }
});

test("idle streams are kept alive by heartbeats for longer than the read timeout", async () => {
  const nodes = await startNodes(2, { readTimeoutMs: 200 });
  try {
    await connected(nodes);
    const heard = (): number =>
      Math.min(...nodes.map((node) => [...node.transport.metrics.receivedBytes.values.values()][0] ?? 0));
    // A heartbeat on the general stream has about thirty bytes.
    await waitFor("many heartbeats have come", () => heard() > 300);
    for (const node of nodes) {
      assert.ok(!node.logger.has("lost TCP streaming connection with remote peer"));
      assert.equal(node.receiver.messages.length, 0);
    }
  } finally {
    await closeAll(nodes);
  }
});

test("a silent stream is closed after the read timeout and reopened", async () => {
  const silent = await startFake((socket) => {
    socket.write("HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  });
  const a = await startNode(1n, { readTimeoutMs: 150 });
  try {
    a.transport.addPeer({ id: 2n, urls: [silent.url] });
    await waitFor("both streams were lost", () => count(a, "lost TCP streaming connection with remote peer") >= 2);
    await waitFor("both streams were opened again", () => established(a, "stream Message") >= 2);
    const lost = a.logger.lines.find((line) => line.message === "lost TCP streaming connection with remote peer");
    assert.match(String(lost?.fields["error"]), /^read tcp 127\.0\.0\.1:\d+: i\/o timeout$/);
    assert.ok(a.logger.has("peer became inactive (message send to peer failed)"));
  } finally {
    await a.close();
    silent.close();
  }
});

test("a stream of garbage is closed and reopened", async () => {
  const liar = await startFake((socket, request) => {
    const body = request.includes("/msgapp/") ? "9" : "\xff".repeat(9);
    const chunk = `${body.length.toString(16)}\r\n${body}\r\n`;
    socket.write(`HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.1\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`, "latin1");
  });
  const a = await startNode(1n);
  try {
    a.transport.addPeer({ id: 2n, urls: [liar.url] });
    await waitFor("both streams were opened again", () => liar.sockets.length >= 4);
    const errors = a.logger.lines
      .filter((line) => line.message === "lost TCP streaming connection with remote peer")
      .map((line) => String(line.fields["error"]));
    assert.ok(errors.some((error) => error.includes("failed to parse type 57 in msgappv2 stream")));
    assert.ok(errors.some((error) => error.includes("exceeds the limit")));
    assert.equal(a.receiver.messages.length, 0);
  } finally {
    await a.close();
    liar.close();
  }
});

test("attempts to open a stream are a tenth of a second apart", async () => {
  const times: number[] = [];
  const refusing = await startFake((socket, request) => {
    if (request.includes("/msgapp/")) times.push(performance.now());
    socket.end("HTTP/1.1 404 Not Found\r\nX-Server-Version: 3.7.1\r\nContent-Length: 0\r\n\r\n");
  });
  const a = await startNode(1n);
  try {
    a.transport.addPeer({ id: 2n, urls: [refusing.url] });
    await waitFor("there were several", () => times.length >= 6);
    // The first two may follow each other directly, as in etcd.
    assert.ok(times[5]! - times[1]! >= 380, `${times[5]! - times[1]!} ms`);
  } finally {
    await a.close();
    refusing.close();
  }
});

test("when one URL of a peer fails the next one is used, and new URLs replace them", async () => {
  const a = await startNode(1n);
  const b = await startNode(2n);
  try {
    a.transport.addPeer({ id: 2n, urls: ["http://127.0.0.1:1", b.url] });
    b.transport.addPeer({ id: 1n, urls: [a.url] });
    await connected([a, b]);
    const moved = await startNode(2n);
    moved.transport.addPeer({ id: 1n, urls: [a.url] });
    await b.close();
    a.transport.updatePeer({ id: 2n, urls: [moved.url] });
    await connected([moved]);
    await moved.close();
    assert.ok(a.logger.has("updated remote peer"));
  } finally {
    await closeAll([a, b]);
  }
});

test("a peer that does not read fills the queue and then loses its stream, with a report", async () => {
  const a = await startNode(1n, { writeTimeoutMs: 250 });
  const deaf = await startFake(() => {});
  try {
    a.transport.addPeer({ id: 2n, urls: [deaf.url] });
    const stream = await open(a.port, streamRequest("msgapp"));
    stream.socket.pause();
    await waitFor("the stream is attached", () => established(a, "stream MsgApp v2") === 1);
    const big = Array.from({ length: 6000 }, (_, i) => append(1n, 2n, i, [10_000]));
    a.transport.send(big);
    await waitFor("messages were dropped", () => a.receiver.unreachable.includes(2n));
    assert.equal(count(a, "dropped internal Raft message since sending buffer is full"), 1);
    await waitFor("the stream is lost", () => a.logger.has("lost TCP streaming connection with remote peer"));
    const lost = a.logger.lines.find((line) => line.message === "lost TCP streaming connection with remote peer");
    assert.match(String(lost?.fields["error"]), /^write tcp .*: i\/o timeout$/);
    stream.socket.destroy();
  } finally {
    await a.close();
    deaf.close();
  }
});

test("at most four posts are in flight and 64 wait; more are dropped and reported", async () => {
  const posts: string[] = [];
  const slow = await startFake((socket, request) => {
    if (request.startsWith("GET")) socket.end("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    else posts.push(request);
  });
  const a = await startNode(1n);
  try {
    a.transport.addPeer({ id: 2n, urls: [slow.url] });
    a.transport.send([beat(1n, 2n), beat(1n, 2n), beat(1n, 2n), beat(1n, 2n)]);
    await waitFor("four are in flight", () => posts.length === 4);
    a.transport.send(Array.from({ length: 100 }, () => beat(1n, 2n)));
    await waitFor("it is reported", () => a.receiver.unreachable.length > 0);
    assert.equal(a.transport.metrics.sendFailures.values.get("2"), 36);
    assert.equal(count(a, "dropped internal Raft message since sending buffer is full"), 1);
    assert.equal(posts.length, 4);
  } finally {
    await a.close();
    slow.close();
  }
});

test("without a stream messages are posted one by one", async () => {
  const a = await startNode(1n);
  const b = await startNode(2n);
  try {
    // b does not know a, so a gets no stream; b remembers a's address for answers.
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
