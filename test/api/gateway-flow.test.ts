import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Access } from "../../src/api/calls/access.ts";
import { gatewayHandler } from "../../src/api/gateway/gateway.ts";
import type { BodyReader } from "../../src/api/http/body.ts";
import type { HttpRequest, HttpResponse, HttpSink } from "../../src/api/http/contract.ts";
import { parseTarget } from "../../src/api/http/paths.ts";
import { systemClock } from "../../src/base/clock.ts";
import { TURNS_DEFAULTS, Turns } from "../../src/base/turns.ts";
import { LeaseKeepAliveResponse, PutRequest, RangeResponse } from "../../src/proto/etcdserverpb.ts";
import { KeyValue } from "../../src/proto/mvccpb.ts";
import type { RpcSocket, StreamCall, UnaryCall } from "../../src/rpc/contract.ts";
import { RPC_DEFAULTS } from "../../src/rpc/options.ts";
import { RpcServer } from "../../src/rpc/server.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";
import { waitFor } from "../harness/wait.ts";

const RANGE = "/etcdserverpb.KV/Range";
const PUT = "/etcdserverpb.KV/Put";
const KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive";

/** A request to the gateway whose body is sent, and whose answer is read, by the test. */
class Exchange {
  readonly request: HttpRequest;
  readonly response: Promise<HttpResponse>;
  readonly written: string[] = [];
  held = false;
  ended = false;
  aborted = false;
  /** Pauses until `drain`. */
  full = false;
  #reader: BodyReader | undefined;
  #sink: HttpSink | undefined;

  constructor(gateway: (request: HttpRequest) => Promise<HttpResponse> | undefined, path: string) {
    const target = parseTarget(path)!;
    const body = {
      isComplete: false,
      read: (reader: BodyReader): void => {
        this.#reader = reader;
      },
      pause: (): void => {
        this.held = true;
      },
      resume: (): void => {
        this.held = false;
      },
    };
    const socket = {} as RpcSocket;
    const query = new URLSearchParams();
    this.request = { method: "POST", target, path, query, headers: {}, body, socket, cancelled: false, onCancel: null };
    this.response = gateway(this.request)!;
    void this.response.then(({ body }) => {
      if (typeof body !== "function") return;
      this.#sink = {
        write: (text) => {
          assert.ok(!this.full, "written to a sink that is full");
          this.written.push(text);
          this.full = this.fillsUp;
          return !this.full;
        },
        end: () => {
          this.ended = true;
        },
        abort: () => {
          this.aborted = true;
        },
        onDrain: null,
      };
      body(this.#sink);
    });
  }

  fillsUp = false;

