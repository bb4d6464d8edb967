/** Memory held for clients that do not read their answers, or do not complete their requests. */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { status } from "@grpc/grpc-js";
import type { StreamCall, UnaryCall } from "../../src/rpc/contract.ts";
import { Flag, FrameType, H2Error, Setting } from "../../src/rpc/protocol.ts";
import {
  eventually,
  frame,
  grpcHead,
  message,
  type RawClient,
  reachedCall,
  TestServer,
  uint32,
  unaryCall,
} from "./harness.ts";

const MEGABYTE = 1_000_000;
const REPLIES_MAX = 16 * MEGABYTE;
const REQUESTS_MAX = 2 * MEGABYTE;

let server: TestServer;
let held: UnaryCall | undefined;
let heldStream: StreamCall | undefined;
let answered = 0;

before(async () => {
  server = await TestServer.start({ heldReplyBytesMax: REPLIES_MAX, heldRequestBytesMax: REQUESTS_MAX });
  const { rpc } = server;
  rpc.unary("/t.S/Echo", (call) => call.respond(call.message));
  rpc.unary("/t.S/Big", (call) => {
    answered++;
    call.respond(Buffer.alloc(Number(Buffer.from(call.message).toString())));
  });
  rpc.unary("/t.S/Hold", (call) => {
    held = call;
  });
  rpc.stream("/t.S/HoldStream", (call) => {
    heldStream = call;
  });
});
after(() => server.stop());

afterEach(async () => {
  for (const raw of server.raw) raw.socket.destroy();
  await eventually(() => server.rpc.stats.connections === 0, "the end of all connections");
  assert.equal(server.rpc.heldReplies.total, 0);
  assert.equal(server.rpc.heldRequests.total, 0);
  answered = 0;
});

const openCall = (id: number, path: string): Buffer => frame(FrameType.headers, Flag.endHeaders, id, grpcHead(path));
const noWindow = [[Setting.initialWindowSize, 0]] as const;

async function takeHeld(raw: RawClient): Promise<UnaryCall> {
  held = undefined;
  raw.write(unaryCall(1, "/t.S/Hold", "x"));
  await eventually(() => held !== undefined, "the call");
  return held!;
}

describe("unread answers", () => {
  test("one large list that waits refuses no other call of its connection", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 100]]);
    raw.write(unaryCall(1, "/t.S/Big", String(REPLIES_MAX - MEGABYTE)));
    for (let id = 3; id < 100; id += 2) {
      raw.write(unaryCall(id, "/t.S/Echo", "small"));
      assert.equal((await raw.ofStream(id)).trailers["grpc-status"], "0");
    }
  });

  test("a connection that leaves a quarter of the limit unread on many streams gets no new calls", async () => {
    const raw = await server.connect(noWindow);
    for (let id = 1; id < 80; id += 2) raw.write(unaryCall(id, "/t.S/Big", "250000"));
    assert.equal(await raw.reset(79), H2Error.refusedStream);
    assert.equal(answered, 17);
  });

  test("when all connections together leave too much unread, the largest and oldest are released, and others continue", async () => {
    const modest = await server.connect(noWindow);
    modest.write(unaryCall(1, "/t.S/Big", "5000"));
    const greedy = await server.connect(noWindow);
    for (let id = 1; id < 20; id += 2) greedy.write(unaryCall(id, "/t.S/Big", String(MEGABYTE)));
    await eventually(() => server.rpc.heldReplies.total > 10 * MEGABYTE, "the first ten");
    const other = await server.connect(noWindow);
    for (let id = 1; id < 16; id += 2) other.write(unaryCall(id, "/t.S/Big", String(MEGABYTE)));
    await eventually(() => server.rpc.heldReplies.exceeded > 0, "the limit");
    assert.ok(server.rpc.heldReplies.total <= (REPLIES_MAX * 7) / 8);
    const ended = await greedy.until(
      () => greedy.frames.find((f) => f.type === FrameType.headers && (f.flags & Flag.endStream) !== 0),
      "an error",
    );
    const trailers = greedy.headers(ended.id, 1)!;
    assert.equal(trailers["grpc-status"], String(status.RESOURCE_EXHAUSTED));
    assert.match(decodeURIComponent(trailers["grpc-message"]!), /read faster, or ask for less/);
    modest.write(frame(FrameType.windowUpdate, 0, 1, uint32(10_000)));
    assert.equal((await modest.ofStream(1)).data.length, 5005);
  });

  test("a partly sent answer is reset, with the code that clients map to RESOURCE_EXHAUSTED", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 100]]);
    raw.write(unaryCall(1, "/t.S/Big", String(REPLIES_MAX + 1000)));
    assert.equal(await raw.reset(1), H2Error.enhanceYourCalm);
  });

  test("a connection whose socket takes nothing is closed when it must be released", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 0x7fffffff]]);
    raw.write(frame(FrameType.windowUpdate, 0, 0, uint32(0x7fff0000 - 65535)));
    await raw.settled();
    raw.socket.pause();
    // More than the kernel's buffers take.
    raw.write(unaryCall(1, "/t.S/Big", String(REPLIES_MAX - 10_000)));
    let last = -1;
    let same = 0;
    await eventually(() => {
      const { bytesSent } = server.rpc.stats;
      same = bytesSent === last ? same + 1 : 0;
      last = bytesSent;
      return same > 500 && server.rpc.heldReplies.total > 0;
    }, "the standstill");
    const other = await server.connect(noWindow);
    other.write(unaryCall(1, "/t.S/Big", String(REPLIES_MAX - 10_000)));
    await eventually(() => server.rpc.stats.connections === 1, "its end");
    assert.ok(!other.closed);
  });

  test("a stream that is released notifies its handler, once", async () => {
    const raw = await server.connect(noWindow);
    raw.write(openCall(1, "/t.S/HoldStream"));
    heldStream = undefined;
    await eventually(() => heldStream !== undefined, "the call");
    let cancels = 0;
    heldStream!.onCancel = () => cancels++;
    heldStream!.send(Buffer.alloc(REPLIES_MAX + 1));
    assert.equal((await raw.ofStream(1)).trailers["grpc-status"], String(status.RESOURCE_EXHAUSTED));
    assert.equal(cancels, 1);
    assert.equal(heldStream!.send(Buffer.alloc(1)), false);
  });
});

