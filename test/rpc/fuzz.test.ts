// Slow: fuzzing.
/**
 * For any input, the server neither crashes nor hangs and keeps serving others. Every run uses the same seeds; set
 * KVORUM_FUZZ_ROUNDS (default 150) for longer ones, and KVORUM_FUZZ_SEED to start elsewhere.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { HpackDecoder, HpackError } from "../../src/rpc/hpack/decoder.ts";
import { HpackEncoder } from "../../src/rpc/hpack/encoder.ts";
import { Flag, FrameType, PREFACE, Setting } from "../../src/rpc/protocol.ts";
import {
  dataFrames,
  eventually,
  frame,
  grpcHead,
  message,
  readAll,
  settingsFrame,
  TestServer,
  uint32,
  unaryCall,
} from "./harness.ts";

const rounds = Number(process.env["KVORUM_FUZZ_ROUNDS"] ?? 150);
const firstSeed = Number(process.env["KVORUM_FUZZ_SEED"] ?? 1);

/** mulberry32 */
function generator(seed: number): (bound: number) => number {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % bound;
  };
}

const bytes = (below: (bound: number) => number, length: number): Buffer =>
  Buffer.from(Array.from({ length }, () => below(256)));

describe("fuzzing", () => {
  let server: TestServer;

  before(async () => {
    server = await TestServer.start({
      maxConcurrentStreams: 20,
      maxRecvMessageBytes: 100_000,
      // Small, so that held bytes are released now and then.
      heldReplyBytesMax: 150_000,
      heldRequestBytesMax: 60_000,
      http2Request: (request) => readAll(request, (body) => request.respond(200, {}, body)),
    });
    server.rpc.unary("/t.S/Echo", (call) => call.respond(call.message));
    server.rpc.unary("/t.S/Later", (call) => setImmediate(() => call.respond(call.message)));
    server.rpc.unary("/t.S/Pieces", (call) => {
      let left = 1 + (call.message.length % 20);
      if (!call.respondInPieces(left * 10_000)) return;
      const go = (): void => {
        while (left > 0 && !call.cancelled) {
          left--;
          if (!call.writePiece(Buffer.alloc(10_000))) return;
        }
      };
      call.onDrain = go;
      go();
    });
    server.rpc.stream("/t.S/Stream", (call) => {
      call.onMessage = (body) => {
        if (!call.send(body)) call.pauseReading();
      };
      call.onDrain = () => call.resumeReading();
      call.onHalfClose = () => call.end();
    });
  });
  after(() => server.stop());

  const paths = ["/t.S/Echo", "/t.S/Later", "/t.S/Pieces", "/t.S/Stream", "/no.Such/Method"];

  /** Mostly valid traffic. */
  function traffic(below: (bound: number) => number): Buffer[] {
    const out: Buffer[] = [];
    let next = 1;
    for (let n = below(30) + 1; n > 0; n--) {
      const id = below(4) === 0 ? 1 + 2 * below(next) : (next += 2) - 2;
      const path = paths[below(paths.length)]!;
      switch (below(10)) {
        case 0:
          out.push(settingsFrame([[1 + below(7), below(3) === 0 ? below(2 ** 32) : 16384 + below(70_000)]]));
          break;
        case 1:
          out.push(frame(FrameType.windowUpdate, 0, below(2) * id, uint32(below(1 << 20))));
          break;
        case 2:
          out.push(frame(FrameType.rstStream, 0, id, uint32(below(16))));
          break;
        case 3:
          out.push(frame(FrameType.ping, below(2), 0, bytes(below, 8)));
          break;
        case 4:
          out.push(
            frame(FrameType.headers, Flag.endHeaders, id, grpcHead(path, [["grpc-encoding", "gzip"]])),
            dataFrames(
              id,
              Buffer.concat(
                Array.from({ length: 1 + below(3) }, () =>
                  below(2) === 0 ? message("plain") : message(gzipSync(bytes(below, below(2) === 0 ? 100 : 8000)), 1),
                ),
              ),
            ),
          );
          break;
        case 5:
          out.push(frame(below(12), below(256), id, bytes(below, below(60))));
          break;
        case 6: {
          const head = grpcHead(path, [["grpc-timeout", `${below(100)}m`]]);
          const cut = below(head.length);
          out.push(
            frame(FrameType.headers, 0, id, head.subarray(0, cut)),
            frame(FrameType.continuation, Flag.endHeaders, id, head.subarray(cut)),
            frame(FrameType.data, Flag.padded, id, Buffer.concat([Buffer.of(3), message("padded"), Buffer.alloc(3)])),
            frame(FrameType.data, Flag.endStream, id),
          );
          break;
        }
        default:
          out.push(unaryCall(id, path, bytes(below, below(3) === 0 ? below(60_000) : below(100))));
      }
    }
    return out;
  }

  function mutate(below: (bound: number) => number, input: Buffer): Buffer {
    let out: Buffer = Buffer.from(input);
    for (let n = below(6); n > 0; n--) {
      const at = below(out.length);
      switch (below(4)) {
        case 0:
          out[at] = below(256);
          break;
        case 1:
          out[at] = out[at]! ^ (1 << below(8));
          break;
        case 2:
          out = Buffer.concat([out.subarray(0, at), out.subarray(at + below(20))]);
          break;
        default:
          out = Buffer.concat([out.subarray(0, at), bytes(below, below(20)), out.subarray(at)]);
      }
      if (out.length === 0) return out;
    }
    return out;
  }

  async function serves(): Promise<void> {
    const raw = await server.connect([[Setting.initialWindowSize, 1 << 20]]);
    raw.write(unaryCall(1, "/t.S/Echo", "alive"), unaryCall(3, "/t.S/Later", "alive"));
    for (const id of [1, 3]) assert.equal((await raw.ofStream(id)).data.subarray(5).toString(), "alive");
    raw.socket.destroy();
  }

  /** Sends the bytes in random pieces and disconnects when the server has answered or closed as expected. */
  async function attack(below: (bound: number) => number, input: Buffer): Promise<void> {
    const raw = await server.connectSilently();
    for (let at = 0; at < input.length && !raw.closed; ) {
      const size = below(3) === 0 ? 1 + below(50) : 1 + below(20_000);
      raw.write(input.subarray(at, at + size));
      at += size;
      if (below(4) === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    if (below(2) === 0) raw.socket.destroy();
    else {
      raw.socket.end();
      await raw.ended();
    }
  }

  for (const [name, make] of [
    [
      "random frames",
      (below) => Array.from({ length: 20 }, () => frame(below(11), below(256), below(10), bytes(below, below(80)))),
    ],
    ["right traffic", traffic],
    ["mutated traffic", (below) => [mutate(below, Buffer.concat(traffic(below)))]],
    ["random bytes", (below) => [bytes(below, below(2000))]],
  ] as readonly (readonly [string, (below: (bound: number) => number) => Buffer[]])[]) {
    test(`${name} leave the server serving`, async () => {
      for (let seed = firstSeed; seed < firstSeed + rounds; seed++) {
        const below = generator(seed);
        const preface = below(20) === 0 ? [] : [PREFACE, settingsFrame([])];
        await attack(below, Buffer.concat([...preface, ...make(below)]));
        if (seed % 50 === 0) await serves();
      }
      await serves();
    });
  }

  test("header blocks of any bytes decode, or fail as HPACK errors", () => {
    for (let seed = firstSeed; seed < firstSeed + rounds * 20; seed++) {
      const below = generator(seed);
      const decoder = new HpackDecoder();
      const encoder = new HpackEncoder();
      try {
        for (let n = 0; n < 10; n++) {
          const source = below(2) === 0 ? bytes(below, below(60)) : mutate(below, encoder.grpcHeaders());
          decoder.decode(source, 0, source.length, [], 1000);
          assert.ok(decoder.tableSize <= 4096);
        }
      } catch (error) {
        assert.ok(error instanceof HpackError, `seed ${seed}: ${error}`);
      }
    }
  });

  test("no connection, stream or buffer is left over", async () => {
    const { stats, heldReplies, heldRequests } = server.rpc;
    await eventually(() => stats.connections === 0, "the end of all connections");
    assert.deepEqual({ replies: heldReplies.total, requests: heldRequests.total }, { replies: 0, requests: 0 });
    assert.equal(stats.crashes, 0, "no handler was at fault");
    for (const method of server.rpc.methods) {
      assert.equal(
        method.started,
        method.handled.reduce((sum, count) => sum + count, 0),
        `${method.path} has calls without an end`,
      );
    }
  });
});
