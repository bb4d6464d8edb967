// Slow: floods of frames, each until the server ends it.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ABUSES, type Abuse } from "../../src/rpc/guard.ts";
import { CONTINUATIONS_MAX, Flag, FrameType, H2Error, Setting, STREAMS_MAX } from "../../src/rpc/protocol.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";
import {
  block,
  eventually,
  frame,
  grpcHead,
  ManualClock,
  message,
  type RawClient,
  settingsFrame,
  TestServer,
  uint32,
  unaryCall,
} from "./harness.ts";

const ECHO = "/t.S/Echo";
const BIG_BYTES = 1_000_000;

describe("a flood ends its own connection and no other, and the client and the log get the reason", () => {
  let server: TestServer;
  const logger = new MemoryLogger();
  let bystander: RawClient;
  let bystanderId = -1;

  before(async () => {
    server = await TestServer.start({
      logger,
      keepalive: { minTimeMs: 5000, permitWithoutStream: true, intervalMs: 3.6e6, timeoutMs: 20_000 },
      receiveBufferBytesMax: 1024 * 1024,
    });
    server.rpc.unary(ECHO, (call) => call.respond(call.message));
    server.rpc.unary("/t.S/Hold", () => {});
    server.rpc.stream("/t.S/Stream", (call) => {
      call.onMessage = () => {};
    });
    bystander = await server.connect();
  });
  after(() => server.stop());

  async function flooded(raw: RawClient, text: RegExp): Promise<void> {
    const goaway = await raw.goaway();
    assert.equal(goaway.code, H2Error.enhanceYourCalm);
    assert.match(goaway.text, text);
    await raw.ended();
    const warned = logger.lines.filter(({ level }) => level === "warn").map(({ fields }) => fields["reason"]);
    assert.equal(new Set(warned).size, warned.length, "each reason is logged once");
    const counted = Object.entries(server.rpc.stats.abuses);
    assert.deepEqual(counted.map(([abuse]) => ABUSES[abuse as Abuse].text).sort(), [...warned].sort());
    assert.ok(
      counted.some(([abuse, count]) => count > 0 && text.test(ABUSES[abuse as Abuse].text)) ||
        /bytes/.test(goaway.text),
    );
    bystanderId += 2;
    bystander.write(unaryCall(bystanderId, ECHO, "still here"));
    assert.equal((await bystander.ofStream(bystanderId)).trailers["grpc-status"], "0");
  }

  const times = (count: number, make: (i: number) => Buffer): Buffer =>
    Buffer.concat(Array.from({ length: count }, (_, i) => make(i)));
  const openStream = (id: number, path = "/t.S/Stream"): Buffer =>
    frame(FrameType.headers, Flag.endHeaders, id, grpcHead(path));

  test("resets of a stream that is over", async () => {
    const raw = await server.connect();
    const reset = frame(FrameType.rstStream, 0, 1, uint32(H2Error.cancel));
    raw.write(
      unaryCall(1, ECHO, ""),
      times(30_000, () => reset),
    );
    await flooded(raw, /too many resets/);
  });

  test("resets that the client makes us send", async () => {
    const raw = await server.connect();
    raw.write(
      times(6000, (i) =>
        Buffer.concat([openStream(2 * i + 1), frame(FrameType.windowUpdate, 0, 2 * i + 1, uint32(0))]),
      ),
    );
    await flooded(raw, /too many (stream errors|WINDOW_UPDATE)/);
  });

  test("CONTINUATION without end", async () => {
    const raw = await server.connect();
    raw.write(
      frame(FrameType.headers, 0, 1, grpcHead(ECHO)),
      times(CONTINUATIONS_MAX + 5, () => frame(FrameType.continuation, 0, 1)),
    );
    await flooded(raw, /header block too long/);
  });

  test("SETTINGS", async () => {
    const raw = await server.connect();
    raw.write(times(2000, () => settingsFrame([[Setting.initialWindowSize, 65535]])));
    await flooded(raw, /too many SETTINGS/);
  });

  test("PING", async () => {
    const raw = await server.connect();
    raw.write(
      openStream(1),
      times(10, () => frame(FrameType.ping, 0, 0, Buffer.alloc(8))),
    );
    await flooded(raw, /^too_many_pings$/);
    assert.equal(raw.frames.filter((f) => f.type === FrameType.ping).length, 4);
  });

  test("PING between useful calls", async () => {
    const raw = await server.connect();
    const call = unaryCall(1, ECHO, "");
    raw.write(
      times(6000, (i) => {
        call.writeUInt32BE(2 * i + 1, 5);
        call.writeUInt32BE(2 * i + 1, call.length - 5 - 4);
        return Buffer.concat([call, ...Array.from({ length: 20 }, () => frame(FrameType.ping, 0, 0, Buffer.alloc(8)))]);
      }),
    );
    await flooded(raw, /ping/i);
  });

  test("PRIORITY", async () => {
    const raw = await server.connect();
    raw.write(times(30_000, () => frame(FrameType.priority, 0, 1, Buffer.alloc(5))));
    await flooded(raw, /PRIORITY/);
  });

  test("frames of unknown types", async () => {
    const raw = await server.connect();
    raw.write(times(30_000, () => frame(77, 0, 0)));
    await flooded(raw, /unknown types/);
  });

  test("WINDOW_UPDATE", async () => {
    const raw = await server.connect();
    raw.write(times(60_000, () => frame(FrameType.windowUpdate, 0, 0, uint32(1))));
    await flooded(raw, /WINDOW_UPDATE/);
  });

  test("empty and tiny DATA", async () => {
    for (const payload of [Buffer.alloc(0), Buffer.alloc(1)]) {
      const raw = await server.connect();
      const prefix = frame(FrameType.data, 0, 1, Buffer.from([0, 0, 0x10, 0, 0]));
      raw.write(
        openStream(1),
        prefix,
        times(30_000, () => frame(FrameType.data, 0, 1, payload)),
      );
      await flooded(raw, /tiny DATA/);
    }
  });

  test("a compression bomb", async () => {
    const raw = await server.connect();
    const name = Buffer.concat([Buffer.from([0x40, 1, 0x78, 0x7f, 0x81, 0x1e]), Buffer.alloc(3968, "y")]);
    raw.write(frame(FrameType.headers, Flag.endHeaders, 1, Buffer.concat([name, Buffer.alloc(1000, 0xbe)])));
    await flooded(raw, /header list of \d+ bytes/);
  });

  test("headers that are too large, again and again", async () => {
    const raw = await server.connect();
    const bytes = block(Array.from({ length: 2000 }, (_, i) => [`x-${i}`, ""]));
    const pieces = (id: number): Buffer => {
      const all = Buffer.concat([bytes, bytes]);
      return Buffer.concat([
        frame(FrameType.headers, Flag.endStream, id, all.subarray(0, 16384)),
        frame(FrameType.continuation, 0, id, all.subarray(16384, 32768)),
        frame(FrameType.continuation, Flag.endHeaders, id, all.subarray(32768)),
      ]);
    };
    raw.write(times(300, (i) => pieces(2 * i + 1)));
    await flooded(raw, /too many (header lists|CONTINUATION)/);
  });

  test("unfinished messages: the call that makes them too many fails", async () => {
    const raw = await server.connect();
    for (let i = 0; i < 40; i++) {
      const part = Buffer.concat([Buffer.from([0, 0, 0x10, 0, 0]), Buffer.alloc(16_000)]);
      const half = [part, Buffer.alloc(16_000)].map((bytes) => frame(FrameType.data, 0, 2 * i + 1, bytes));
      raw.write(openStream(2 * i + 1, "/t.S/Hold"), ...half);
    }
    const { headers } = await raw.ofStream(79);
    assert.equal(headers["grpc-status"], "8");
    assert.match(headers["grpc-message"]!, /too many unread messages/);
    assert.ok(!raw.frames.some((f) => f.type === FrameType.rstStream && f.id === 1));
  });

  test("a client that sends but does not read is not read from either, and loses nothing", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 0x7fffffff]]);
    await raw.settled();
    raw.write(frame(FrameType.windowUpdate, 0, 0, uint32(0x7fff0000 - 65535)));
    raw.socket.pause();
    const calls = 400;
    const body = Buffer.alloc(60_000);
    const parts = (id: number): Buffer => {
      const bytes = message(body);
      return Buffer.concat([
        openStream(id, ECHO),
        ...[0, 1, 2, 3].map((n) =>
          frame(FrameType.data, n === 3 ? Flag.endStream : 0, id, bytes.subarray(n * 16384, (n + 1) * 16384)),
        ),
      ]);
    };
    const before = server.rpc.stats.bytesReceived;
    for (let i = 0; i < calls; i++) raw.write(parts(2 * i + 1));
    let last = -1;
    let same = 0;
    await eventually(() => {
      const { bytesReceived } = server.rpc.stats;
      same = bytesReceived === last ? same + 1 : 0;
      last = bytesReceived;
      return same > 2000;
    }, "the standstill");
    assert.ok(last - before < calls * 50_000, `${last - before} bytes were read`);
    raw.socket.resume();
    const { data } = await raw.ofStream(2 * calls - 1);
    assert.equal(data.length, 60_005);
  });
});

