/** The client against servers that do what members rarely do, on Node's own HTTP/2. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { constants, createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { EMPTY_BYTES as EMPTY } from "../../src/base/protobuf.ts";
import { Client, ClientClosedError, type ClientOptions } from "../../src/client/index.ts";
import { PutResponse, RangeRequest, RangeResponse, RangeStreamResponse } from "../../src/proto/etcdserverpb.ts";
import { waitFor } from "../harness/wait.ts";

type Respond = (stream: ServerHttp2Stream, path: string, nth: number) => void;

/** Frames a message as gRPC does. */
function framed(message: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

const answers: Readonly<Record<string, Buffer>> = {
  "/etcdserverpb.KV/Range": framed(RangeResponse.encode(RangeResponse.create({ count: 7 }))),
  "/etcdserverpb.KV/Put": framed(PutResponse.encode(PutResponse.create())),
};

/** Answers as etcd would. */
function answer(
  stream: ServerHttp2Stream,
  path: string,
  trailers: Record<string, string> = { "grpc-status": "0" },
): void {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  stream.end(answers[path]);
}

const always: Respond = (stream, path) => answer(stream, path);

interface Served {
  readonly endpoint: string;
  readonly server: Http2Server;
  readonly sessions: ServerHttp2Session[];
  /** Paths of the calls that arrived. */
  readonly calls: string[];
}

async function serve(t: TestContext, respond: Respond, settings = {}): Promise<Served> {
  const server = createServer({ settings });
  const sessions: ServerHttp2Session[] = [];
  const calls: string[] = [];
  server.on("session", (session) => {
    sessions.push(session);
    session.on("error", () => {});
  });
  server.on("stream", (stream, headers) => {
    const path = headers[":path"]!;
    stream.on("error", () => {});
    // The request is read to its end first.
    stream.on("data", () => {});
    stream.on("end", () => respond(stream, path, calls.push(path)));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return { endpoint: `127.0.0.1:${(server.address() as AddressInfo).port}`, server, sessions, calls };
}

function clientOf(t: TestContext, endpoints: string | readonly string[], options: ClientOptions = {}): Client {
  const client = new Client({ endpoints, timeoutMs: 60_000, ...options });
  t.after(() => client.close());
  return client;
}

test("calls arrive as another HTTP/2 expects them", async (t) => {
  const served = await serve(t, always);
  const client = clientOf(t, served.endpoint);
  assert.equal(await client.count("a"), 7);
  await client.put("a", "1".repeat(100_000));
  // The table of headers is used by now.
  for (let i = 0; i < 20; i++) assert.equal(await client.count("a", { timeoutMs: 60_000 + i }), 7);
  await Promise.all(Array.from({ length: 200 }, () => client.count("a")));
  assert.equal(served.calls.length, 222);
});

test("no more calls run at once than the server takes, and all are served", async (t) => {
  let running = 0;
  let most = 0;
  const served = await serve(
    t,
    (stream, path) => {
      most = Math.max(most, ++running);
      setImmediate(() => {
        running--;
        answer(stream, path);
      });
    },
    { maxConcurrentStreams: 3 },
  );
  const client = clientOf(t, served.endpoint);
  await client.count("a");
  assert.deepEqual(await Promise.all(Array.from({ length: 50 }, () => client.count("a"))), new Array(50).fill(7));
  assert.ok(most <= 3 && served.sessions.length === 1, `${most}`);
});

test("a small window is kept to, and filled again", async (t) => {
  let received = 0;
  const served = await serve(t, always, { initialWindowSize: 100 });
  served.server.on("stream", (stream) => stream.on("data", (chunk: Buffer) => (received += chunk.length)));
  const client = clientOf(t, served.endpoint);
  await Promise.all(["a", "b"].map((key) => client.put(key, "x".repeat(50_000))));
  assert.ok(received > 100_000);
});

test("a server without a table of headers is understood", async (t) => {
  const served = await serve(t, always, { headerTableSize: 0 });
  const client = clientOf(t, served.endpoint);
  for (let i = 0; i < 5; i++) assert.equal(await client.count("a"), 7);
});

test("a refused call is sent again, a write too", async (t) => {
  const served = await serve(t, (stream, path, nth) => {
    if (nth <= 2) stream.close(constants.NGHTTP2_REFUSED_STREAM);
    else answer(stream, path);
  });
  const client = clientOf(t, served.endpoint);
  await client.put("a", "1");
  assert.equal(served.calls.length, 3);
});

test("a server that goes away is replaced; what it has taken it finishes", async (t) => {
  const served = await serve(t, (stream, path, nth) => {
    if (nth === 1) {
      stream.session!.goaway(0, 1);
      setImmediate(() => answer(stream, path));
    } else answer(stream, path);
  });
  const client = clientOf(t, served.endpoint);
  await client.put("a", "1");
  await client.put("a", "2");
  assert.deepEqual([served.calls.length, served.sessions.length], [2, 2]);
});

test("a write whose connection breaks is not sent again, and says that it may have been carried out", async (t) => {
  const served = await serve(t, (stream, path, nth) => {
    if (nth === 1) stream.session!.destroy();
    else answer(stream, path);
  });
  const client = clientOf(t, served.endpoint);
  await assert.rejects(client.put("a", "1"), { code: 14, maybeApplied: true });
  assert.equal(served.calls.length, 1);
  await client.put("a", "2");
});

test("a read whose connection breaks is sent again", async (t) => {
  const served = await serve(t, (stream, path, nth) => {
    if (nth === 1) stream.session!.destroy();
    else answer(stream, path);
  });
  assert.equal(await clientOf(t, served.endpoint).count("a"), 7);
  assert.equal(served.calls.length, 2);
});

test("a read goes to another member when one has failed, and stays there", async (t) => {
  const bad = await serve(t, (stream, path) =>
    answer(stream, path, { "grpc-status": "14", "grpc-message": "no%20leader" }),
  );
  const good = await serve(t, always);
  const client = clientOf(t, [bad.endpoint, good.endpoint]);
  for (let i = 0; i < 10; i++) assert.equal(await client.count("a"), 7);
  assert.ok(bad.calls.length < 10, `${bad.calls.length}`);
});

test("a write that a member may still carry out is not sent to another", async (t) => {
  const served = await serve(t, (stream, path) =>
    answer(stream, path, { "grpc-status": "14", "grpc-message": "etcdserver: request timed out" }),
  );
  const client = clientOf(t, served.endpoint);
  await assert.rejects(client.put("a", "1"), {
    code: 14,
    details: "etcdserver: request timed out",
    maybeApplied: true,
  });
  assert.equal(served.calls.length, 1);
});

test("texts in any script arrive as they were", async (t) => {
  const message = encodeURIComponent("schlüssel % 鍵");
  const served = await serve(t, (stream, path) =>
    answer(stream, path, { "grpc-status": "9", "grpc-message": message }),
  );
  await assert.rejects(clientOf(t, served.endpoint).count("a"), { code: 9, details: "schlüssel % 鍵" });
});

test("a silent server fails a call at its deadline, and the stream is cancelled", async (t) => {
  let closedWith: number | undefined;
  const served = await serve(t, (stream, path, nth) => {
    if (nth === 1) answer(stream, path);
    else stream.on("close", () => (closedWith = stream.rstCode));
  });
  const client = clientOf(t, served.endpoint);
  await client.put("a", "1");
  await assert.rejects(client.put("a", "1", { timeoutMs: 100 }), { code: 4, maybeApplied: true });
  await waitFor("the reset", () => closedWith !== undefined);
  assert.equal(closedWith, constants.NGHTTP2_CANCEL);
});

test("a connection that does not answer pings is given up", async (t) => {
  // Takes everything, and says nothing after its SETTINGS.
  const sockets: Socket[] = [];
  const server = createTcpServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.resume();
    socket.write(Buffer.from("000000040000000000", "hex"));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const endpoint = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = clientOf(t, endpoint, { keepAliveMs: 50, keepAliveTimeoutMs: 50 });
  await assert.rejects(client.put("a", "1"), { code: 14, details: /does not answer a ping/, maybeApplied: true });
});

test("what speaks no HTTP/2 is reported, and breaks nothing", async (t) => {
  for (const garbage of ["HTTP/1.1 400 Bad Request\r\n\r\n", "\0\0\x05\x04\0\0\0\0\0abcde", "\xff".repeat(100)]) {
    const sockets: Socket[] = [];
    const server = createTcpServer((socket) => {
      sockets.push(socket);
      socket.on("error", () => {});
      socket.resume();
      socket.write(garbage, "latin1");
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const endpoint = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const client = clientOf(t, endpoint);
    const waiting = client.count("a");
    await waitFor("the complaint", () => client.status[0]!.problem.includes("broke the protocol"));
    client.close();
    await assert.rejects(waiting, ClientClosedError);
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

test("a range is read page by page where members have no RangeStream, and after an interruption", async (t) => {
  const kv = (key: string) => ({
    key: Buffer.from(key),
    value: EMPTY,
    version: 1,
    createRevision: 2,
    modRevision: 2,
    lease: 0n,
  });
  const header = { clusterId: 1n, memberId: 1n, revision: 7, raftTerm: 1 };
  const ranges: RangeRequest[] = [];
  let streams = 0;
  const served = await serve(t, () => {});
  served.server.removeAllListeners("stream");
  served.server.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      const request = RangeRequest.decode(Buffer.concat(chunks).subarray(5));
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      const end = (status: string, message?: Buffer) => {
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": status }));
        stream.end(message === undefined ? undefined : framed(message));
      };
      if (headers[":path"]!.endsWith("/RangeStream")) {
        if (streams++ === 0) return end("12");
        const part = RangeResponse.create({ kvs: [kv("a"), kv("b")] });
        return end("14", RangeStreamResponse.encode(RangeStreamResponse.create({ rangeResponse: part })));
      }
      ranges.push(request);
      const left = ["a", "b", "c"].filter((key) => key >= request.key.toString());
      const kvs = left.slice(0, request.limit).map(kv);
      end("0", RangeResponse.encode(RangeResponse.create({ header, kvs, more: left.length > kvs.length })));
    });
  });
  const client = clientOf(t, served.endpoint);
  for (const goesOnAt of ["\0", "b\0"]) {
    ranges.length = 0;
    const seen: string[] = [];
    for await (const { key } of client.stream({ prefix: "" }, { pageSize: 2 })) seen.push(key);
    assert.deepEqual(seen, ["a", "b", "c"]);
    assert.equal(ranges[0]?.revision, 0);
    assert.ok(ranges.slice(1).every(({ revision }) => revision === 7));
    assert.equal(ranges[1]?.key.toString(), goesOnAt);
  }
});

test("an answer of HTTP without gRPC is an error with its status", async (t) => {
  const served = await serve(t, (stream) => {
    stream.respond({ ":status": 403, "content-type": "text/html" });
    stream.end("<p>no</p>");
  });
  await assert.rejects(clientOf(t, served.endpoint).count("a"), { code: 7, details: /403/ });
});

test("with failFast, calls that wait are looked at once a turn, however many there are", async (t) => {
  let deferred = 0;
  let refuse = false;
  const clock = {
    ...systemClock,
    defer: (callback: () => void) => {
      deferred++;
      systemClock.defer(callback);
    },
  };
  const connect = () => {
    refuse = true;
    throw new Error("no way there");
  };
  const client = clientOf(t, "nowhere:1", { failFast: true, clock, connect });
  const ends = await Promise.allSettled(Array.from({ length: 1000 }, () => client.count("a")));
  assert.ok(refuse && ends.every((end) => end.status === "rejected" && /no way there/.test(`${end.reason}`)));
  assert.ok(deferred < 20, `${deferred}`);
});

test("calls beyond what a server takes end in any order, by their deadlines and signals", async (t) => {
  const served = await serve(t, () => {}, { maxConcurrentStreams: 1 });
  const client = clientOf(t, served.endpoint);
  const first = client.count("a").catch(() => "closed");
  await waitFor("the first one", () => served.calls.length === 1);
  const controllers = Array.from({ length: 5 }, () => new AbortController());
  const waiting = controllers.map(({ signal }) => client.count("a", { signal }).catch(() => "aborted"));
  await waitFor("all of them", () => client.status[0]!.calls === 6);
  for (const at of [3, 0, 4]) controllers[at]!.abort();
  await waitFor("the rest", () => client.status[0]!.calls === 3);
  client.close();
  assert.equal(await first, "closed");
  assert.deepEqual(await Promise.all(waiting), new Array(5).fill("aborted"));
});

test("the status of endpoints is told whenever it changes, until the client is closed", async (t) => {
  const served = await serve(t, always);
  const client = clientOf(t, served.endpoint);
  const seen: boolean[] = [];
  const following = (async () => {
    for await (const [first] of client.statuses()) seen.push(first!.connected);
  })();
  await client.count("a");
  await waitFor("the connection", () => seen.at(-1) === true);
  for (const session of served.sessions) session.destroy();
  await waitFor("its loss", () => seen.includes(false) && seen.lastIndexOf(false) > seen.indexOf(true));
  client.close();
  await following;
  assert.equal(seen[0], false);
});
