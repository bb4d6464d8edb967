import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Message, MessageType } from "../../src/proto/raftpb.ts";
import { waitFor } from "../harness/wait.ts";
import { message, type Node, startNode } from "./loopback.ts";
import { ask, headers, open, startFake, streamRequest } from "./raw-http.ts";

let node: Node;

beforeEach(async () => {
  node = await startNode(1n, {
    handlers: [
      (_request, response, path) => {
        if (path === "/mistake") throw new TypeError("a mistake");
        if (path !== "/version") return false;
        response.end("3.7");
        return true;
      },
    ],
  });
});
afterEach(() => node.close());

const beat = (changes: Partial<Message> = {}): Buffer =>
  Message.encode(message({ type: MessageType.MsgHeartbeat, from: 2n, to: 1n, ...changes }));

const post = (body: Uint8Array, changes?: Record<string, string>) =>
  ask(node.url, "/raft", { method: "POST", headers: headers(changes), body });

test("a posted message is answered with 204 and the cluster id", async () => {
  const answer = await post(beat());
  assert.equal(answer.status, 204);
  assert.equal(answer.headers.get("x-etcd-cluster-id"), "c1");
  assert.equal(node.receiver.messages.length, 1);
});

test("an error in serving one request ends only its connection", async () => {
  await assert.rejects(ask(node.url, "/mistake"), (error: Error) => {
    assert.equal((error.cause as NodeJS.ErrnoException).code, "UND_ERR_SOCKET");
    return true;
  });
  const answer = await ask(node.url, "/version");
  assert.deepEqual([answer.status, answer.body], [200, "3.7"]);
});

test("unknown methods of a path are answered 405 with the known one", async () => {
  for (const [path, method, allow] of [
    ["/raft", "GET", "POST"],
    ["/raft/snapshot", "GET", "POST"],
    ["/raft/stream/message/2", "POST", "GET"],
  ] as const) {
    const answer = await ask(node.url, path, { method });
    assert.equal(answer.status, 405);
    assert.equal(answer.headers.get("allow"), allow);
    assert.equal(answer.body, "Method Not Allowed\n");
  }
});

test("requests of another cluster, or of incompatible versions, are answered 412 with the reason", async () => {
  const paths = [
    ["/raft", "POST"],
    ["/raft/snapshot", "POST"],
    ["/raft/stream/msgapp/2", "GET"],
  ] as const;
  const cases = [
    [{ "X-Etcd-Cluster-ID": "c2" }, "cluster ID mismatch\n"],
    [{ "X-Etcd-Cluster-ID": undefined }, "cluster ID mismatch\n"],
    [{ "X-Server-Version": "2.3.7" }, "incompatible version\n"],
    [{ "X-Server-Version": undefined }, "incompatible version\n"],
    [{ "X-Server-Version": "three" }, "incompatible version\n"],
    [{ "X-Min-Cluster-Version": "3.8.0" }, "incompatible version\n"],
    [{ "X-Min-Cluster-Version": "3.8.0", "X-Etcd-Cluster-ID": "c2" }, "incompatible version\n"],
  ] as const;
  for (const [path, method] of paths) {
    for (const [changes, body] of cases) {
      const answer = await ask(node.url, path, { method, headers: headers(changes) });
      assert.equal(answer.status, 412);
      assert.equal(answer.body, body);
      assert.equal(answer.headers.get("x-etcd-cluster-id"), "c1");
    }
  }
  assert.ok(node.logger.has("request cluster ID mismatch"));
  assert.ok(node.logger.has("failed version compatibility check"));
  // Older members, as far back as etcd 3.0, and newer ones that can still be in such a cluster.
  for (const version of ["3.0.0", "3.4.23", "3.7.0-alpha.0", "3.9.1"]) {
    assert.equal((await post(beat(), { "X-Server-Version": version })).status, 204);
  }
});

