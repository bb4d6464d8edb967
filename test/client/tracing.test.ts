/** Spans, with a provider as an SDK of OpenTelemetry registers it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Client } from "../../src/client/index.ts";
import { Etcd } from "../../src/embedded/index.ts";

const API = Symbol.for("opentelemetry.js.api.1");

interface Told {
  readonly name: string;
  readonly attributes: Record<string, unknown>;
  status: unknown;
  ends: number;
}

/** Registers a provider until the test is over, and gives its spans. */
function provider(after: (done: () => void) => void, traceId = "0af7651916cd43dd8448eb211c80319c"): Told[] {
  const spans: Told[] = [];
  const startSpan = (name: string, options: { kind: number; attributes: object }) => {
    const told: Told = { name, attributes: { kind: options.kind, ...options.attributes }, status: undefined, ends: 0 };
    spans.push(told);
    return {
      spanContext: () => ({ traceId, spanId: "b7ad6b7169203331", traceFlags: 1 }),
      setAttributes: (attributes: object) => void Object.assign(told.attributes, attributes),
      setStatus: (status: unknown) => void (told.status = status),
      end: () => void told.ends++,
    };
  };
  Reflect.set(globalThis, API, { version: "1.10.0", trace: { getTracer: () => ({ startSpan }) } });
  after(() => void Reflect.deleteProperty(globalThis, API));
  return spans;
}

test("each call is a span, with its outcome", async (t) => {
  const spans = provider((done) => t.after(done));
  await using etcd = await Etcd.start({ listen: false });
  const client = etcd.client();
  spans.length = 0;
  await client.put("a", "1");
  await assert.rejects(() => client.get("a", { revision: 99 }), /future revision/);
  await assert.rejects(() => client.get("a", { signal: AbortSignal.abort(new Error("not now")) }), /not now/);
  const call = (method: string, code: number, attempts: number) => ({
    kind: 2,
    "rpc.system": "grpc",
    "rpc.service": "etcdserverpb.KV",
    "rpc.method": method,
    "rpc.grpc.status_code": code,
    "kvorum.attempts": attempts,
    "server.address": "m1:2379",
  });
  assert.deepEqual(spans, [
    { name: "etcdserverpb.KV/Put", attributes: call("Put", 0, 1), status: undefined, ends: 1 },
    { name: "etcdserverpb.KV/Range", attributes: call("Range", 11, 1), status: { code: 2 }, ends: 1 },
  ]);
});

test("a span's id goes to the server with its call, and leaves the tables of headers as they are", async (t) => {
  const traces: unknown[] = [];
  const server = createServer((request, response) => {
    traces.push(request.headers["traceparent"]);
    request.resume();
    response.stream.respond(
      { ":status": 200, "content-type": "application/grpc", "grpc-status": "5" },
      { endStream: true },
    );
  });
  server.on("session", (session) => t.after(() => session.destroy()));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  await using client = new Client({
    endpoints: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    timeoutMs: 60_000,
  });
  const ask = () => assert.rejects(client.get("a"), { code: 5 });
  await ask();
  const ends: (() => void)[] = [];
  provider((done) => ends.push(done));
  await ask();
  await ask();
  for (const end of ends) end();
  await ask();
  provider((done) => t.after(done), "0".repeat(32));
  await ask();
  const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  assert.deepEqual(traces, [undefined, trace, trace, undefined, undefined]);
});