describe("any amount of traffic from honest clients is no flood", () => {
  const clock = new ManualClock();
  let server: TestServer;
  let endAll: (() => void)[] = [];

  before(async () => {
    server = await TestServer.start({ clock, heldReplyBytesMax: 64 * BIG_BYTES });
    server.rpc.unary(ECHO, (call) => call.respond(call.message));
    server.rpc.unary("/t.S/Big", (call) => call.respond(Buffer.alloc(BIG_BYTES)));
    server.rpc.unary("/t.S/Hold", () => {});
    server.rpc.stream("/t.S/Answer", (call) => {
      call.onMessage = (bytes) => void call.send(bytes);
    });
    server.rpc.stream("/t.S/Stream", (call) => {
      endAll.push(() => call.fail(14, "no leader"));
    });
  });
  after(() => server.stop());

  const open = (id: number, path: string): Buffer => frame(FrameType.headers, Flag.endHeaders, id, grpcHead(path));
  const PING = frame(FrameType.ping, 0, 0, Buffer.alloc(8));
  const ids = (count: number, from = 1): number[] => Array.from({ length: count }, (_, i) => 2 * i + from);

  async function alive(raw: RawClient, id: number): Promise<void> {
    raw.write(unaryCall(id, ECHO, "still here"));
    assert.equal((await raw.ofStream(id)).trailers["grpc-status"], "0");
  }

  test("a small message, its answer, a ping and a window update, ten thousand times on one stream (grpc-go's watches)", async () => {
    const raw = await server.connect();
    const round = Buffer.concat([
      frame(FrameType.data, 0, 1, message("create a watch")),
      PING,
      frame(FrameType.windowUpdate, 0, 0, uint32(19)),
      frame(FrameType.windowUpdate, 0, 1, uint32(19)),
    ]);
    raw.write(open(1, "/t.S/Answer"), ...Array.from({ length: 10_000 }, () => round));
    await alive(raw, 3);
  });

  test("a message in two small frames, again and again", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 0x7fffffff]]);
    raw.write(frame(FrameType.windowUpdate, 0, 0, uint32(0x70000000)));
    const bytes = message("keep alive");
    const round = Buffer.concat([
      frame(FrameType.data, 0, 1, bytes.subarray(0, 5)),
      frame(FrameType.data, 0, 1, bytes.subarray(5)),
    ]);
    raw.write(open(1, "/t.S/Answer"), ...Array.from({ length: 20_000 }, () => round));
    await alive(raw, 3);
  });

  test("a ping after each answer of a call", async () => {
    const raw = await server.connect();
    raw.write(...ids(5000).map((id) => Buffer.concat([unaryCall(id, ECHO, ""), PING])));
    await alive(raw, 10_001);
  });

  test("windows returned in small steps", async () => {
    const raw = await server.connect([[Setting.initialWindowSize, 0x7fffffff]]);
    raw.write(frame(FrameType.windowUpdate, 0, 0, uint32(0x70000000)));
    for (const id of ids(20)) {
      raw.write(unaryCall(id, "/t.S/Big", ""));
      await raw.ofStream(id);
      raw.write(...Array.from({ length: BIG_BYTES / 1000 }, () => frame(FrameType.windowUpdate, 0, 0, uint32(1000))));
    }
    await alive(raw, 41);
  });

  test("ten thousand calls cancelled at once, at their deadline", async () => {
    const raw = await server.connect();
    raw.write(...ids(10_000).map((id) => unaryCall(id, "/t.S/Hold", "")));
    await alive(raw, 20_001);
    clock.advance(1000);
    raw.write(...ids(10_000).map((id) => frame(FrameType.rstStream, 0, id, uint32(H2Error.cancel))));
    await alive(raw, 20_003);
  });

  test("ten thousand calls in flight that end together at a short deadline, five times in a row", async () => {
    const raw = await server.connect();
    for (let round = 0; round < 5; round++) {
      const calls = ids(10_000, 20_002 * round + 1);
      raw.write(...calls.map((id) => unaryCall(id, "/t.S/Hold", "")));
      raw.write(...calls.map((id) => frame(FrameType.rstStream, 0, id, uint32(H2Error.cancel))));
      await alive(raw, 20_002 * round + 20_001);
    }
  });

  test("ten thousand answered calls that the client resets for each frame of the answer (Netty)", async () => {
    const raw = await server.connect();
    raw.write(...ids(10_000).map((id) => unaryCall(id, ECHO, "")));
    await raw.ofStream(19_999);
    const resets = ids(10_000).flatMap((id) => Array(4).fill(frame(FrameType.rstStream, 0, id, uint32(5))));
    raw.write(Buffer.concat(resets));
    await alive(raw, 20_001);
  });

  test("calls reset right behind their request, without end: others are served in between, and none is left open", async () => {
    const raw = await server.connect();
    const bystander = await server.connect();
    const begun = server.rpc.stats.streams;
    const calls = ids(50_000);
    raw.write(
      Buffer.concat(
        calls.flatMap((id) => [
          unaryCall(id, "/t.S/Hold", ""),
          frame(FrameType.rstStream, 0, id, uint32(H2Error.cancel)),
        ]),
      ),
    );
    await eventually(() => server.rpc.stats.streams > begun, "the first of them");
    await alive(bystander, 1);
    assert.ok(server.rpc.stats.streams - begun < calls.length, "the other client did not wait for all of them");
    await alive(raw, 100_001);
    const [hold] = [...server.rpc.methods].filter(({ path }) => path === "/t.S/Hold");
    assert.equal(hold!.started, hold!.handled[1], "each has ended as cancelled");
  });

  test("ten thousand streams opened at once where a hundred are allowed: the others are refused, whatever they send", async () => {
    const strict = await TestServer.start({ clock, maxConcurrentStreams: 100 });
    strict.rpc.unary(ECHO, (call) => call.respond(call.message));
    strict.rpc.stream("/t.S/Stream", (call) => {
      call.onHalfClose = () => call.end();
    });
    try {
      const raw = await strict.connect();
      const small = [1, 2, 3].map(() => message("create a watch"));
      raw.write(
        ...ids(10_000).map((id) =>
          Buffer.concat([open(id, "/t.S/Stream"), ...small.map((bytes) => frame(FrameType.data, 0, id, bytes))]),
        ),
      );
      raw.write(...ids(100).map((id) => frame(FrameType.data, Flag.endStream, id)));
      await raw.ofStream(199);
      await alive(raw, 20_001);
      const resets = raw.frames.filter(({ type }) => type === FrameType.rstStream);
      assert.equal(resets.length, 9900);
      assert.ok(resets.every(({ payload }) => payload.readUInt32BE(0) === H2Error.refusedStream));
    } finally {
      await strict.stop();
    }
  });

  test("half of the calls cancelled as soon as they are made", async () => {
    const raw = await server.connect();
    raw.write(
      ...ids(10_000).map((id) =>
        (id & 2) === 0
          ? unaryCall(id, ECHO, "")
          : Buffer.concat([unaryCall(id, "/t.S/Hold", ""), frame(FrameType.rstStream, 0, id, uint32(H2Error.cancel))]),
      ),
    );
    await alive(raw, 20_001);
  });

  test("messages and resets in flight to five thousand streams that the server ends at once", async () => {
    endAll = [];
    const raw = await server.connect();
    const streams = ids(5000);
    raw.write(...streams.map((id) => open(id, "/t.S/Stream")));
    await alive(raw, 10_001);
    for (const end of endAll) end();
    raw.write(
      ...streams.map((id) =>
        Buffer.concat([
          ...[1, 2, 3].map(() => frame(FrameType.data, 0, id, message("create a watch"))),
          frame(FrameType.windowUpdate, 0, id, uint32(100)),
          frame(FrameType.rstStream, 0, id, uint32(H2Error.none)),
        ]),
      ),
    );
    await alive(raw, 10_003);
    assert.ok(!raw.frames.some(({ type, payload }) => type === FrameType.rstStream && payload.readUInt32BE(0) > 0));
  });

  test("a window full of small messages in flight to a stream that the server has ended", async () => {
    endAll = [];
    const raw = await server.connect();
    raw.write(open(1, "/t.S/Stream"));
    await alive(raw, 3);
    endAll[0]!();
    const bytes = message("keep a lease alive");
    raw.write(...Array.from({ length: 40_000 }, () => frame(FrameType.data, 0, 1, bytes)));
    await alive(raw, 5);
  });

  test("a client of grpc-js sends twenty thousand messages on a stream, and cancels three thousand calls", async () => {
    const client = server.client();
    const stream = client.stream("/t.S/Answer");
    let answers = 0;
    const all = new Promise<void>((resolve, reject) => {
      stream.on("error", reject);
      stream.on("data", () => {
        if (++answers === 20_000) resolve();
      });
    });
    for (let i = 0; i < 20_000; i++) stream.write(Buffer.from("one"));
    await all;
    const cancelled = Array.from({ length: 3000 }, () => {
      const each = client.stream("/t.S/Answer");
      each.on("error", () => {});
      each.write(Buffer.from("one"));
      return each;
    });
    await Promise.all(cancelled.map((each) => new Promise((resolve) => each.once("data", resolve))));
    for (const each of cancelled) each.cancel();
    stream.write(Buffer.from("one"));
    await new Promise((resolve) => stream.once("data", resolve));
    stream.on("error", () => {});
    stream.cancel();
    assert.deepEqual(server.rpc.stats.abuses, {});
  });

  test("the limit of open streams is announced, so that clients wait instead of being refused", async () => {
    const raw = await server.connect();
    const { payload } = await raw.frame(FrameType.settings);
    const pairs = Array.from({ length: payload.length / 6 }, (_, i) => [
      payload.readUInt16BE(6 * i),
      payload.readUInt32BE(6 * i + 2),
    ]);
    assert.deepEqual(pairs[0], [Setting.maxConcurrentStreams, STREAMS_MAX]);
  });
});

