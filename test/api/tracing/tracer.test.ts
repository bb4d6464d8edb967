import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { encodeExport, OTLP_EXPORT_PATH } from "../../../src/api/tracing/otlp.ts";
import { readTraceParent, type Span } from "../../../src/api/tracing/span.ts";
import { Tracer } from "../../../src/api/tracing/tracer.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { Client } from "../../../src/client/client.ts";
import { TraceExporter } from "../../../src/programs/server/trace-exporter.ts";
import { KVService, PutRequest } from "../../../src/proto/etcdserverpb.ts";
import { RPC_DEFAULTS } from "../../../src/rpc/options.ts";
import { RpcServer } from "../../../src/rpc/server.ts";
import { slow } from "../../harness/fast.ts";
import { startInProcess } from "../../harness/in-process.ts";
import { MemoryLogger } from "../../harness/memory-logger.ts";
import { readMessage } from "../../harness/protobuf-fields.ts";
import { waitFor } from "../../harness/wait.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const PARENT = `00-${TRACE}-b7ad6b7169203331-01`;

async function traced(t: TestContext, samplingRatePerMillion: number) {
  const spans: Span[] = [];
  const options = { clock: systemClock, random: systemRandom, samplingRatePerMillion };
  const tracer = new Tracer({ ...options, sink: { add: (more) => void spans.push(...more) } });
  const server = await startInProcess({ server: { trace: tracer }, etcd: { tracer } });
  const client = new Client({ endpoints: server.url });
  t.after(async () => {
    client.close();
    await server.close();
  });
  return { spans, client };
}

async function put({ caller }: Client, headers: Record<string, string>): Promise<void> {
  const fields = Object.entries(headers);
  caller.headOf = (path) => ({ path, timeout: "", fields });
  const request = PutRequest.create({ key: Buffer.from("a"), value: Buffer.from("1") });
  await caller.unary(KVService.Put, request, "write", {}, () => undefined);
}

test("the way of a put is shown as spans inside of its call, which belongs to the caller's trace", async (t) => {
  const { spans, client } = await traced(t, 0);
  await client.put("b", "not sampled");
  await put(client, { traceparent: PARENT, tracestate: "vendor=1" });
  await waitFor("the spans", () => spans.length > 0);
  assert.deepEqual(
    spans.map(({ name }) => name),
    ["etcdserverpb.KV/Put", "put", "proposal", "log", "commit", "apply", "reply"],
  );
  const [call, operation, ...steps] = spans;
  assert.deepEqual(new Set(spans.map(({ traceId }) => traceId)), new Set([TRACE]));
  assert.deepEqual([call!.parentId, call!.state, call!.kind], ["b7ad6b7169203331", "vendor=1", "server"]);
  assert.equal(call!.attributes["rpc.grpc.status_code"], 0);
  assert.deepEqual([operation!.parentId, operation!.attributes], [call!.spanId, { key: "a" }]);
  for (const step of steps) {
    assert.equal(step.parentId, operation!.spanId);
    assert.ok(step.startMs >= call!.startMs - 0.01 && step.endMs <= call!.endMs + 0.01 && step.endMs >= step.startMs);
    assert.ok(Number(step.attributes["raft.index"]) > 0);
  }
});

test("calls without a decision of their caller are sampled by rate, and errors are told", async (t) => {
  const { spans, client } = await traced(t, 1_000_000);
  await client.get("a");
  await assert.rejects(client.put("a", "1", { lease: 77n }), /lease not found/);
  await waitFor("the spans of both", () => spans.some(({ name }) => name === "put"));
  const range = spans.find(({ name }) => name === "range")!;
  assert.equal(range.attributes["range_begin"], "a");
  const [, failed] = spans.filter(({ kind }) => kind === "server");
  assert.equal(failed!.attributes["rpc.grpc.status_code"], 5);
  const off = await traced(t, 0);
  await put(off.client, { traceparent: PARENT.replace(/01$/, "00") });
  assert.deepEqual(off.spans, []);
});

test("a traceparent that is none is ignored", () => {
  assert.deepEqual(readTraceParent(PARENT)?.isSampled, true);
  for (const text of [
    undefined,
    "",
    `${PARENT}-more`,
    PARENT.replace("00-", "ff-"),
    PARENT.toUpperCase(),
    PARENT.replace(TRACE, "0".repeat(32)),
    PARENT.replace("b7ad6b7169203331", "0".repeat(16)),
  ]) {
    assert.equal(readTraceParent(text), undefined, text);
  }
  assert.equal(readTraceParent(`${PARENT.replace("00-", "01-")}-more`)?.traceId, TRACE);
});

/** A collector: the requests of its Export calls. */
async function collector(t: TestContext) {
  const requests: Buffer[] = [];
  const rpc = new RpcServer({ ...RPC_DEFAULTS, clock: systemClock, logger: new MemoryLogger() });
  rpc.unary(OTLP_EXPORT_PATH, (call) => {
    requests.push(Buffer.from(call.message));
    call.respond(new Uint8Array());
  });
  const server = createServer((socket: Socket) => rpc.handleConnection(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(async () => {
    await rpc.close(0);
    server.close();
  });
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return { requests, address: `127.0.0.1:${address.port}` };
}

const SPAN: Span = {
  traceId: TRACE,
  spanId: "b7ad6b7169203331",
  parentId: "",
  state: "",
  name: "put",
  kind: "server",
  startMs: 1_700_000_000_000.25,
  endMs: 1_700_000_000_001,
  attributes: { key: "a", limit: 0, ok: false },
  error: "UNAVAILABLE",
};

test("spans reach a collector over gRPC, with the service's name and instance", async (t) => {
  const { requests, address } = await collector(t);
  const resource = { serviceName: "store", instanceId: "one", version: "3.7.1" };
  const exporter = new TraceExporter({ address, resource, clock: systemClock, logger: new MemoryLogger() });
  exporter.add([SPAN]);
  await exporter.close();
  assert.equal(requests.length, 1);
  assert.deepEqual(requests[0], encodeExport(resource, [SPAN]));
  const resourceSpans = readMessage(requests[0]!).message(1);
  const attributes = resourceSpans.message(1).messages(1);
  assert.deepEqual(
    attributes.map((each) => [each.text(1), each.message(2).text(1)]),
    [
      ["service.name", "store"],
      ["service.instance.id", "one"],
    ],
  );
  const span = resourceSpans.message(2).message(2);
  assert.equal(span.bytes(1).toString("hex"), TRACE);
  assert.equal(span.text(5), "put");
  assert.equal(span.number(6), 2);
  assert.equal(span.bytes(7).readBigUInt64LE(), 1_700_000_000_000_250_000n);
  assert.equal(span.messages(9).length, 3);
  assert.equal(span.message(15).number(3), 2);
});

test("what a collector that is away would get is bounded and dropped, and the log says so", slow, async () => {
  const logger = new MemoryLogger();
  const resource = { serviceName: "store", instanceId: "", version: "3.7.1" };
  const exporter = new TraceExporter({ address: "127.0.0.1:1", resource, clock: systemClock, logger });
  for (let i = 0; i < 4000; i++) exporter.add([SPAN]);
  assert.ok(logger.lines.some(({ message }) => /spans are dropped/.test(message)));
  await exporter.close();
});
