import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { afterEach, beforeEach, test } from "node:test";
import { Message, MessageType } from "../../src/proto/raftpb.ts";
import type { DatabaseSink } from "../../src/server/contract/network.ts";
import { waitFor } from "../harness/wait.ts";
import { closeAll, image, message, type Node, startNode } from "./loopback.ts";
import { ask, headers, open, startFake } from "./raw-http.ts";

let a: Node;
let b: Node;

beforeEach(async () => {
  a = await startNode(1n);
  b = await startNode(2n, { readTimeoutMs: 300 });
  a.transport.addPeer({ id: 2n, urls: [b.url] });
});
afterEach(() => closeAll([a, b]));

const snapshot = (index = 7): Message =>
  message({
    type: MessageType.MsgSnap,
    from: 1n,
    to: 2n,
    snapshot: { data: Buffer.from("{}"), metadata: { confState: undefined, index, term: 1 } },
  });

/** Records its calls. */
class Sink implements DatabaseSink {
  readonly hash = createHash("sha256");
  bytes = 0;
  ended = "";
  onWrite: () => Promise<void> = async () => {};
  onFinish: () => Promise<void> = async () => {};

  async write(chunk: Uint8Array): Promise<void> {
    this.bytes += chunk.length;
    this.hash.update(chunk);
    await this.onWrite();
  }
  async finish(): Promise<void> {
    await this.onFinish();
    this.ended = "finished";
  }
  async abort(): Promise<void> {
    this.ended = "aborted";
  }
}

const logged = (node: Node, text: string) => node.logger.lines.find((line) => line.message === text);

test("a snapshot arrives with its database, and both ends count it", async () => {
  const sink = new Sink();
  let got: Message | undefined;
  b.receiver.sink = (one) => {
    got = one;
    return sink;
  };
  const pieces = Array.from({ length: 50 }, (_, i) => Buffer.alloc(1000 * i, i));
  const database = image(pieces);
  a.transport.sendSnapshot(snapshot(), database);
  await waitFor("its fate is known", () => a.receiver.snapshots.length === 1);
  assert.deepEqual(a.receiver.snapshots, [{ id: 2n, received: true }]);
  assert.equal(got?.snapshot?.metadata?.index, 7);
  assert.equal(sink.ended, "finished");
  assert.equal(sink.hash.digest("hex"), createHash("sha256").update(Buffer.concat(pieces)).digest("hex"));
  assert.ok(database.closed);
  assert.equal(logged(b, "received and saved database snapshot")?.fields["incoming-snapshot-size-bytes"], sink.bytes);
  assert.ok(logged(a, "sent database snapshot"));
  assert.equal(a.transport.metrics.snapshotsSent.values.get("2"), 1);
  assert.equal(b.transport.metrics.snapshotsReceived.values.get("1"), 1);
  assert.equal(a.transport.metrics.snapshotsSending.values.get("2"), 0);
  assert.equal(b.transport.metrics.snapshotsReceiving.values.get("1"), 0);
  assert.ok(a.logger.has("peer became active"));
});

test("the database is read only as fast as the receiver stores it, and a slow disk is waited for", async () => {
  const sink = new Sink();
  let release = (): void => {};
  sink.onWrite = () =>
    new Promise((resolve) => {
      release = resolve;
    });
  b.receiver.sink = () => sink;
  let produced = 0;
  const piece = Buffer.alloc(1024 * 1024, 1);
  const database = {
    ...image([]),
    sizeBytes: 64 * piece.length,
    async *chunks() {
      for (; produced < 64; produced++) yield piece;
    },
  };
  a.transport.sendSnapshot(snapshot(), database);
  await waitFor("the first write waits", () => sink.bytes > 0);
  // What fits into the buffers of both sockets was read, and no more, for longer than the read timeout.
  await new Promise((resolve) => setTimeout(resolve, 400));
  const stalled = produced;
  assert.ok(stalled < 40, `${stalled} MiB were read while nothing was stored`);
  sink.onWrite = async () => {};
  release();
  await waitFor("its fate is known", () => a.receiver.snapshots.length === 1, 20_000);
  assert.deepEqual(a.receiver.snapshots, [{ id: 2n, received: true }]);
  assert.equal(sink.bytes, 64 * piece.length);
});

for (const [what, prepare, why] of [
  [
    "whose disk fails while it comes in",
    (sink: Sink) => {
      sink.onWrite = () => Promise.reject(new Error("no space left on device"));
    },
    "no space left on device",
  ],
  [
    "whose disk fails at the end",
    (sink: Sink) => {
      sink.onFinish = () => Promise.reject(new Error("input/output error"));
    },
    "input/output error",
  ],
] as const) {
  test(`a receiver ${what} says so, and the sender reports the failure`, async () => {
    const sink = new Sink();
    prepare(sink);
    b.receiver.sink = () => sink;
    const database = image(Array.from({ length: 200 }, () => Buffer.alloc(100_000)));
    a.transport.sendSnapshot(snapshot(), database);
    await waitFor("its fate is known", () => a.receiver.snapshots.length === 1);
    assert.deepEqual(a.receiver.snapshots, [{ id: 2n, received: false }]);
    assert.ok(database.closed);
    assert.notEqual(sink.ended, "finished");
    assert.equal(logged(b, "failed to save incoming database snapshot")?.fields["error"], why);
    assert.ok(logged(a, "failed to send database snapshot"));
    await waitFor("it is reported", () => a.receiver.unreachable.includes(2n));
    assert.equal(a.transport.metrics.snapshotSendFailures.values.get("2"), 1);
    assert.equal(b.transport.metrics.snapshotReceiveFailures.values.get("1"), 1);
  });
}