describe("silence", () => {
  test("a silent connection is cut off", async () => {
    const clock = new ManualClock();
    const server = await TestServer.start({ clock });
    const raw = await server.connectSilently();
    await eventually(() => clock.timers > 0, "the connection");
    clock.advance(30_000);
    await raw.ended();
    await server.stop();
  });

  test("a silent client is pinged and, when it does not answer, cut off", async () => {
    const clock = new ManualClock();
    const keepalive = { minTimeMs: 5000, permitWithoutStream: false, intervalMs: 60_000, timeoutMs: 20_000 };
    const server = await TestServer.start({ clock, keepalive });
    const raw = await server.connect();
    await raw.settled();
    clock.advance(60_000);
    const ping = await raw.frame(FrameType.ping);
    assert.equal(ping.payload.length, 8);
    const pings = (): number => raw.frames.filter((f) => f.type === FrameType.ping && f.flags === 0).length;
    raw.write(frame(FrameType.ping, Flag.ack, 0, ping.payload));
    const received = server.rpc.stats.bytesReceived;
    clock.advance(1);
    await eventually(() => server.rpc.stats.bytesReceived > received, "the answer");
    clock.advance(20_000);
    clock.advance(60_000);
    await raw.until(() => pings() === 2, "the second ping");
    clock.advance(20_000);
    await raw.ended();
    await server.stop();
  });

  test("pings at the allowed pace, or with replies between, are no flood", async () => {
    const clock = new ManualClock();
    const server = await TestServer.start({ clock });
    server.rpc.unary(ECHO, (call) => call.respond(call.message));
    const raw = await server.connect();
    raw.write(frame(FrameType.headers, Flag.endHeaders, 1, grpcHead(ECHO)));
    for (let i = 0; i < 10; i++) {
      await raw.settled();
      clock.advance(5000);
    }
    for (let id = 3; id < 30; id += 2) {
      raw.write(unaryCall(id, ECHO, ""));
      await raw.ofStream(id);
      await raw.settled();
    }
    await server.stop();
  });
});