test("streams are refused as etcd refuses them", async () => {
  node.transport.addPeer({ id: 2n, urls: ["http://127.0.0.1:1"] });
  node.receiver.removedIds.add(3n);
  const cases = [
    ["/raft/stream/other/2", {}, 404, "invalid path"],
    ["/raft/stream/message/2/3", {}, 404, "invalid path"],
    ["/raft/stream/message/xyz", {}, 404, "invalid from"],
    ["/raft/stream/message/11112222333344445", {}, 404, "invalid from"],
    ["/raft/stream/message/3", {}, 410, "removed member"],
    ["/raft/stream/message/4", {}, 404, "error sender not found"],
    ["/raft/stream/message/2", { "X-Raft-To": "9" }, 412, "to field mismatch"],
  ] as const;
  for (const [path, changes, status, text] of cases) {
    const answer = await ask(node.url, path, { headers: headers(changes) });
    assert.deepEqual([path, answer.status, answer.body], [path, status, `${text}\n`]);
    assert.equal(answer.headers.get("x-server-version"), "3.7.1");
    assert.equal(answer.headers.get("content-type"), "text/plain; charset=utf-8");
  }
});

test("messages of removed members and messages for another member are answered 403", async () => {
  node.receiver.removedIds.add(2n);
  const removed = await post(beat());
  assert.equal(removed.status, 403);
  assert.deepEqual(JSON.parse(removed.body), { message: "cannot process message from removed member" });
  const mismatch = await post(beat({ from: 5n, to: 7n }));
  assert.equal(mismatch.status, 403);
  assert.deepEqual(JSON.parse(mismatch.body), { message: "cannot process message to mismatch member" });
  assert.equal(node.receiver.messages.length, 0);
});

test("invalid messages, a snapshot without its database and gaps between entries are refused", async () => {
  const garbage = await post(Buffer.from([255, 255, 255]));
  assert.deepEqual([garbage.status, garbage.body], [400, "error unmarshalling raft message\n"]);
  assert.equal((await post(beat({ type: MessageType.MsgSnap }))).status, 500);
  const entries = [{ type: 0, term: 1, index: 9, data: Buffer.alloc(1) }] as const;
  assert.equal((await post(beat({ type: MessageType.MsgApp, index: 4, entries: [...entries] }))).status, 500);
  assert.equal(node.receiver.messages.length, 0);
});

test("an unknown sender can be answered at the address it gives, and invalid URLs are skipped", async () => {
  const got: string[] = [];
  const other = await startFake((socket, request) => {
    got.push(request.split("\r\n")[0]!);
    socket.end("HTTP/1.1 204 No Content\r\n\r\n");
  });
  try {
    await post(beat(), { "X-Server-From": "2", "X-PeerURLs": `${other.url},${other.url}` });
    await post(beat(), { "X-Server-From": "4", "X-PeerURLs": "nonsense" });
    node.transport.send([message({ type: MessageType.MsgHeartbeatResp, from: 1n, to: 2n })]);
    await waitFor("the answer has come", () => got.length === 1);
    assert.equal(got[0], "POST /raft HTTP/1.1");
    assert.equal(node.logger.lines.filter((line) => line.message === "added new remote peer").length, 1);
    assert.ok(node.logger.has("ignored a remote peer whose URLs cannot be used"));
  } finally {
    other.close();
  }
});

test("invented members do not accumulate without limit", async () => {
  for (let i = 0; i < 200; i++) {
    await post(beat({ from: BigInt(100 + i) }), {
      "X-Server-From": (100 + i).toString(16),
      "X-PeerURLs": "http://127.0.0.1:1",
    });
  }
  assert.equal(node.logger.lines.filter((line) => line.message === "added new remote peer").length, 128);
});

test("a probe is answered with the time", async () => {
  const answer = await ask(node.url, "/raft/probing", { headers: {} });
  assert.equal(answer.status, 200);
  const { OK, Now } = JSON.parse(answer.body) as { OK: boolean; Now: string };
  assert.equal(OK, true);
  assert.ok(Math.abs(Date.parse(Now) - Date.now()) < 10_000);
});

test("other paths are for the handlers, and 404 where there is none", async () => {
  assert.equal((await ask(node.url, "/version?x=1")).body, "3.7");
  const unknown = await ask(node.url, "/nothing");
  assert.deepEqual([unknown.status, unknown.body], [404, "404 page not found\n"]);
});