test("a receiver that cannot accept a snapshot refuses it at once", async () => {
  b.receiver.sink = () => {
    throw new Error("a snapshot is being received");
  };
  a.transport.sendSnapshot(snapshot(), image([Buffer.alloc(100)]));
  await waitFor("its fate is known", () => a.receiver.snapshots.length === 1);
  assert.deepEqual(a.receiver.snapshots, [{ id: 2n, received: false }]);
});

test("a database that cannot be read is a failed snapshot, which the receiver discards", async () => {
  const sink = new Sink();
  b.receiver.sink = () => sink;
  let closed = false;
  a.transport.sendSnapshot(snapshot(), {
    sizeBytes: 1000,
    async *chunks() {
      yield Buffer.alloc(500);
      await waitFor("half of it has come", () => sink.bytes === 500);
      throw new Error("the backend was closed");
    },
    close() {
      closed = true;
    },
  });
  await waitFor("its fate is known", () => a.receiver.snapshots.length === 1);
  assert.deepEqual(a.receiver.snapshots, [{ id: 2n, received: false }]);
  assert.ok(closed);
  await waitFor("the receiver has thrown it away", () => sink.ended === "aborted");
});

test("a snapshot for an unknown member is reported as lost and its database closed", async () => {
  const database = image([Buffer.alloc(1)]);
  a.transport.sendSnapshot(Message.create({ ...snapshot(), to: 9n }), database);
  assert.ok(database.closed);
  await waitFor("its fate is known", () => a.receiver.snapshots.length === 1);
  assert.deepEqual(a.receiver.snapshots, [{ id: 9n, received: false }]);
});

test("an unreachable receiver is a failed snapshot", async () => {
  await b.close();
  a.transport.sendSnapshot(snapshot(), image([Buffer.alloc(1)]));
  await waitFor("its fate is known", () => a.receiver.snapshots.length === 1);
  assert.deepEqual(a.receiver.snapshots, [{ id: 2n, received: false }]);
});

test("a removed sender learns it from the answer to its snapshot", async () => {
  b.receiver.removedIds.add(1n);
  a.transport.sendSnapshot(snapshot(), image([Buffer.alloc(3_000_000)]));
  await waitFor("it has heard", () => a.receiver.removedCount === 1);
  await waitFor("its fate is known", () => a.receiver.snapshots.length === 1);
  assert.deepEqual(a.receiver.snapshots, [{ id: 2n, received: false }]);
});

test("an answer that comes before everything was sent ends the sending", async () => {
  const early = await startFake((socket, request) => {
    if (!request.startsWith("POST")) socket.destroy();
    else socket.write("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  });
  try {
    a.transport.updatePeer({ id: 2n, urls: [early.url] });
    let produced = 0;
    a.transport.sendSnapshot(snapshot(), {
      ...image([]),
      async *chunks() {
        for (; produced < 100_000; produced++) yield Buffer.alloc(65_536);
      },
    });
    await waitFor("its fate is known", () => a.receiver.snapshots.length === 1);
    assert.deepEqual(a.receiver.snapshots, [{ id: 2n, received: false }]);
    assert.ok(produced < 100_000);
  } finally {
    early.close();
  }
});

const framed = (one: Message): Buffer => {
  const body = Message.encode(one);
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(body.length));
  return Buffer.concat([length, body]);
};

const from1 = headers({ "X-Server-From": "1" });

test("an invalid snapshot is refused as etcd refuses it", async () => {
  const post = (body: Buffer) => ask(b.url, "/raft/snapshot", { method: "POST", headers: from1, body });
  const cases: [Buffer, number, string][] = [
    [framed(message({ type: MessageType.MsgApp, from: 1n, to: 2n })), 400, "wrong raft message type\n"],
    [framed(message({ type: MessageType.MsgSnap, from: 1n, to: 2n })), 400, "wrong raft message type\n"],
    [Buffer.alloc(0), 400, "failed to decode raft message (EOF)\n"],
    [Buffer.alloc(3), 400, "failed to decode raft message (unexpected EOF)\n"],
    [framed(snapshot()).subarray(0, 20), 400, "failed to decode raft message (unexpected EOF)\n"],
    [
      Buffer.from([0, 0, 0, 0, 16, 0, 0, 0]),
      400,
      "failed to decode raft message (a length of 268435456 exceeds the limit of 67108864)\n",
    ],
  ];
  for (const [body, status, text] of cases) {
    const answer = await post(body);
    assert.deepEqual([answer.status, answer.body], [status, text]);
  }
  const mismatch = await post(framed(Message.create({ ...snapshot(), to: 8n })));
  assert.equal(mismatch.status, 403);
});

test("a sender that disconnects or stops sending leaves nothing behind", async () => {
  const lines = Object.entries(from1).map(([name, value]) => `${name}: ${value}\r\n`);
  const begin = framed(snapshot());
  for (const leave of [true, false]) {
    const sink = new Sink();
    b.receiver.sink = () => sink;
    const request = `POST /raft/snapshot HTTP/1.1\r\n${lines.join("")}Content-Length: 1000000\r\n\r\n`;
    const connection = await open(b.port, request);
    connection.socket.write(Buffer.concat([begin, Buffer.alloc(500)]));
    await waitFor("the beginning has come", () => sink.bytes === 500);
    if (leave) connection.socket.destroy();
    await waitFor("it is thrown away", () => sink.ended === "aborted");
    await waitFor("the connection is closed", () => connection.closed);
  }
});
