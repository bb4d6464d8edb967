import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import type { StreamCall, UnaryCall } from "../../src/rpc/contract.ts";
import { Flag, FrameType, Setting } from "../../src/rpc/protocol.ts";
import {
  dataFrames,
  eventually,
  frame,
  GrpcClient,
  grpcHead,
  message,
  reachedCall,
  TestServer,
  unaryCall,
} from "./harness.ts";

const RECV_MAX = 2 * 1024 * 1024;

describe("gRPC calls", () => {
  let server: TestServer;
  let client: GrpcClient;
  /** The last call kept unanswered by /t.S/Hold or /t.S/HoldStream. */
  let held: UnaryCall | undefined;
  let heldStream: StreamCall | undefined;

  before(async () => {
    server = await TestServer.start({ maxRecvMessageBytes: RECV_MAX, maxSendMessageBytes: 64 * 1024 * 1024 });
    const { rpc } = server;
    rpc.unary("/t.S/Echo", (call) => call.respond(call.message));
    rpc.unary("/t.S/Later", (call) => setImmediate(() => call.respond(call.message)));
    rpc.unary("/t.S/Fail", (call) => call.fail(status.FAILED_PRECONDITION, Buffer.from(call.message).toString()));
    rpc.unary("/t.S/Header", (call) =>
      call.respond(Buffer.from(call.header(Buffer.from(call.message).toString()) ?? "none")),
    );
    rpc.unary("/t.S/Hold", (call) => {
      held = call;
    });
    rpc.unary("/t.S/Repeat", (call) => call.respond(Buffer.alloc(Number(Buffer.from(call.message).toString()), "x")));
    rpc.stream("/t.S/Stream", (call) => {
      call.onMessage = (bytes) => void call.send(bytes);
      call.onHalfClose = () => call.end();
    });
    rpc.stream("/t.S/HoldStream", (call) => {
      heldStream = call;
    });
    client = server.client();
  });
  after(() => server.stop());

  const failure = async (promise: Promise<unknown>): Promise<ServiceError> => {
    try {
      await promise;
    } catch (error) {
      return error as ServiceError;
    }
    throw new Error("the call did not fail");
  };

  test("a unary call is answered, at once or later", async () => {
    assert.equal((await client.call("/t.S/Echo", Buffer.from("hello"))).toString(), "hello");
    assert.equal((await client.call("/t.S/Later", Buffer.from("hello"))).toString(), "hello");
    assert.equal((await client.call("/t.S/Echo", Buffer.alloc(0))).length, 0);
  });

  test("many concurrent calls each get their own answer", async () => {
    const calls = Array.from({ length: 500 }, (_, i) =>
      client.call(i % 2 ? "/t.S/Echo" : "/t.S/Later", Buffer.from(`${i}`)),
    );
    const replies = await Promise.all(calls);
    assert.deepEqual(
      replies.map(String),
      replies.map((_, i) => String(i)),
    );
  });

  test("messages far larger than a frame or a window pass both ways", async () => {
    const big = Buffer.alloc(RECV_MAX, "0123456789abcdef");
    assert.ok((await client.call("/t.S/Echo", big)).equals(big));
    assert.equal((await client.call("/t.S/Repeat", Buffer.from("20000000"))).length, 20_000_000);
  });

  test("a request above the receive limit fails with RESOURCE_EXHAUSTED and says by how much", async () => {
    const error = await failure(client.call("/t.S/Echo", Buffer.alloc(RECV_MAX + 1)));
    assert.equal(error.code, status.RESOURCE_EXHAUSTED);
    assert.equal(error.details, `grpc: received message larger than max (${RECV_MAX + 1} vs. ${RECV_MAX})`);
  });

  test("a reply above the send limit fails with RESOURCE_EXHAUSTED", async () => {
    const error = await failure(client.call("/t.S/Repeat", Buffer.from(String(64 * 1024 * 1024 + 1))));
    assert.equal(error.code, status.RESOURCE_EXHAUSTED);
    assert.match(
      error.details,
      /^grpc: trying to send message larger than max \(67108865 vs. 67108864\): ask for less/,
    );
  });

  test("an error keeps its code and its text, whatever characters that has", async () => {
    for (const text of ["plain", "50% ünïcödé 漢字 \u{1f600}", "line\nbreak\u0000", ""]) {
      const error = await failure(client.call("/t.S/Fail", Buffer.from(text)));
      assert.equal(error.code, status.FAILED_PRECONDITION);
      assert.equal(error.details, text);
    }
  });

  test("an error text longer than a frame arrives whole", async () => {
    const text = "x".repeat(40_000);
    const raw = await server.connect();
    raw.write(unaryCall(1, "/t.S/Fail", text));
    const { headers } = await raw.ofStream(1);
    assert.equal(headers["grpc-message"], text);
    await raw.settled();
    assert.equal(raw.frames.filter((f) => f.type === FrameType.continuation).length, 2);
  });

  test("unknown services and methods are UNIMPLEMENTED in grpc-go's words", async () => {
    const service = await failure(client.call("/no.Such/Thing", Buffer.alloc(0)));
    assert.deepEqual([service.code, service.details], [status.UNIMPLEMENTED, "unknown service no.Such"]);
    const method = await failure(client.call("/t.S/Nothing", Buffer.alloc(0)));
    assert.deepEqual([method.code, method.details], [status.UNIMPLEMENTED, "unknown method Nothing for service t.S"]);
    const malformed = await failure(client.call("/nothing", Buffer.alloc(0)));
    assert.deepEqual([malformed.code, malformed.details], [status.UNIMPLEMENTED, 'malformed method name: "/nothing"']);
  });

  test("handlers see the headers of the call, text and binary", async () => {
    const metadata = new Metadata();
    metadata.set("token", "secret.1");
    metadata.set("blob-bin", Buffer.from([0, 255, 1]));
    assert.equal((await client.call("/t.S/Header", Buffer.from("token"), metadata)).toString(), "secret.1");
    assert.equal((await client.call("/t.S/Header", Buffer.from("blob-bin"), metadata)).toString(), "AP8B");
    assert.equal((await client.call("/t.S/Header", Buffer.from("absent"), metadata)).toString(), "none");
  });

  test("a deadline that passes fails the call and cancels its handler", async () => {
    let cancelled = false;
    held = undefined;
    const { outcome } = await reachedCall(
      (deadlineMs) => failure(client.call("/t.S/Hold", Buffer.from("x"), undefined, deadlineMs)),
      () => held !== undefined,
    );
    const call = held!;
    held = undefined;
    call.onCancel = () => {
      cancelled = true;
    };
    assert.ok(call.deadlineMs < Infinity);
    const error = await outcome;
    assert.equal(error.code, status.DEADLINE_EXCEEDED);
    await eventually(() => cancelled, "the cancellation");
    assert.equal(call.cancelled, true);
    call.respond(Buffer.alloc(0)); // without effect and without harm
  });

  test("the server itself answers DEADLINE_EXCEEDED to a client that waits", async () => {
    const raw = await server.connect();
    raw.write(
      frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/t.S/Hold", [["grpc-timeout", "20m"]])),
      frame(FrameType.data, Flag.endStream, 1, message("x")),
      frame(FrameType.headers, Flag.endHeaders | Flag.endStream, 3, grpcHead("/t.S/Hold", [["grpc-timeout", "0n"]])),
    );
    for (const id of [1, 3]) {
      const { headers } = await raw.ofStream(id);
      assert.equal(headers["grpc-status"], "4");
      assert.equal(headers["grpc-message"], "context deadline exceeded");
    }
  });

  test("a client's cancellation reaches the handler", async () => {
    const stream = client.stream("/t.S/HoldStream");
    stream.on("error", () => {});
    stream.write(Buffer.from("x"));
    await eventually(() => heldStream !== undefined, "the call");
    const call = heldStream!;
    heldStream = undefined;
    let cancelled = false;
    call.onCancel = () => {
      cancelled = true;
    };
    stream.cancel();
    await eventually(() => cancelled, "the cancellation");
    assert.equal(call.send(Buffer.from("late")), false);
    call.end();
  });

  test("a closed connection cancels its calls", async () => {
    const own = new GrpcClient(`127.0.0.1:${server.port}`);
    const failed = failure(own.call("/t.S/Hold", Buffer.from("x")));
    await eventually(() => held !== undefined, "the call");
    const call = held!;
    held = undefined;
    own.close();
    call.socket.destroy();
    await failed;
    await eventually(() => call.cancelled, "the cancellation");
  });

  test("a stream carries messages both ways in order until both ends are done", async () => {
    const stream = client.stream("/t.S/Stream");
    const got: string[] = [];
    stream.on("data", (bytes: Buffer) => got.push(bytes.toString()));
    const ended = new Promise<void>((resolve, reject) => stream.on("end", resolve).on("error", reject));
    const sent = Array.from({ length: 1000 }, (_, i) => `message ${i}`);
    for (const text of sent) stream.write(Buffer.from(text));
    stream.end();
    await ended;
    assert.deepEqual(got, sent);
  });

  test("a sender faster than its client is told to wait, and to continue when it has drained", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 1000]]);
    raw.write(frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/t.S/HoldStream")));
    await eventually(() => heldStream !== undefined, "the call");
    const call = heldStream!;
    heldStream = undefined;
    let drained = 0;
    call.onDrain = () => drained++;
    let sent = 0;
    while (call.send(Buffer.alloc(10_000))) sent++;
    assert.ok(sent >= 5 && call.bufferedBytes > 64 * 1024, `${sent} messages, ${call.bufferedBytes} bytes`);
    await raw.settled();
    assert.equal(raw.data(1).length, 1000);
    assert.equal(drained, 0);
    raw.write(frame(FrameType.windowUpdate, 0, 1, Buffer.from([0, 1, 0, 0])));
    await eventually(() => drained === 1, "the drain");
    assert.ok(call.bufferedBytes < 64 * 1024);
  });

  test("a message of a stream may come in pieces, between others, and is sent as the client reads", async () => {
    const stream = client.stream("/t.S/HoldStream");
    const got: Buffer[] = [];
    stream.on("data", (bytes: Buffer) => got.push(bytes)).on("error", () => {});
    stream.write(Buffer.from("x"));
    await eventually(() => heldStream !== undefined, "the call");
    const call = heldStream!;
    heldStream = undefined;
    const piece = Buffer.alloc(50_000, "p");
    const pieces = 200;
    let mostBytes = 0;
    call.send(Buffer.from("before"));
    call.beginMessage(piece.length * pieces);
    let left = pieces;
    const go = (): void => {
      while (left > 0) {
        left--;
        const more = call.writePiece(piece);
        mostBytes = Math.max(mostBytes, call.bufferedBytes);
        if (!more) return;
      }
      call.send(Buffer.from("after"));
      call.end();
    };
    call.onDrain = go;
    assert.throws(() => call.send(Buffer.from("inside")), /inside of another/);
    go();
    await eventually(() => got.length === 3, "all messages");
    assert.deepEqual(
      got.map((bytes) => bytes.length),
      [6, piece.length * pieces, 5],
    );
    assert.ok(mostBytes < 64 * 1024 + 2 * piece.length, `${mostBytes} bytes were held`);
  });

  test("a call that ends inside a message is cut off", async () => {
    const stream = client.stream("/t.S/HoldStream");
    stream.write(Buffer.from("x"));
    const ended = new Promise<ServiceError>((resolve) => stream.on("error", resolve).on("data", () => {}));
    await eventually(() => heldStream !== undefined, "the call");
    const call = heldStream!;
    heldStream = undefined;
    call.beginMessage(1000);
    call.writePiece(Buffer.alloc(999));
    call.fail(status.UNAVAILABLE, "half of it is gone");
    assert.equal((await ended).code, status.INTERNAL);
  });

  test("a paused reader limits the client to its window and loses nothing", async () => {
    const raw = await server.connect();
    raw.write(frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/t.S/HoldStream")));
    await eventually(() => heldStream !== undefined, "the call");
    const call = heldStream!;
    heldStream = undefined;
    let got = 0;
    let halfClosed = false;
    call.onMessage = () => got++;
    call.onHalfClose = () => {
      halfClosed = true;
    };
    call.pauseReading();
    const one = frame(FrameType.data, 0, 1, message(Buffer.alloc(16_000)));
    const updates = () => raw.frames.filter((f) => f.type === FrameType.windowUpdate && f.id === 1).length;
    for (let i = 0; i < 60; i++) raw.write(one);
    raw.write(frame(FrameType.data, Flag.endStream, 1, message("last")));
    await raw.settled();
    assert.equal(got, 0);
    assert.equal(updates(), 0);
    call.resumeReading();
    // Waiting messages arrive in the time a turn has for them.
    await eventually(() => halfClosed, "the end of what was held back");
    assert.equal(got, 61);
    call.end();
    assert.equal((await raw.ofStream(1)).trailers["grpc-status"], "0");
  });

  test("a reader that pauses and resumes within each message gets all of them once, in order", async () => {
    const raw = await server.connect();
    raw.write(frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/t.S/HoldStream")));
    await eventually(() => heldStream !== undefined, "the call");
    const call = heldStream!;
    heldStream = undefined;
    const got: number[] = [];
    call.pauseReading();
    call.onMessage = (bytes) => {
      got.push(Number(Buffer.from(bytes).toString()));
      call.pauseReading();
      if (got.length % 3 === 0) call.resumeReading();
      else setImmediate(() => call.resumeReading());
    };
    call.onHalfClose = () => call.end();
    const sent = Array.from({ length: 1000 }, (_, i) => i);
    raw.write(dataFrames(1, Buffer.concat(sent.map((i) => message(String(i))))));
    await raw.settled();
    call.resumeReading();
    await raw.ofStream(1);
    assert.deepEqual(got, sent);
  });

  test("gzip requests are decoded and answered with gzip", async () => {
    const raw = await server.connect();
    const text = "kvorum ".repeat(1000);
    raw.write(
      frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/t.S/Echo", [["grpc-encoding", "gzip"]])),
      frame(FrameType.data, Flag.endStream, 1, message(gzipSync(text), 1)),
    );
    const { headers, data, trailers } = await raw.ofStream(1);
    assert.equal(headers["grpc-encoding"], "gzip");
    assert.equal(headers["grpc-accept-encoding"], "gzip");
    assert.equal(data[0], 1);
    assert.ok(data.subarray(5).equals(gzipSync(text)));
    assert.equal(trailers["grpc-status"], "0");
  });

  test("bad content is refused with the right status", async () => {
    const raw = await server.connect();
    let id = -1;
    const outcome = async (more: readonly (readonly [string, string])[], body: Buffer): Promise<[string, string]> => {
      id += 2;
      raw.write(frame(FrameType.headers, Flag.endHeaders, id, grpcHead("/t.S/Echo", more)), dataFrames(id, body));
      const { headers, trailers } = await raw.ofStream(id);
      const last = headers["grpc-status"] === undefined ? trailers : headers;
      return [last["grpc-status"]!, decodeURIComponent(last["grpc-message"]!)];
    };
    const gzip = [["grpc-encoding", "gzip"]] as const;
    assert.deepEqual(await outcome([["grpc-encoding", "snappy"]], message("x", 1)), [
      "12",
      'grpc: Decompressor is not installed for grpc-encoding "snappy"',
    ]);
    assert.deepEqual(await outcome([], message("x", 1)), [
      "13",
      "grpc: compressed flag set with identity or empty encoding",
    ]);
    assert.deepEqual(await outcome([], message("x", 7)), ["13", "grpc: received unexpected payload format 7"]);
    assert.deepEqual(await outcome(gzip, message("no gzip at all", 1)), [
      "13",
      "grpc: failed to decompress the message: gzip: invalid header",
    ]);
    assert.deepEqual(await outcome(gzip, message(gzipSync("truncated").subarray(0, 20), 1)), [
      "13",
      "grpc: failed to read decompressed data: unexpected EOF",
    ]);
    assert.deepEqual(await outcome(gzip, message(gzipSync(Buffer.alloc(RECV_MAX * 20)), 1)), [
      "8",
      `grpc: received message after decompression larger than max ${RECV_MAX}`,
    ]);
    assert.deepEqual(await outcome([], message("cut").subarray(0, 6)), ["2", "unexpected EOF"]);
    assert.deepEqual(await outcome([], Buffer.from([0, 0, 0])), ["2", "EOF"]);
    assert.deepEqual(await outcome([], Buffer.alloc(0)), ["2", "EOF"]);
    assert.deepEqual(await outcome([["grpc-timeout", "5x"]], message("x")), [
      "13",
      'malformed grpc-timeout: transport: timeout unit is not recognized: "5x"',
    ]);
    assert.equal((await outcome([["key-bin", "***"]], message("x")))[0], "13");
  });

  test("a unary request starts even when the client never half-closes", async () => {
    const raw = await server.connect();
    raw.write(
      frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/t.S/Echo")),
      frame(FrameType.data, 0, 1, message("open")),
    );
    const { data } = await raw.ofStream(1);
    assert.equal(data.subarray(5).toString(), "open");
    assert.equal(await raw.reset(1), 0);
  });

  test("counters of methods and connections follow the calls", async () => {
    const method = [...server.rpc.methods].find((m) => m.path === "/t.S/Fail")!;
    const { started, messagesReceived, handled } = method;
    const failed = handled[status.FAILED_PRECONDITION]!;
    await failure(client.call("/t.S/Fail", Buffer.from("x")));
    assert.equal(method.started, started + 1);
    assert.equal(method.messagesReceived, messagesReceived + 1);
    assert.equal(handled[status.FAILED_PRECONDITION], failed + 1);
    assert.ok(server.rpc.stats.bytesReceived > 0 && server.rpc.stats.bytesSent > 0 && server.rpc.stats.streams > 0);
  });
});
