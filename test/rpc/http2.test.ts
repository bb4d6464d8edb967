import assert from "node:assert/strict";
import { createServer as createHttpServer, get } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { after, before, describe, test } from "node:test";
import type { PlainRequest, StreamCall, UnaryCall } from "../../src/rpc/contract.ts";
import { Flag, FrameType, H2Error, HEADER_LIST_BYTES_MAX, PREFACE, Setting } from "../../src/rpc/protocol.ts";
import {
  block,
  dataFrames,
  eventually,
  frame,
  grpcHead,
  message,
  RawClient,
  readAll,
  settingsFrame,
  TestServer,
  uint32,
  unaryCall,
} from "./harness.ts";

const ECHO = "/t.S/Echo";

describe("an HTTP/2 connection", () => {
  let server: TestServer;
  let stream: StreamCall | undefined;
  const http = createHttpServer((request, response) => response.end(`http/1 ${request.url}`));

  before(async () => {
    server = await TestServer.start({
      maxConcurrentStreams: 10,
      maxRecvMessageBytes: 100_000,
      http1: (socket, head) => {
        if (head.length > 0) socket.unshift(head);
        http.emit("connection", socket);
        socket.resume();
      },
      http2Request: (request) => answerPlain(request),
    });
    server.rpc.unary(ECHO, (call) => call.respond(call.message));
    server.rpc.unary("/t.S/Hold", () => {});
    server.rpc.stream("/t.S/Stream", (call) => {
      stream = call;
    });
  });
  after(() => server.stop());

  /** Starts reading the body of the request for /unread. */
  let unread: (() => void) | undefined;
  function answerPlain(request: PlainRequest): void {
    if (request.path === "/unread") {
      unread = () => readAll(request, () => {});
    } else if (request.path === "/big") {
      request.respondHead(200, { "content-type": "text/plain" });
      for (let i = 0; i < 100; i++) request.write(Buffer.alloc(10_000, String(i % 10)));
      request.end();
    } else if (request.path === "/value") {
      request.respond(200, {}, Buffer.from(request.headers["x-value"]!, "latin1").toString("hex"));
    } else {
      const { method, path } = request;
      readAll(request, (body) => request.respond(200, { "content-type": "text/plain" }, `${method} ${path} ${body}`));
    }
  }

  const plainHead = (path: string, more: readonly (readonly [string, string])[] = [], method = "GET"): Buffer =>
    block([[":method", method], [":scheme", "http"], [":path", path], [":authority", "test"], ...more]);

  test("HTTP/1.1 on the same port is passed on with its first bytes", async () => {
    const text = await new Promise<string>((resolve, reject) => {
      const request = get({ port: server.port, host: "127.0.0.1", path: "/health", agent: false }, (response) => {
        let body = "";
        response.on("data", (chunk) => {
          body += chunk;
        });
        response.on("end", () => resolve(body));
      });
      request.on("error", reject);
    });
    assert.equal(text, "http/1 /health");
  });

  test("requests that are not gRPC are served with head, body and answer in pieces", async () => {
    const session = connectHttp2(`http://127.0.0.1:${server.port}`);
    const ask = (headers: Record<string, string>, body = ""): Promise<string> =>
      new Promise((resolve, reject) => {
        const request = session.request(headers, { endStream: body === "" });
        let text = "";
        request.setEncoding("latin1");
        request.on("data", (chunk) => {
          text += chunk;
        });
        request.on("end", () => resolve(text)).on("error", reject);
        if (body !== "") request.end(body);
      });
    assert.equal(await ask({ ":path": "/health" }), "GET /health ");
    assert.equal(await ask({ ":path": "/v3/kv/put", ":method": "POST" }, "{}"), "POST /v3/kv/put {}");
    const big = await ask({ ":path": "/big" });
    assert.equal(big.length, 1_000_000);
    assert.equal(big.slice(990_000), "9".repeat(10_000));
    // nghttp2 uses Huffman code where it is shorter: every byte allowed in a value is covered.
    const bytes = Array.from({ length: 256 }, (_, i) => i).filter((i) => i === 9 || (i >= 32 && i !== 127));
    for (const byte of bytes) {
      const value = `${"a".repeat(40)}${String.fromCharCode(byte)}z`;
      assert.equal(await ask({ ":path": "/value", "x-value": value }), Buffer.from(value, "latin1").toString("hex"));
    }
    session.close();
  });

  test("a plain request is answered without waiting for its body, which is held back until it is read", async () => {
    const raw = await server.connect();
    raw.write(
      frame(FrameType.headers, Flag.endHeaders, 1, plainHead("/value", [["x-value", "v"]], "POST")),
      frame(FrameType.headers, Flag.endHeaders, 3, plainHead("/unread", [], "POST")),
      ...Array.from({ length: 63 }, () => frame(FrameType.data, 0, 3, Buffer.alloc(16_384))),
    );
    assert.equal((await raw.ofStream(1)).headers[":status"], "200");
    raw.write(frame(FrameType.headers, Flag.endHeaders | Flag.endStream, 5, plainHead("/value", [["x-value", "v"]])));
    await raw.ofStream(5);
    assert.ok(!raw.frames.some(({ type, id }) => type === FrameType.windowUpdate && id === 3));
    unread!();
    await raw.frame(FrameType.windowUpdate, 3).catch(() => assert.fail("the window stays closed"));
  });

  test("frames may be split anywhere", async () => {
    const raw = await RawClient.connect(server.port);
    const all = Buffer.concat([PREFACE, settingsFrame([]), unaryCall(1, ECHO, "one"), unaryCall(3, ECHO, "two")]);
    for (const byte of all) {
      raw.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal((await raw.ofStream(1)).data.subarray(5).toString(), "one");
    assert.equal((await raw.ofStream(3)).data.subarray(5).toString(), "two");
    raw.socket.destroy();
  });

  test("messages may be split anywhere and joined in one frame", async () => {
    const raw = await server.connect();
    raw.write(frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/t.S/Stream")));
    await eventually(() => stream !== undefined, "the call");
    const call = stream!;
    const got: string[] = [];
    call.onMessage = (bytes) => got.push(Buffer.from(bytes).toString());
    call.onHalfClose = () => call.end();
    const all = Buffer.concat(["", "a", "bc", "d".repeat(300), ""].map((text) => message(text)));
    for (const byte of all) raw.write(frame(FrameType.data, 0, 1, Buffer.of(byte)));
    raw.write(frame(FrameType.data, Flag.padded, 1, Buffer.concat([Buffer.of(4), all, Buffer.alloc(4)])));
    raw.write(frame(FrameType.data, Flag.endStream, 1));
    await raw.ofStream(1);
    assert.deepEqual(got, ["", "a", "bc", "d".repeat(300), "", "", "a", "bc", "d".repeat(300), ""]);
  });

  test("header blocks in CONTINUATION frames, with padding and priority, are one", async () => {
    const raw = await server.connect();
    const head = grpcHead(ECHO);
    const start = Buffer.concat([Buffer.of(3), uint32(0), Buffer.of(15), head.subarray(0, 10), Buffer.alloc(3)]);
    raw.write(
      frame(FrameType.headers, Flag.padded | Flag.priority, 1, start),
      frame(FrameType.continuation, 0, 1, head.subarray(10, 20)),
      frame(FrameType.continuation, Flag.endHeaders, 1, head.subarray(20)),
      dataFrames(1, message("x")),
    );
    assert.equal((await raw.ofStream(1)).trailers["grpc-status"], "0");
  });

  test("data waits for both windows and continues when they open", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 10]]);
    raw.write(unaryCall(1, ECHO, "0123456789"));
    await raw.until(() => raw.data(1).length === 10, "ten bytes");
    raw.write(frame(FrameType.windowUpdate, 0, 1, uint32(2)));
    await raw.until(() => raw.data(1).length === 12, "two more");
    raw.write(settingsFrame([[Setting.initialWindowSize, 11]]));
    await raw.until(() => raw.data(1).length === 13, "one more");
    raw.write(settingsFrame([[Setting.initialWindowSize, 1000]]));
    const { data, trailers } = await raw.ofStream(1);
    assert.equal(data.subarray(5).toString(), "0123456789");
    assert.equal(trailers["grpc-status"], "0");
  });

  test("streams that wait for the window of the connection share it", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 1 << 20]]);
    for (const id of [1, 3]) raw.write(unaryCall(id, ECHO, Buffer.alloc(60_000, id)));
    await raw.until(() => raw.data(1).length + raw.data(3).length === 65535, "a full window");
    for (let i = 0; i < 4; i++) raw.write(frame(FrameType.windowUpdate, 0, 0, uint32(32768)));
    assert.equal((await raw.ofStream(1)).data.length, 60_005);
    assert.equal((await raw.ofStream(3)).data.length, 60_005);
  });

  test("received data returns the client's window", async () => {
    const raw = await server.connect();
    for (let id = 1; id < 150; id += 2) {
      raw.write(unaryCall(id, ECHO, Buffer.alloc(90_000)), frame(FrameType.windowUpdate, 0, 0, uint32(100_000)));
      raw.write(frame(FrameType.windowUpdate, 0, id, uint32(100_000)));
      await raw.ofStream(id);
    }
    assert.ok(raw.frames.filter((f) => f.type === FrameType.windowUpdate && f.id === 0).length >= 2);
  });

  test("streams above the limit are refused, and only these", async () => {
    const raw = await server.connect();
    for (let id = 1; id <= 23; id += 2) raw.write(unaryCall(id, "/t.S/Hold", "x"));
    assert.equal(await raw.reset(21), H2Error.refusedStream);
    assert.equal(await raw.reset(23), H2Error.refusedStream);
    assert.ok(!raw.frames.some((f) => f.type === FrameType.rstStream && f.id < 21));
    raw.write(frame(FrameType.rstStream, 0, 1, uint32(H2Error.cancel)), unaryCall(25, ECHO, "room"));
    assert.equal((await raw.ofStream(25)).trailers["grpc-status"], "0");
  });

  test("malformed requests are reset, and the connection continues", async () => {
    const raw = await server.connect();
    const grpc = [":method POST", ":scheme http", `:path ${ECHO}`, "content-type application/grpc"];
    const cases = [
      [...grpc, "Upper case"],
      [...grpc, "connection close"],
      [...grpc, "transfer-encoding chunked"],
      [...grpc, "te gzip"],
      [...grpc, ":path /late"],
      [":unknown x", ...grpc],
      [":status 200", ...grpc],
      [":method POST", ...grpc],
      grpc.slice(1),
      grpc.filter((line) => !line.startsWith(":scheme")),
      [":method POST", ":scheme http", ":path ", "content-type application/grpc"],
      [...grpc, "bad\nname x"],
      [...grpc, "name bad\r\nvalue"],
      [...grpc, "content-length 99"],
      [...grpc, "content-length x"],
      [":method CONNECT", ":scheme http", ":path /"],
    ];
    let id = -1;
    for (const lines of cases) {
      id += 2;
      const fields = lines.map((line) => [line.split(" ")[0]!, line.split(" ").slice(1).join(" ")] as const);
      raw.write(frame(FrameType.headers, Flag.endHeaders, id, block(fields)), dataFrames(id, message("x")));
      assert.equal(await raw.reset(id), H2Error.protocol, lines.join(", "));
    }
    raw.write(unaryCall(id + 2, ECHO, "alive"));
    assert.equal((await raw.ofStream(id + 2)).trailers["grpc-status"], "0");
  });

  test("gRPC requests by another method than POST are refused as grpc-go does", async () => {
    const raw = await server.connect();
    const head = block([
      [":method", "GET"],
      [":scheme", "http"],
      [":path", ECHO],
      ["content-type", "application/grpc"],
    ]);
    raw.write(frame(FrameType.headers, Flag.endHeaders | Flag.endStream, 1, head));
    const { headers } = await raw.ofStream(1);
    assert.equal(headers[":status"], "405");
    assert.equal(headers["grpc-message"], 'Received a HEADERS frame with :method "GET" which should be POST');
  });

  test("the content type's suffix comes back in the reply", async () => {
    const raw = await server.connect();
    const head = (type: string): Buffer =>
      block([
        [":method", "POST"],
        [":scheme", "http"],
        [":path", ECHO],
        ["content-type", type],
      ]);
    raw.write(
      frame(FrameType.headers, Flag.endHeaders, 1, head("application/grpc+proto")),
      dataFrames(1, message("x")),
    );
    assert.equal((await raw.ofStream(1)).headers["content-type"], "application/grpc+proto");
    raw.write(frame(FrameType.headers, Flag.endHeaders, 3, head("application/grpcweb")), dataFrames(3, message("x")));
    assert.equal((await raw.ofStream(3)).headers["content-type"], "text/plain");
  });

  test("broken connections get the reason", async () => {
    const cases: readonly (readonly [Buffer, number, RegExp])[] = [
      [frame(FrameType.data, 0, 0, Buffer.from("x")), H2Error.protocol, /DATA on stream 0/],
      [frame(FrameType.data, 0, 9, Buffer.from("x")), H2Error.protocol, /not open/],
      [frame(FrameType.headers, Flag.endHeaders, 2, grpcHead(ECHO)), H2Error.protocol, /stream 2/],
      [frame(FrameType.headers, Flag.endHeaders, 1, Buffer.from("ffffffff", "hex")), H2Error.compression, /integer/],
      [
        frame(FrameType.headers, Flag.endHeaders | Flag.padded, 1, Buffer.from("ff", "hex")),
        H2Error.protocol,
        /padding/,
      ],
      [frame(FrameType.continuation, Flag.endHeaders, 1), H2Error.protocol, /without/],
      [
        Buffer.concat([frame(FrameType.headers, 0, 1, grpcHead(ECHO)), frame(FrameType.ping, 0, 0, Buffer.alloc(8))]),
        H2Error.protocol,
        /inside a header block/,
      ],
      [frame(FrameType.rstStream, 0, 1, uint32(0)), H2Error.protocol, /idle/],
      [frame(FrameType.windowUpdate, 0, 0, uint32(0)), H2Error.protocol, /of 0/],
      [frame(FrameType.windowUpdate, 0, 0, uint32(0x7fffffff)), H2Error.flowControl, /2\^31/],
      [frame(FrameType.ping, 0, 0, Buffer.alloc(7)), H2Error.frameSize, /8 bytes/],
      [frame(FrameType.settings, 0, 0, Buffer.alloc(5)), H2Error.frameSize, /6 bytes/],
      [frame(FrameType.settings, 0, 1), H2Error.protocol, /on a stream/],
      [settingsFrame([[Setting.maxFrameSize, 1]]), H2Error.protocol, /out of range/],
      [settingsFrame([[Setting.initialWindowSize, 0x80000000]]), H2Error.flowControl, /out of range/],
      [frame(FrameType.pushPromise, 0, 1, Buffer.alloc(4)), H2Error.protocol, /PUSH_PROMISE/],
      [frame(FrameType.goaway, 0, 1, Buffer.alloc(8)), H2Error.protocol, /GOAWAY/],
      [frame(99, 0, 0, Buffer.alloc(16385)), H2Error.frameSize, /16385/],
    ];
    for (const [bytes, code, text] of cases) {
      const raw = await server.connect();
      raw.write(bytes);
      const goaway = await raw.goaway();
      assert.equal(goaway.code, code, text.source);
      assert.match(goaway.text, text);
      await raw.ended();
    }
  });

  test("an unknown frame is ignored, and data for a stream ended early does no harm", async () => {
    const raw = await server.connect();
    raw.write(
      frame(99, 255, 7, Buffer.from("whatever")),
      frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/no.Such/Method")),
    );
    await raw.ofStream(1);
    for (let i = 0; i < 5; i++) raw.write(frame(FrameType.data, 0, 1, Buffer.alloc(100)));
    raw.write(frame(FrameType.headers, Flag.endHeaders | Flag.endStream, 1, block([["late", "trailer"]])));
    raw.write(unaryCall(3, ECHO, "alive"));
    assert.equal((await raw.ofStream(3)).trailers["grpc-status"], "0");
    assert.deepEqual(
      raw.frames.filter((f) => f.type === FrameType.rstStream).map((f) => f.id),
      [1],
    );
  });

  test("a header list above the limit is answered with 431", async () => {
    const raw = await server.connect();
    const parts = block(Array.from({ length: 4 }, (_, i) => [`x-${i}`, "y".repeat(32_000)]));
    const bytes = Buffer.concat([grpcHead(ECHO, [["x-more", "z".repeat(3000)]]), parts]);
    assert.ok(bytes.length > HEADER_LIST_BYTES_MAX - 500);
    const pieces = Array.from({ length: Math.ceil(bytes.length / 16384) }, (_, i) => {
      const part = bytes.subarray(i * 16384, (i + 1) * 16384);
      const flags = (i + 1) * 16384 >= bytes.length ? Flag.endHeaders : 0;
      return frame(i === 0 ? FrameType.headers : FrameType.continuation, flags, 1, part);
    });
    raw.write(...pieces, dataFrames(1, message("x")));
    const { headers } = await raw.ofStream(1);
    assert.equal(headers[":status"], "431");
    raw.write(unaryCall(3, ECHO, "alive"));
    assert.equal((await raw.ofStream(3)).trailers["grpc-status"], "0");
  });
});

