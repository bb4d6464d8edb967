/** Compressed messages: in order, and never for long on the event loop. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { status } from "@grpc/grpc-js";
import type { StreamCall } from "../../src/rpc/contract.ts";
import { Flag, FrameType, Setting } from "../../src/rpc/protocol.ts";
import { seeded } from "../harness/random.ts";
import {
  dataFrames,
  eventually,
  frame,
  grpcHead,
  message,
  type RawClient,
  TestServer,
  uint32,
  unaryCall,
} from "./harness.ts";

const RECV_MAX = 8 * 1024 * 1024;
const GZIP = [["grpc-encoding", "gzip"]] as const;

describe("gzip", () => {
  let server: TestServer;
  let stream: StreamCall | undefined;
  /** Buffers may be reused as soon as `respond` returns. */
  const answer = Buffer.alloc(RECV_MAX);

  before(async () => {
    server = await TestServer.start({ maxRecvMessageBytes: RECV_MAX });
    const { rpc } = server;
    rpc.unary("/t.S/Echo", (call) => call.respond(call.message));
    rpc.unary("/t.S/Length", (call) => call.respond(Buffer.from(String(call.message.length))));
    rpc.unary("/t.S/Big", (call) => {
      const bytes = Number(Buffer.from(call.message).toString());
      answer.fill("kvorum", 0, bytes);
      call.respondSlice(answer, 0, bytes);
      answer.fill(0, 0, bytes);
    });
    rpc.stream("/t.S/Stream", (call) => {
      stream = call;
    });
    rpc.stream("/t.S/EchoLengths", (call) => {
      call.onMessage = (bytes) => void call.send(Buffer.from(`${bytes.length}`));
      call.onHalfClose = () => call.end();
    });
  });
  after(() => server.stop());

  const open = (id: number, path: string): Buffer =>
    frame(FrameType.headers, Flag.endHeaders, id, grpcHead(path, GZIP));
  const wide = async (): Promise<RawClient> => {
    const raw = await server.connect([[Setting.initialWindowSize, 0x7fffffff]]);
    raw.write(frame(FrameType.windowUpdate, 0, 0, uint32(0x7fff0000)));
    return raw;
  };
  /** Decompressed messages of a stream's data, each with its flag. */
  const messagesOf = (data: Buffer): { flag: number; body: Buffer }[] => {
    const out: { flag: number; body: Buffer }[] = [];
    for (let at = 0; at < data.length; ) {
      const flag = data[at]!;
      const body = data.subarray(at + 5, (at += 5 + data.readUInt32BE(at + 1)));
      out.push({ flag, body: flag === 1 ? gunzipSync(body) : body });
    }
    return out;
  };

  test("a large answer is compressed while others are served", async () => {
    const raw = await wide();
    const ids = Array.from({ length: 10 }, (_, i) => 3 + 2 * i);
    raw.write(
      open(1, "/t.S/Big"),
      dataFrames(1, message("3000000")),
      ...ids.map((id) => unaryCall(id, "/t.S/Echo", "x")),
    );
    const { data, trailers } = await raw.ofStream(1);
    assert.equal(trailers["grpc-status"], "0");
    const [reply] = messagesOf(data);
    assert.equal(reply!.flag, 1);
    assert.equal(reply!.body.length, 3_000_000);
    assert.ok(reply!.body.subarray(0, 12).equals(Buffer.from("kvorumkvorum")));
    const place = (id: number): number => raw.frames.findIndex((f) => f.id === id && f.type === FrameType.data);
    for (const id of ids) assert.ok(place(id) < place(1), `call ${id} was answered first`);
  });

  test("an answer that would take long to compress is sent as it is", async () => {
    const raw = await wide();
    raw.write(open(1, "/t.S/Big"), dataFrames(1, message("5000000")));
    const { data, headers } = await raw.ofStream(1);
    assert.equal(headers["grpc-encoding"], "gzip");
    const [reply] = messagesOf(data);
    assert.equal(reply!.flag, 0);
    assert.equal(reply!.body.length, 5_000_000);
  });

  test("messages of a stream keep their order, whatever their size, and its end comes last", async () => {
    const raw = await wide();
    stream = undefined;
    raw.write(open(1, "/t.S/Stream"));
    await eventually(() => stream !== undefined, "the call");
    const sizes = [10, 500_000, 20, 0, 5_000_000, 30, 4_000, 60_000, 1];
    for (const size of sizes) stream!.send(Buffer.alloc(size, "s"));
    stream!.end();
    const { data, trailers } = await raw.ofStream(1);
    assert.equal(trailers["grpc-status"], "0");
    assert.deepEqual(
      messagesOf(data).map(({ body }) => body.length),
      sizes,
    );
  });

  test("a sender waits for messages that are being compressed, too", async () => {
    const raw = await wide();
    stream = undefined;
    raw.write(open(1, "/t.S/Stream"));
    await eventually(() => stream !== undefined, "the call");
    let drains = 0;
    stream!.onDrain = () => drains++;
    const random = seeded(1);
    const body = Buffer.from(Array.from({ length: 300_000 }, () => random.below(256)));
    assert.equal(stream!.send(body), false);
    assert.ok(stream!.bufferedBytes >= body.length);
    await eventually(() => drains === 1, "the drain");
    assert.ok(stream!.bufferedBytes < 64 * 1024);
    stream!.end();
    assert.equal((await raw.ofStream(1)).trailers["grpc-status"], "0");
  });

  test("a message in pieces comes after those that are being compressed", async () => {
    const raw = await wide();
    stream = undefined;
    raw.write(open(1, "/t.S/Stream"));
    await eventually(() => stream !== undefined, "the call");
    stream!.send(Buffer.alloc(400_000, "a"));
    stream!.send(Buffer.alloc(5, "b"));
    stream!.beginMessage(6);
    stream!.writePiece(Buffer.from("pieces"));
    stream!.end();
    const { data } = await raw.ofStream(1);
    assert.deepEqual(
      messagesOf(data).map(({ body }) => body.length),
      [400_000, 5, 6],
    );
  });

  test("requests of a stream keep their order, compressed or not", async () => {
    const raw = await wide();
    const sizes = [10, 700_000, 3, 2_000_000, 0, 5000, 1];
    const bodies = sizes.map((size, i) =>
      i % 3 === 2 ? message(Buffer.alloc(size)) : message(gzipSync(Buffer.alloc(size)), 1),
    );
    raw.write(open(1, "/t.S/EchoLengths"), dataFrames(1, Buffer.concat(bodies)));
    const { data, trailers } = await raw.ofStream(1);
    assert.equal(trailers["grpc-status"], "0");
    assert.deepEqual(
      messagesOf(data).map(({ body }) => Number(body.toString())),
      sizes,
    );
  });

  test("a request that becomes large is decompressed whether or not the client half-closes", async () => {
    const raw = await wide();
    const bytes = message(gzipSync(Buffer.alloc(3_000_000)), 1);
    raw.write(open(1, "/t.S/Length"), dataFrames(1, bytes));
    raw.write(open(3, "/t.S/Length"), frame(FrameType.data, 0, 3, bytes));
    for (const id of [1, 3]) {
      const { data } = await raw.ofStream(id);
      assert.equal(messagesOf(data)[0]!.body.toString(), "3000000");
    }
  });

  test("many bombs at once are refused, while others are served", async () => {
    const raw = await wide();
    const bomb = message(gzipSync(Buffer.alloc(RECV_MAX * 2)), 1);
    const ids = Array.from({ length: 20 }, (_, i) => 1 + 2 * i);
    for (const id of ids) raw.write(open(id, "/t.S/Echo"), dataFrames(id, bomb));
    const other = await server.connect();
    other.write(unaryCall(1, "/t.S/Echo", "x"));
    assert.equal((await other.ofStream(1)).trailers["grpc-status"], "0");
    for (const id of ids) {
      const { headers } = await raw.ofStream(id);
      assert.equal(headers["grpc-status"], String(status.RESOURCE_EXHAUSTED));
    }
    assert.equal(server.rpc.heldRequests.total, 0);
  });

  test("a client that disconnects while its answer is compressed leaves nothing behind", async () => {
    const raw = await wide();
    for (let id = 1; id < 20; id += 2) raw.write(open(id, "/t.S/Big"), dataFrames(id, message("2000000")));
    await eventually(() => server.rpc.heldReplies.total > 0, "the answers");
    raw.socket.destroy();
    await eventually(() => server.rpc.heldReplies.total === 0, "nothing is held");
    const other = await wide();
    other.write(open(1, "/t.S/Big"), dataFrames(1, message("100000")));
    assert.equal((await other.ofStream(1)).trailers["grpc-status"], "0");
  });
});