describe("an answer in pieces", () => {
  const PIECE = Buffer.alloc(64 * 1024);

  /** Writes until told to wait. Returns the number of writes. */
  function writeOn(call: UnaryCall, pieces: number): number {
    let written = 0;
    while (written < pieces) {
      written++;
      if (!call.writePiece(Buffer.alloc(PIECE.length))) break;
    }
    return written;
  }

  test("costs a client that never reads no more than two pieces", async () => {
    const raw = await server.connect();
    const call = await takeHeld(raw);
    assert.ok(call.respondInPieces(1_000_000_000));
    let drains = 0;
    call.onDrain = () => {
      drains++;
      writeOn(call, 1000);
    };
    writeOn(call, 1000);
    await raw.settled();
    assert.ok(server.rpc.heldReplies.total <= 3 * PIECE.length, `${server.rpc.heldReplies.total} bytes`);
    assert.equal(drains, 0);
    assert.equal(raw.data(1).length, 65535);
    raw.write(
      frame(FrameType.windowUpdate, 0, 1, uint32(1_000_000)),
      frame(FrameType.windowUpdate, 0, 0, uint32(1_000_000)),
    );
    await eventually(() => raw.data(1).length === 1_065_535, "what the window allows");
    assert.ok(drains > 0);
    await raw.settled();
    assert.ok(server.rpc.heldReplies.total <= 3 * PIECE.length, `${server.rpc.heldReplies.total} bytes`);
  });

  test("brings the client what was written, though the buffer of each piece is reused", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 10_000_000]]);
    raw.write(frame(FrameType.windowUpdate, 0, 0, uint32(10_000_000)));
    const call = await takeHeld(raw);
    const pieces = 40;
    assert.ok(call.respondInPieces(PIECE.length * pieces));
    const rooms = new Set<ArrayBufferLike>();
    let written = 0;
    const write = (): void => {
      while (written < pieces) {
        const piece = call.newPiece();
        rooms.add(piece.buffer);
        if (!call.writePiece(piece.fill(++written))) return;
      }
    };
    call.onDrain = write;
    write();
    const message = await raw.ofStream(1);
    const { data } = message;
    assert.equal(data.length, 5 + PIECE.length * pieces);
    for (let i = 0; i < pieces; i++) {
      const piece = data.subarray(5 + i * PIECE.length, 5 + (i + 1) * PIECE.length);
      assert.ok(
        piece.every((byte) => byte === i + 1),
        `piece ${i}`,
      );
    }
    assert.ok(rooms.size < pieces / 2, `${rooms.size} rooms for ${pieces} pieces`);
  });

  test("shares the connection's window with small answers", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 30_000]]);
    const call = await takeHeld(raw);
    call.respondInPieces(PIECE.length * 10);
    writeOn(call, 10);
    raw.write(unaryCall(3, "/t.S/Echo", "small"));
    assert.equal((await raw.ofStream(3)).trailers["grpc-status"], "0");
  });

  const interrupted = async (how: (raw: RawClient, call: UnaryCall) => void): Promise<void> => {
    const raw = await server.connect();
    const call = await takeHeld(raw);
    let cancels = 0;
    call.onCancel = () => cancels++;
    call.respondInPieces(PIECE.length * 10);
    writeOn(call, 5);
    how(raw, call);
    await eventually(() => cancels === 1, "the cancellation");
    assert.ok(call.cancelled);
    assert.equal(call.writePiece(Buffer.alloc(PIECE.length)), false);
    await eventually(() => server.rpc.heldReplies.total === 0, "nothing is held");
    assert.equal(cancels, 1);
  };

  test("ends with a reset, and its handler is notified once", () =>
    interrupted((raw) => raw.write(frame(FrameType.rstStream, 0, 1, uint32(H2Error.cancel)))));

  test("ends with its connection, and its handler is notified once", () => interrupted((raw) => raw.socket.destroy()));

  test("is cut off at its deadline, and its handler is notified once", async () => {
    const client = server.client();
    held = undefined;
    const { outcome } = await reachedCall(
      (deadlineMs) =>
        client.call("/t.S/Hold", Buffer.from("x"), undefined, deadlineMs).catch((error: unknown) => error),
      () => held !== undefined,
    );
    let cancels = 0;
    held!.onCancel = () => cancels++;
    held!.respondInPieces(PIECE.length * 10);
    held!.writePiece(Buffer.alloc(PIECE.length));
    assert.equal(((await outcome) as { code: number }).code, status.DEADLINE_EXCEEDED);
    await eventually(() => cancels === 1, "the cancellation");
    client.close();
  });

  test("that fails in the middle is reset with the closest code", async () => {
    for (const [code, reset] of [
      [status.RESOURCE_EXHAUSTED, H2Error.enhanceYourCalm],
      [status.CANCELLED, H2Error.cancel],
      [status.UNAVAILABLE, H2Error.internal],
    ] as const) {
      const raw = await server.connect();
      const call = await takeHeld(raw);
      call.respondInPieces(PIECE.length * 2);
      call.writePiece(Buffer.alloc(PIECE.length));
      call.fail(code, "cut off");
      assert.equal(await raw.reset(1), reset);
    }
  });

  test("that is larger than gRPC allows is refused, with advice", async () => {
    const client = server.client();
    held = undefined;
    const failed = client.call("/t.S/Hold", Buffer.from("x")).catch((error: unknown) => error);
    await eventually(() => held !== undefined, "the call");
    assert.equal(held!.respondInPieces(0x80000000), false);
    const error = (await failed) as { code: number; details: string };
    assert.equal(error.code, status.RESOURCE_EXHAUSTED);
    assert.match(error.details, /larger than max \(2147483648 vs. 2147483647\): ask for less/);
    client.close();
  });

  test("counts as one message and one call", async () => {
    const client = server.client();
    const of = () => [...server.rpc.methods].find((m) => m.path === "/t.S/Hold")!;
    const before = { sent: of().messagesSent, ok: of().handled[0]! };
    held = undefined;
    const reply = client.call("/t.S/Hold", Buffer.from("x"));
    await eventually(() => held !== undefined, "the call");
    const call = held!;
    call.respondInPieces(PIECE.length * 3);
    let left = 3;
    const go = (): void => {
      while (left-- > 0) if (!call.writePiece(Buffer.alloc(PIECE.length))) return;
    };
    call.onDrain = go;
    go();
    assert.equal((await reply).length, PIECE.length * 3);
    assert.deepEqual({ sent: of().messagesSent, ok: of().handled[0]! }, { sent: before.sent + 1, ok: before.ok + 1 });
    client.close();
  });
});