test("a newer stream replaces the older one, which is ended in order", async () => {
  node.transport.addPeer({ id: 2n, urls: ["http://127.0.0.1:1"] });
  const first = await open(node.port, streamRequest("message"));
  await waitFor("the first is open", () => first.received().includes("\r\n\r\n"));
  const second = await open(node.port, streamRequest("message"));
  await waitFor("the second is open", () => second.received().includes("\r\n\r\n"));
  await waitFor("the first is closed", () => first.closed);
  assert.ok(first.received().endsWith("0\r\n\r\n"));
  node.transport.send([message({ type: MessageType.MsgHeartbeat, from: 1n, to: 2n, context: Buffer.from("for-two") })]);
  await waitFor("the message has come", () => second.received().includes("for-two"));
  assert.ok(!first.received().includes("for-two"));
  assert.ok(node.logger.has("closed TCP streaming connection with remote peer"));
  second.socket.destroy();
  await waitFor("the loss is noticed", () => node.logger.has("lost TCP streaming connection with remote peer"));
  assert.ok(node.logger.has("peer became inactive (message send to peer failed)"));
  assert.equal(node.transport.activeSince(2n), undefined);
});

test("an invalid request is answered 400 and the connection closed", async () => {
  for (const garbage of ["\x16\x03\x01\x02\x00\x01", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "hello there\r\n\r\n"]) {
    const connection = await open(node.port, garbage);
    await waitFor("it is closed", () => connection.closed);
    assert.match(connection.received(), /^HTTP\/1\.1 400 Bad Request/);
  }
  const long = await open(node.port, `GET / HTTP/1.1\r\nX: ${"y".repeat(100_000)}`);
  await waitFor("it is closed", () => long.closed);
});

test("messages posted at a time have a total limit, including those before databases", async () => {
  const small = await startNode(1n, { postedBytesMax: 1000 });
  try {
    const lines = Object.entries(headers()).map(([name, value]) => `${name}: ${value}\r\n`);
    const post = (path: string, body: Buffer) =>
      open(
        small.port,
        `POST ${path} HTTP/1.1\r\n${lines.join("")}Content-Length: 2000\r\n\r\n${body.toString("latin1")}`,
      );
    const length = Buffer.from([0, 0, 0, 0, 0, 0, 7, 0]);
    const first = await post("/raft/snapshot", Buffer.concat([length, Buffer.alloc(600)]));
    const second = await post("/raft/snapshot", Buffer.concat([length, Buffer.alloc(600)]));
    await waitFor("one of them is refused", () => first.closed || second.closed);
    const [refused, other] = first.closed ? [first, second] : [second, first];
    assert.match(refused.received(), /failed to decode raft message \(too much is posted at one time\)/);
    const third = await post("/raft", Buffer.alloc(600));
    await waitFor("it is refused too", () => third.closed);
    assert.match(third.received(), /error reading raft message/);
    other.socket.destroy();
    // Aborted messages make room.
    await waitFor("a message is taken again", async () => {
      const body = Message.encode(
        message({ type: MessageType.MsgHeartbeat, from: 2n, to: 1n, context: Buffer.alloc(900) }),
      );
      return (await ask(small.url, "/raft", { method: "POST", headers: headers(), body })).status === 204;
    });
  } finally {
    await small.close();
  }
});

test("a body that stops arriving is aborted after the read timeout", async () => {
  const quick = await startNode(1n, { readTimeoutMs: 150 });
  try {
    const lines = Object.entries(headers()).map(([name, value]) => `${name}: ${value}\r\n`);
    const connection = await open(quick.port, `POST /raft HTTP/1.1\r\n${lines.join("")}Content-Length: 100\r\n\r\nabc`);
    await waitFor("it is closed", () => connection.closed);
    assert.match(connection.received(), /^HTTP\/1\.1 400 Bad Request/);
    assert.ok(connection.received().endsWith("\r\n\r\nerror reading raft message\n"));
  } finally {
    await quick.close();
  }
});
