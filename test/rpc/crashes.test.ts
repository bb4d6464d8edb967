/** An exception of a handler fails its call and nothing else. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type ServiceError, status } from "@grpc/grpc-js";
import { InvariantError } from "../../src/base/fatal.ts";
import { nullLogger } from "../../src/base/log.ts";
import type { StreamCall } from "../../src/rpc/contract.ts";
import { HeaderReader } from "../../src/rpc/header-reader.ts";
import { RPC_DEFAULTS } from "../../src/rpc/options.ts";
import { H2Error } from "../../src/rpc/protocol.ts";
import { RpcServer } from "../../src/rpc/server.ts";
import { eventually, type GrpcClient, ManualClock, reachedCall, TestServer, unaryCall } from "./harness.ts";

describe("a handler that throws", () => {
  const logged: { message: string; fields: Record<string, unknown> }[] = [];
  let server: TestServer;
  let client: GrpcClient;
  let stream: StreamCall | undefined;
  let willThrow = false;

  before(async () => {
    const logger = {
      ...nullLogger,
      error: (message: string, fields: Record<string, unknown> = {}) => void logged.push({ message, fields }),
    };
    server = await TestServer.start({ logger });
    const { rpc } = server;
    rpc.unary("/t.S/Echo", (call) => call.respond(call.message));
    rpc.unary("/t.S/Throw", (call) => {
      throw new TypeError(`no good: ${call.message}`);
    });
    rpc.unary("/t.S/ThrowOnCancel", (call) => {
      willThrow = true;
      call.onCancel = () => {
        throw new TypeError("in onCancel");
      };
    });
    rpc.unary("/t.S/Twice", (call) => {
      call.respond(call.message);
      call.respond(call.message);
    });
    rpc.stream("/t.S/ThrowStream", () => {
      throw new TypeError("no stream");
    });
    rpc.stream("/t.S/Stream", (call) => {
      stream = call;
    });
    client = server.client();
  });
  after(() => server.stop());

  const failure = (promise: Promise<unknown>): Promise<ServiceError> =>
    promise.then(
      () => assert.fail("the call did not fail"),
      (error: ServiceError) => error,
    );
  const isServed = async (): Promise<void> => {
    assert.equal((await client.call("/t.S/Echo", Buffer.from("still here"))).toString(), "still here");
  };

  test("fails its call with INTERNAL; the connection and others continue", async () => {
    const error = await failure(client.call("/t.S/Throw", Buffer.from("1")));
    assert.equal(error.code, status.INTERNAL);
    assert.match(error.details, /its log has the reason/);
    await isServed();
  });

  test("is logged with its stack, and then no more than once a minute, whatever its text says", async () => {
    logged.length = 0;
    const crashes = server.rpc.stats.crashes;
    for (let i = 0; i < 10; i++) await failure(client.call("/t.S/Throw", Buffer.from(`other text ${i}`)));
    assert.ok(logged.length <= 1, `${logged.length} lines`);
    assert.equal(server.rpc.stats.crashes, crashes + 10);
  });

  test("in onCancel is logged", async () => {
    const crashes = server.rpc.stats.crashes;
    willThrow = false;
    const { outcome } = await reachedCall(
      (deadlineMs) => failure(client.call("/t.S/ThrowOnCancel", Buffer.from("x"), undefined, deadlineMs)),
      () => willThrow,
    );
    await outcome;
    await eventually(() => server.rpc.stats.crashes === crashes + 1, "the report");
    await isServed();
  });

  test("after its answer, or answers twice, is logged: the client has the first answer", async () => {
    const crashes = server.rpc.stats.crashes;
    assert.equal((await client.call("/t.S/Twice", Buffer.from("x"))).toString(), "x");
    assert.equal(server.rpc.stats.crashes, crashes + 1);
  });

  for (const where of ["onMessage", "onHalfClose", "onDrain"] as const) {
    test(`in ${where} of a stream fails the stream, and is notified of its end once`, async () => {
      stream = undefined;
      const out = client.stream("/t.S/Stream");
      const ended = new Promise<ServiceError>((resolve) => out.on("error", resolve));
      out.on("data", () => {});
      await eventually(() => stream !== undefined, "the call");
      let cancels = 0;
      stream!.onCancel = () => cancels++;
      stream![where] = () => {
        throw new TypeError(`in ${where}`);
      };
      if (where === "onDrain") while (stream!.send(Buffer.alloc(200_000)));
      else {
        out.write(Buffer.from("x"));
        out.end();
      }
      assert.equal((await ended).code, status.INTERNAL);
      assert.equal(cancels, 1);
      await isServed();
    });
  }

  test("is no handler but the connection's own code: that connection ends, and no other", async () => {
    const raw = await server.connect();
    await raw.settled();
    const crashes = server.rpc.stats.crashes;
    const { request } = HeaderReader.prototype;
    HeaderReader.prototype.request = () => {
      throw new TypeError("a mistake in the reader");
    };
    raw.write(unaryCall(1, "/t.S/Echo", "x"));
    try {
      assert.equal((await raw.goaway()).code, H2Error.internal);
    } finally {
      HeaderReader.prototype.request = request;
    }
    await raw.ended();
    assert.equal(server.rpc.stats.crashes, crashes + 1);
    await isServed();
  });

  test("when its stream opens fails the stream", async () => {
    const out = client.stream("/t.S/ThrowStream");
    const ended = new Promise<ServiceError>((resolve) => out.on("error", resolve));
    assert.equal((await ended).code, status.INTERNAL);
    await isServed();
  });
});

test("a broken invariant is not a failed call: it is rethrown", () => {
  const rpc = new RpcServer({ ...RPC_DEFAULTS, clock: new ManualClock(), logger: nullLogger });
  assert.throws(() => rpc.crashed("/t.S/X", new InvariantError("broken")), /broken/);
  assert.equal(rpc.stats.crashes, 0);
});