describe("incomplete requests", () => {
  const part = (id: number, bytes: number): Buffer =>
    Buffer.concat([
      openCall(id, "/t.S/Echo"),
      frame(FrameType.data, 0, id, Buffer.concat([Buffer.from([0, 0, 0x10, 0, 0]), Buffer.alloc(10)])),
      ...Array.from({ length: bytes / 10_000 }, () => frame(FrameType.data, 0, id, Buffer.alloc(10_000))),
    ]);

  test("over all connections are released when they are too many, the largest and oldest first", async () => {
    const slow = await server.connect();
    slow.write(part(1, 600_000));
    await eventually(() => server.rpc.heldRequests.total > 500_000, "the first");
    const others: RawClient[] = [];
    for (let i = 0; i < 4; i++) {
      const raw = await server.connect();
      raw.write(part(1, 300_000));
      others.push(raw);
    }
    const { headers } = await slow.ofStream(1);
    assert.equal(headers["grpc-status"], String(status.RESOURCE_EXHAUSTED));
    assert.match(decodeURIComponent(headers["grpc-message"]!), /send this one again/);
    await eventually(() => server.rpc.heldRequests.total <= REQUESTS_MAX, "the others are few enough");
    slow.write(unaryCall(3, "/t.S/Echo", message("x")));
    assert.equal((await slow.ofStream(3)).trailers["grpc-status"], "0");
  });
});