describe("closing", () => {
  test("running calls finish, new ones are refused, and idle connections end at once", async () => {
    const server = await TestServer.start();
    let held: UnaryCall | undefined;
    server.rpc.unary("/t.S/Hold", (call) => {
      held = call;
    });
    const [idle, busy] = [await server.connect(), await server.connect()];
    busy.write(unaryCall(1, "/t.S/Hold", "x"));
    await idle.settled();
    await eventually(() => held !== undefined, "the call");
    const closed = server.rpc.close(10_000);
    await idle.ended();
    assert.equal((await idle.goaway()).code, 0);
    const goaway = await busy.goaway();
    assert.deepEqual([goaway.code, goaway.lastStreamId], [0, 1]);
    busy.write(unaryCall(3, "/t.S/Hold", "x"));
    assert.equal(await busy.reset(3), H2Error.refusedStream);
    held!.respond(Buffer.from("done"));
    assert.equal((await busy.ofStream(1)).data.subarray(5).toString(), "done");
    await busy.ended();
    await closed;
    await server.stop();
  });

  test("calls that outlast the grace period are cut off and cancelled", async () => {
    const server = await TestServer.start();
    let held: UnaryCall | undefined;
    server.rpc.unary("/t.S/Hold", (call) => {
      held = call;
    });
    const raw = await server.connect();
    raw.write(unaryCall(1, "/t.S/Hold", "x"));
    await eventually(() => held !== undefined, "the call");
    await server.rpc.close(20);
    assert.equal(held!.cancelled, true);
    await raw.ended();
    await server.stop();
  });
});
