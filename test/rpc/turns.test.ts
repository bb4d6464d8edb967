/** No connection, however much it sends or loses at once, takes a whole turn of the event loop. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { StreamCall } from "../../src/rpc/contract.ts";
import { Flag, FrameType } from "../../src/rpc/protocol.ts";
import { dataFrames, eventually, frame, grpcHead, ManualClock, message, TestServer, unaryCall } from "./harness.ts";

/** Each such call costs a millisecond of the clock. */
const SLOW = "/t.S/Slow";

test("a socket read that holds hundreds of slow calls is handled in slices, and others are served in between", async () => {
  const clock = new ManualClock();
  const server = await TestServer.start({ clock });
  let slow = 0;
  let slowAtEcho = -1;
  server.rpc.unary(SLOW, (call) => {
    slow++;
    clock.advance(1);
    call.respond(call.message);
  });
  server.rpc.unary("/t.S/Echo", (call) => {
    slowAtEcho = slow;
    call.respond(call.message);
  });
  const greedy = await server.connect();
  const honest = await server.connect();
  await greedy.settled();
  await honest.settled();
  const calls = 400;
  greedy.write(Buffer.concat(Array.from({ length: calls }, (_, i) => unaryCall(2 * i + 1, SLOW, "x"))));
  await eventually(() => slow > 0, "the first");
  honest.write(unaryCall(1, "/t.S/Echo", "x"));
  await honest.ofStream(1);
  assert.ok(slowAtEcho < calls / 2, `${slowAtEcho} calls came before`);
  await greedy.ofStream(2 * calls - 1);
  assert.equal(slow, calls);
  await server.stop();
});

test("many connections with much input share a turn", async () => {
  const clock = new ManualClock();
  const server = await TestServer.start({ clock });
  let slow = 0;
  let mostInATurn = 0;
  let inThisTurn = 0;
  const watch = setInterval(() => {}, 1000);
  const turn = (): void => {
    mostInATurn = Math.max(mostInATurn, inThisTurn);
    inThisTurn = 0;
    if (slow < 40 * 50) setImmediate(turn);
  };
  server.rpc.unary(SLOW, (call) => {
    slow++;
    inThisTurn++;
    clock.advance(1);
    call.respond(call.message);
  });
  const raws = await Promise.all(Array.from({ length: 40 }, () => server.connect()));
  await Promise.all(raws.map((raw) => raw.settled()));
  setImmediate(turn);
  for (const raw of raws) {
    raw.write(Buffer.concat(Array.from({ length: 50 }, (_, i) => unaryCall(2 * i + 1, SLOW, "x"))));
  }
  await Promise.all(raws.map((raw) => raw.ofStream(99)));
  clearInterval(watch);
  assert.equal(slow, 40 * 50);
  // Eight milliseconds, a slice that had begun, and what comes between two reads of the clock; each call is one.
  assert.ok(mostInATurn <= 2 * (8 + 16), `${mostInATurn} in one turn`);
  await server.stop();
});

const MANY = 3000;

async function withManyStreams(deadline: string | undefined): Promise<{
  server: TestServer;
  clock: ManualClock;
  socketGone: () => void;
  /** Calls cancelled in each turn of the loop. */
  perTurn: number[];
}> {
  const clock = new ManualClock();
  const server = await TestServer.start({ clock });
  const calls: StreamCall[] = [];
  const perTurn: number[] = [];
  let cancelled = 0;
  server.rpc.stream("/t.S/Stream", (call) => {
    calls.push(call);
    call.onCancel = () => {
      if (cancelled++ === 0) {
        setImmediate(() => {
          perTurn.push(cancelled);
          cancelled = 0;
        });
      }
    };
  });
  const raw = await server.connect();
  const more = deadline === undefined ? [] : ([["grpc-timeout", deadline]] as const);
  const head = grpcHead("/t.S/Stream", more);
  raw.write(
    Buffer.concat(Array.from({ length: MANY }, (_, i) => frame(FrameType.headers, Flag.endHeaders, 2 * i + 1, head))),
  );
  await eventually(() => calls.length === MANY, "all streams");
  return { server, clock, socketGone: () => raw.socket.destroy(), perTurn };
}

const sum = (numbers: number[]): number => numbers.reduce((a, b) => a + b, 0);

test("the calls of a lost connection end a limited number at a time", async () => {
  const { server, socketGone, perTurn } = await withManyStreams(undefined);
  socketGone();
  await eventually(() => sum(perTurn) === MANY, "all ends");
  assert.ok(Math.max(...perTurn) <= 1000, `${perTurn}`);
  await server.stop();
});

test("deadlines that pass together are handled a limited number at a time", async () => {
  const { server, clock, perTurn } = await withManyStreams("1S");
  clock.advance(2000);
  await eventually(() => sum(perTurn) === MANY, "all ends");
  assert.ok(Math.max(...perTurn) <= 1000, `${perTurn}`);
  await server.stop();
});

test("a server that closes waits for the ends of all calls", async () => {
  const { server, clock, perTurn } = await withManyStreams(undefined);
  server.listener.close();
  const closed = server.rpc.close(0).then(() => server.rpc.stats.connections);
  clock.advance(1);
  assert.equal(await closed, 0);
  await eventually(() => sum(perTurn) === MANY, "all ends");
});

test("messages that waited for a paused reader are delivered in slices, in order", async () => {
  const clock = new ManualClock();
  const server = await TestServer.start({ clock });
  let stream: StreamCall | undefined;
  server.rpc.stream("/t.S/Stream", (call) => {
    stream = call;
    call.pauseReading();
  });
  const raw = await server.connect();
  const count = 500;
  const body = Buffer.concat(Array.from({ length: count }, (_, i) => message(String(i))));
  raw.write(frame(FrameType.headers, Flag.endHeaders, 1, grpcHead("/t.S/Stream")), dataFrames(1, body));
  await raw.settled();
  const got: string[] = [];
  let ended = false;
  stream!.onMessage = (bytes) => {
    got.push(Buffer.from(bytes).toString());
    clock.advance(1);
  };
  stream!.onHalfClose = () => {
    ended = true;
  };
  stream!.resumeReading();
  assert.ok(got.length < 50, `${got.length} in one turn`);
  await eventually(() => ended, "the end");
  assert.deepEqual(
    got,
    Array.from({ length: count }, (_, i) => String(i)),
  );
  await server.stop();
});
