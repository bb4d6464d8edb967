// Slow: thousands of watches through a proxy.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Code } from "../../src/base/grpc-codes.ts";
import { RpcError } from "../../src/client/rpc-error.ts";
import {
  KVService,
  RangeRequest,
  WatchCreateRequest,
  WatchRequest,
  WatchResponse,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { Namespace } from "../../src/proxy/grpc/namespace.ts";
import { Upstream, type UpstreamLimits } from "../../src/proxy/grpc/upstream.ts";
import { type WatchLimits, WatchProxy } from "../../src/proxy/grpc/watch.ts";
import { WatchChecks } from "../../src/proxy/grpc/watch-checks.ts";
import type { StreamCall, StreamHandler, UnaryCall } from "../../src/rpc/contract.ts";
import { startInProcess } from "../harness/in-process.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";
import { waitFor } from "../harness/wait.ts";
import { clientOf, startProxy } from "./helpers.ts";

async function member(t: TestContext) {
  const server = await startInProcess();
  t.after(() => server.close());
  const client = clientOf(t, server.url);
  const reads = async (): Promise<number> => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    return Number(/^grpc_server_started_total\{grpc_method="Range".* (\d+)$/m.exec(text)?.[1] ?? 0);
  };
  const upstream = (limits?: UpstreamLimits) =>
    new Upstream(client.caller, new MemoryLogger(), 2 * 1024 * 1024, limits);
  return { server, client, reads, upstream };
}

/** A Watch call without a socket: what is sent to it, and what it sends. */
function watchCall(proxy: WatchProxy) {
  const responses: WatchResponse[] = [];
  let paused = 0;
  const call = {
    path: WatchService.Watch.path,
    cancelled: false,
    header: () => undefined,
    send(message: Uint8Array) {
      responses.push(WatchResponse.decode(Uint8Array.from(message)));
      return true;
    },
    pauseReading: () => void paused++,
    resumeReading: () => {},
    fail: () => {},
    end: () => {},
  } as unknown as StreamCall;
  let serve: StreamHandler | undefined;
  proxy.register({ unary: () => {}, stream: (_path, handler) => void (serve = handler) });
  serve!(call);
  return {
    responses,
    paused: () => paused,
    create: (fields: Partial<WatchCreateRequest>) =>
      call.onMessage!(WatchRequest.encode(WatchRequest.create({ createRequest: WatchCreateRequest.create(fields) }))),
    cancel: (watchId: number) =>
      call.onMessage!(WatchRequest.encode(WatchRequest.create({ cancelRequest: { watchId } }))),
    close: () => call.onCancel?.(),
  };
}

async function watches(t: TestContext, limits: WatchLimits) {
  const { upstream } = await member(t);
  const proxy = new WatchProxy({
    upstream: upstream(),
    namespace: new Namespace(""),
    logger: new MemoryLogger(),
    limits,
  });
  const call = watchCall(proxy);
  t.after(() => call.close());
  const answers = (count: number) => waitFor("the answers", () => call.responses.length >= count);
  return { proxy, ...call, answers };
}

const PLENTY = { ofStreamMax: 100, watchesMax: 100, rangeBytesMax: 1000 };

test("a stream of a proxy has so many watches, and another when one of them has ended", async (t) => {
  const { responses, create, cancel, answers } = await watches(t, { ...PLENTY, ofStreamMax: 2 });
  for (const key of ["a", "b", "c"]) create({ key: Buffer.from(key) });
  await answers(3);
  assert.deepEqual(
    responses.map(({ canceled }) => canceled),
    [false, false, true],
  );
  assert.match(responses[2]!.cancelReason, /cannot have more than 2 watchers: open another one/);
  cancel(0);
  create({ key: Buffer.from("c") });
  await answers(5);
  assert.equal(responses[4]!.canceled, false);
});

test("all streams of a proxy have so many watches, of so many bytes", async (t) => {
  const few = await watches(t, { ...PLENTY, watchesMax: 1 });
  few.create({ key: Buffer.from("a") });
  few.create({ key: Buffer.from("b") });
  await few.answers(2);
  assert.match(few.responses[1]!.cancelReason, /too many requests/);
  const short = await watches(t, { ...PLENTY, rangeBytesMax: 10 });
  short.create({ key: Buffer.alloc(11, "k") });
  short.create({ key: Buffer.alloc(10, "k") });
  await short.answers(2);
  assert.match(short.responses[0]!.cancelReason, /too many requests/);
  assert.equal(short.responses[1]!.canceled, false);
  assert.equal(short.proxy.rangeBytes, 10);
  short.close();
  assert.deepEqual([short.proxy.watches, short.proxy.rangeBytes], [0, 0]);
});

test("requests of a stream that wait are bounded in bytes too", async (t) => {
  const { create, paused, answers } = await watches(t, PLENTY);
  create({ key: Buffer.alloc(1024 * 1024, "k") });
  assert.equal(paused(), 1, "nothing more is read until it is answered");
  await answers(1);
});

test("a thousand clients that begin to watch a range together cost a few reads", async (t) => {
  const { server, reads } = await member(t);
  const { address } = await startProxy(t, "grpc-proxy", "start", `--endpoints=${server.url}`);
  const before = await reads();
  const client = clientOf(t, address);
  const all = Array.from({ length: 1000 }, () => client.watch("key"));
  await Promise.all(all.map((watch) => watch.ready));
  const cost = (await reads()) - before;
  for (const watch of all) watch.close();
  assert.ok(cost < 100, `${cost} reads`);
});

test("a check that is asked for while one is in flight sees the state after that", async (t) => {
  const { upstream, client } = await member(t);
  const checks = new WatchChecks(upstream());
  const span = { key: Buffer.from("a"), rangeEnd: new Uint8Array() };
  const first = checks.ask(span, undefined);
  const { revision } = await client.put("a", "1");
  const header = await checks.ask(span, undefined);
  assert.ok(header!.revision >= revision);
  await first;
});

test("a proxy has so many calls and bytes in flight to members, and refuses more at once", async (t) => {
  const { upstream } = await member(t);
  const limited = upstream({ callsMax: 1, bytesMax: 100 });
  const message = RangeRequest.encode(RangeRequest.create({ key: Buffer.from("a") }));
  const call = (bytes: Uint8Array) =>
    limited.send(
      { header: () => undefined, deadlineMs: Number.POSITIVE_INFINITY } as unknown as UnaryCall,
      KVService.Range,
      bytes,
      { safety: "read" },
    );
  const isRefused = (error: unknown) => error instanceof RpcError && error.code === Code.RESOURCE_EXHAUSTED;
  const first = call(message);
  await assert.rejects(call(message), isRefused);
  await first;
  await assert.rejects(call(RangeRequest.encode(RangeRequest.create({ key: Buffer.alloc(200) }))), isRefused);
  await call(message);
});

test("large events reach every watch of a range whole", async (t) => {
  const { server, client: direct } = await member(t);
  const { address } = await startProxy(t, "grpc-proxy", "start", `--endpoints=${server.url}`);
  const client = clientOf(t, address);
  const all = Array.from({ length: 5 }, () => client.watch("key"));
  await Promise.all(all.map((watch) => watch.ready));
  const value = "v".repeat(300_000);
  await direct.put("key", value);
  await direct.put("key", "small");
  for (const watch of all) {
    const seen: number[] = [];
    for await (const event of watch) {
      assert.ok(event.type === "put");
      seen.push(event.kv.value.length);
      if (seen.length === 2) break;
    }
    assert.deepEqual(seen, [300_000, 5]);
  }
});