  async send(...pieces: (string | Buffer)[]): Promise<void> {
    await waitFor("the body is read", () => this.#reader !== undefined);
    for (const piece of pieces) this.#reader!.piece(Buffer.from(piece as string));
  }

  async end(...pieces: (string | Buffer)[]): Promise<void> {
    await this.send(...pieces);
    this.#reader!.end();
  }

  drain(): void {
    this.full = false;
    this.#sink!.onDrain?.();
  }

  get text(): string {
    return this.written.join("");
  }
}

function setUp(maxMessageBytes = 2 * 1024 * 1024): {
  rpc: RpcServer;
  turns: Turns;
  logger: MemoryLogger;
  open(path: string): Exchange;
} {
  const logger = new MemoryLogger();
  const clock = systemClock;
  const rpc = new RpcServer({ ...RPC_DEFAULTS, clock, logger });
  const turns = new Turns({ ...TURNS_DEFAULTS, clock });
  const access = { ignoresCertificateOf: () => false } as unknown as Access;
  const gateway = gatewayHandler({ rpc, access, clock, turns, logger, maxMessageBytes });
  return { rpc, turns, logger, open: (path) => new Exchange(gateway, path) };
}

/** A response of about this many bytes. */
const largeRange = (bytes: number): Buffer =>
  RangeResponse.encode(
    RangeResponse.create({
      kvs: Array.from({ length: 10 }, (_, i) =>
        KeyValue.create({ key: Buffer.from(`k${i}`), value: Buffer.alloc(bytes / 10, i) }),
      ),
      count: 10,
    }),
  );

const jsonOf = (bytes: number): unknown => ({
  kvs: Array.from({ length: 10 }, (_, i) => ({
    key: Buffer.from(`k${i}`).toString("base64"),
    value: Buffer.alloc(bytes / 10, i).toString("base64"),
  })),
  count: "10",
});

describe("data flow through the JSON gateway", () => {
  test("a large answer is sent in slices, each when the client has read the previous one", async () => {
    const { rpc, open } = setUp();
    rpc.unary(RANGE, (call) => {
      const bytes = largeRange(5_000_000);
      call.respondOwned(bytes, 0, bytes.length);
    });
    const exchange = open("/v3/kv/range");
    exchange.fillsUp = true;
    await exchange.end("{}");
    const { status } = await exchange.response;
    assert.equal(status, 200);
    for (let i = 1; !exchange.ended; i++) {
      await waitFor("the next slice", () => exchange.written.length === i || exchange.ended);
      if (!exchange.ended) exchange.drain();
    }
    assert.ok(exchange.written.every(({ length }) => length < 100_000));
    assert.deepEqual(JSON.parse(exchange.text), jsonOf(5_000_000));
  });

  test("an answer that its handler sends in pieces waits for the client, and is cut off with its call", async () => {
    const { rpc, open } = setUp();
    let call: UnaryCall | undefined;
    rpc.unary(RANGE, (each) => {
      call = each;
    });
    const bytes = largeRange(500_000);
    const exchange = open("/v3/kv/range");
    await exchange.end("");
    assert.ok(call!.respondInPieces(bytes.length));
    let at = 0;
    const piece = (): boolean => call!.writePiece(bytes.subarray(at, (at += 60_000)));
    let drained = 0;
    call!.onDrain = () => {
      drained++;
    };
    assert.equal(piece(), false, "nothing is taken before the answer has begun");
    await waitFor("the answer begins", () => drained === 1);
    exchange.fillsUp = true;
    assert.equal(piece(), false);
    exchange.drain();
    assert.equal(drained, 2);
    exchange.fillsUp = false;
    while (at < bytes.length) piece();
    assert.ok(exchange.ended);
    assert.deepEqual(JSON.parse(exchange.text), jsonOf(500_000));

    const cut = open("/v3/kv/range");
    await cut.end("");
    call!.respondInPieces(0);
    call!.writePiece(bytes.subarray(0, 60_000));
    await cut.response;
    call!.fail(13, "the rest cannot be read");
    assert.ok(cut.aborted && !cut.ended);
  });

  test("a message of a stream may come in pieces, between others", async () => {
    const { rpc, open } = setUp();
    let call: StreamCall | undefined;
    rpc.stream("/etcdserverpb.Watch/Watch", (each) => {
      call = each;
    });
    const exchange = open("/v3/watch");
    await exchange.send("");
    const progress = Buffer.from([0x10, 7]);
    call!.send(progress);
    await exchange.response;
    call!.beginMessage(4);
    call!.writePiece(Buffer.from([0x10]));
    call!.writePiece(Buffer.from([8, 0x18, 1]));
    call!.send(progress);
    call!.end();
    const [first, second, third] = exchange.text.split("\n");
    assert.equal(first, '{"result":{"watch_id":"7"}}');
    assert.equal(second, '{"result":{"watch_id":"8","created":true}}');
    assert.equal(third, first);
    assert.ok(exchange.ended);
  });

  test("a large body is read in slices, in turn with other requests", async () => {
    const { rpc, turns, open } = setUp();
    let value: Uint8Array | undefined;
    rpc.unary(PUT, (call) => {
      value = PutRequest.decode(call.message).value;
      call.respond(Buffer.alloc(0));
    });
    const bytes = Buffer.alloc(1_000_000, "value");
    const exchange = open("/v3/kv/put");
    await exchange.end(JSON.stringify({ key: "aw==", value: bytes.toString("base64") }));
    assert.equal(value, undefined);
    assert.ok(exchange.held, "who sends so much ahead is held back");
    assert.deepEqual(await exchange.response.then(({ status, body }) => [status, body]), [200, "{}"]);
    assert.ok(bytes.equals(value!));
    assert.ok(turns.slices >= 20);
    assert.ok(!exchange.held);
  });

  test("all bodies together hold a bounded amount: the oldest large one is dropped", async () => {
    const { rpc, turns, open } = setUp(30_000_000);
    rpc.unary(PUT, (call) => call.respond(Buffer.alloc(0)));
    const start = `{"value":"${"A".repeat(33_000_000)}`;
    const exchanges = [open("/v3/kv/put"), open("/v3/kv/put"), open("/v3/kv/put")];
    const small = open("/v3/kv/put");
    await small.send(`{"key":`);
    for (const exchange of exchanges) {
      await exchange.send(start);
      await waitFor("it is read", () => turns.active + turns.waiting === 0);
    }
    const { status, body } = await exchanges[0]!.response;
    assert.equal(status, 429);
    assert.match(String(body), /"code":8,"message":"etcdserver: too many requests/);
    for (const exchange of [small, ...exchanges.slice(1)]) await exchange.end(exchange === small ? '"aw=="}' : '"}');
    for (const exchange of [small, ...exchanges.slice(1)]) assert.equal((await exchange.response).status, 200);
  });

  test("messages of a stream are delivered as they arrive, and wait while their handler is paused", async () => {
    const { rpc, open } = setUp();
    let call: StreamCall | undefined;
    let messages = 0;
    let halfClosed = false;
    rpc.stream(KEEP_ALIVE, (each) => {
      call = each;
      each.onMessage = () => {
        messages++;
      };
      each.onHalfClose = () => {
        halfClosed = true;
        each.end();
      };
    });
    const exchange = open("/v3/lease/keepalive");
    await exchange.send('{"ID":1}{"I');
    assert.equal(messages, 1);
    call!.send(LeaseKeepAliveResponse.encode(LeaseKeepAliveResponse.create({ id: 1n })));
    assert.equal((await exchange.response).status, 200, "it answers before the body is complete");
    call!.pauseReading();
    await exchange.send('D":2}{"ID":3}');
    assert.equal(messages, 1);
    assert.ok(exchange.held);
    call!.resumeReading();
    assert.equal(messages, 3);
    assert.ok(!exchange.held);
    await exchange.end("");
    assert.ok(halfClosed && exchange.ended);
  });

  test("a handler's exception fails its own request", async () => {
    const { rpc, open } = setUp();
    rpc.unary(RANGE, () => {
      throw new Error("a mistake");
    });
    rpc.unary(PUT, (call) => {
      // No RangeResponse begins like this.
      call.respond(Buffer.from([0xff, 0xff]));
    });
    for (const path of ["/v3/kv/range", "/v3/kv/put"]) {
      const exchange = open(path);
      await exchange.end("{}");
      const { status, body } = await exchange.response;
      assert.equal(status, 500);
      assert.match(String(body), /^\{"code":13,"message":"/);
    }
  });

  test("a client that disconnects ends its call, at any stage", async () => {
    const { rpc, open } = setUp();
    let cancelled = 0;
    rpc.unary(RANGE, (call) => {
      call.onCancel = () => {
        cancelled++;
      };
    });
    const begun = open("/v3/kv/range");
    await begun.end("{}");
    const unfinished = open("/v3/kv/range");
    await unfinished.send("{");
    for (const { request } of [begun, unfinished]) {
      request.cancelled = true;
      request.onCancel!();
    }
    assert.equal(cancelled, 1);
    await Promise.all([begun.response, unfinished.response]);
  });
});
