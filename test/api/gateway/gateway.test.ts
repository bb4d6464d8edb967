// Slow: bodies up to the limit of what they may hold together.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import * as http2 from "node:http2";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import { encodeString } from "../../../src/api/gateway/encode.ts";
import { systemDisk } from "../../../src/base/disk.ts";
import { checkBolt } from "../../../src/bolt/check.ts";
import { BoltReader } from "../../../src/bolt/reader.ts";
import { verifySnapshotFile } from "../../../src/bolt/snapshot-file.ts";
import { KVService, MaintenanceService } from "../../../src/proto/etcdserverpb.ts";
import { hashKvOf } from "../../../src/utl/kv-hash.ts";
import { type InProcess, startInProcess, tempDir } from "../../harness/in-process.ts";
import { waitFor } from "../../harness/wait.ts";

/** The hash of what a backup holds, whose checksum and pages are in order. */
function stateOf(t: TestContext, backup: readonly Uint8Array[]) {
  const dir = tempDir();
  t.after(() => dir.remove());
  const path = join(dir.path, "db");
  writeFileSync(path, Buffer.concat(backup));
  verifySnapshotFile(systemDisk, path);
  const reader = new BoltReader({ disk: systemDisk, path });
  t.after(() => reader.close());
  assert.deepEqual([...checkBolt(reader)], []);
  return hashKvOf(reader, 0);
}

const base64 = (text: string): string => Buffer.from(text).toString("base64");

describe("the JSON gateway", () => {
  let server: InProcess;
  before(async () => {
    server = await startInProcess();
  });
  after(async () => {
    await server.close();
    assert.deepEqual(server.failures, []);
  });

  const post = (path: string, body: unknown, init: RequestInit = {}): Promise<Response> =>
    fetch(server.url + path, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
    });
  const ask = async (path: string, body: unknown, init: RequestInit = {}): Promise<[number, unknown]> => {
    const response = await post(path, body, init);
    return [response.status, await response.json()];
  };

  test("writes and reads through the same store as gRPC", async () => {
    await post("/v3/kv/put", { key: base64("same"), value: base64("v1") });
    const { kvs } = await server.client.unary(KVService.Range, { key: Buffer.from("same") });
    assert.equal(Buffer.from(kvs[0]!.value).toString(), "v1");
    const [status, answer] = await ask("/v3/kv/range", { key: base64("same") });
    assert.equal(status, 200);
    const [kv] = (answer as { kvs: Record<string, string>[] }).kvs;
    assert.equal(kv!["value"], base64("v1"));
    assert.equal(kv!["version"], "1", "64-bit integers are strings");
    assert.deepEqual(Object.keys(kv!), ["key", "create_revision", "mod_revision", "version", "value"]);
  });

  test("accepts field names in both spellings, and omits default values", async () => {
    const snake = await ask("/v3/kv/range", { key: base64("a"), range_end: base64("zz"), count_only: true });
    const camel = await ask("/v3/kv/range", { key: base64("a"), rangeEnd: base64("zz"), countOnly: true });
    assert.deepEqual(camel, snake);
    assert.equal("kvs" in (snake[1] as object), false);
  });

  test("answers errors with their gRPC code and its HTTP status", async () => {
    assert.deepEqual(await ask("/v3/kv/put", {}), [400, { code: 3, message: "etcdserver: key is not provided" }]);
    assert.deepEqual(await ask("/v3/lease/revoke", { ID: "404" }), [
      404,
      { code: 5, message: "etcdserver: requested lease not found" },
    ]);
    assert.deepEqual(await ask("/v3/kv/range", { key: base64("a"), revision: "1000000" }), [
      400,
      { code: 11, message: "etcdserver: mvcc: required revision is a future revision" },
    ]);
  });

  test("says what is wrong with a malformed request, and ignores unknown fields", async () => {
    assert.deepEqual(await ask("/v3/kv/range", '{"key":'), [400, { code: 3, message: "unexpected EOF" }]);
    assert.deepEqual(await ask("/v3/kv/range", '{"key":5}'), [
      400,
      { code: 3, message: "proto: (line 1:8): invalid value for bytes field key: 5" },
    ]);
    assert.equal((await ask("/v3/kv/range", { key: base64("a"), new: [1] }))[0], 200);
  });

  test("refuses texts that are nested too deeply, without ending the server", async () => {
    const deep = `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`;
    assert.deepEqual(await ask("/v3/kv/range", deep), [400, { code: 3, message: "exceeded max depth" }]);
    const txn = `${'{"success":[{"request_txn":'.repeat(300)}{}${"}]}".repeat(300)}`;
    assert.deepEqual(await ask("/v3/kv/txn", txn), [400, { code: 3, message: "proto: exceeded max recursion depth" }]);
  });

  test("answers other methods with 501 and other paths with 404, as etcd does", async () => {
    assert.deepEqual(await ask("/v3/kv/nope", {}), [404, { code: 5, message: "Not Found" }]);
    const response = await fetch(`${server.url}/v3/kv/range`);
    assert.equal(response.status, 501);
    assert.deepEqual(await response.json(), { code: 12, message: "Method Not Allowed" });
  });

  test("keeps the whole value of a 64-bit lease id", async () => {
    const id = "9223372036854775807";
    const [, granted] = await ask("/v3/lease/grant", { ID: id, TTL: 100 });
    assert.equal((granted as { ID: string }).ID, id);
    const [, again] = await ask("/v3/lease/timetolive", `{"ID":${id}}`);
    assert.equal((again as { ID: string }).ID, id);
  });

  test("streams watch events as they happen, one result per line", async () => {
    const controller = new AbortController();
    const response = await post(
      "/v3/watch",
      { create_request: { key: base64("w"), range_end: base64("x"), filters: ["NODELETE"] } },
      { signal: controller.signal },
    );
    assert.equal(response.headers.get("content-type"), "application/json");
    const lines = linesOf(response);
    assert.equal((await lines.next()).value.result.created, true);
    await post("/v3/kv/put", { key: base64("w1"), value: base64("one") });
    const { events } = (await lines.next()).value.result as { events: { kv: { value: string } }[] };
    assert.equal(events[0]!.kv.value, base64("one"));
    controller.abort();
    await waitFor("the watcher goes with its client", () => server.etcd.server.watchHub.watcherCount === 0);
  });

  test("ends a stream of requests at the first malformed one, and serves those before it", async () => {
    const text = await (await post("/v3/lease/keepalive", '{"ID":"404"}{"ID":"<"}{"ID":"405"}')).text();
    assert.equal(text.trimEnd().split("\n").length, 1);
  });

  test("escapes <, > and & in the pieces of a stream but not in a single answer", async () => {
    assert.ok((await (await post("/v3/kv/range", { key: "<&>" })).text()).includes("<&>"));
    assert.equal(encodeString("<&>\u2028é\n", "stream"), '"\\u003c\\u0026\\u003e\\u2028é\\n"');
  });

  test("renews leases from several requests in one body", async () => {
    await post("/v3/lease/grant", { ID: "31", TTL: "100" });
    const text = await (await post("/v3/lease/keepalive", '{"ID":"31"}\n{"ID":"32"}')).text();
    const [first, second] = text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).result);
    assert.equal(first.TTL, "100");
    assert.equal("TTL" in second, false, "an unknown lease has no time to live");
  });

  test("streams the same backup as gRPC", async (t) => {
    await post("/v3/kv/put", { key: base64("kept"), value: base64("v") });
    const overHttp: Buffer[] = [];
    for await (const line of linesOf(await post("/v3/maintenance/snapshot", {}))) {
      overHttp.push(Buffer.from(line.result.blob, "base64"));
    }
    const overGrpc: Uint8Array[] = [];
    const stream = server.client.stream(MaintenanceService.Snapshot);
    await stream.send({});
    stream.end();
    for await (const { blob } of stream) overGrpc.push(blob);
    // The state is the same; where its pages lie may have changed in between.
    const [http, grpc] = [stateOf(t, overHttp), stateOf(t, overGrpc)];
    assert.ok(http.hash !== 0 && http.revision > 1);
    assert.deepEqual(http, grpc);
  });

  test("ends a call when its deadline passes or its client disconnects", async () => {
    await post("/v3/lock/lock", { name: base64("held") });
    assert.deepEqual(await ask("/v3/lock/lock", { name: base64("held") }, { headers: { "grpc-timeout": "50m" } }), [
      504,
      { code: 4, message: "context deadline exceeded" },
    ]);
    const controller = new AbortController();
    const waiting = post("/v3/lock/lock", { name: base64("held") }, { signal: controller.signal });
    const keys = async (): Promise<number> =>
      (await server.client.unary(KVService.Range, { key: Buffer.from("held/"), rangeEnd: Buffer.from("held0") })).count;
    await waitFor("two in the queue", async () => (await keys()) === 2);
    controller.abort();
    await assert.rejects(waiting, { name: "AbortError" });
    await waitFor("the one that left is out of the queue", async () => (await keys()) === 1);
  });

  test("passes grpc-metadata headers on to the handler", async () => {
    const [status] = await ask(
      "/v3/kv/range",
      { key: base64("a") },
      { headers: { "grpc-metadata-hasleader": "true" } },
    );
    assert.equal(status, 200);
  });

  test("refuses a message larger than gRPC would accept, whatever its size, and reports the size it would have", async () => {
    for (const bytes of [2_200_000, 4_000_000, 16_000_000]) {
      const value = Buffer.alloc(bytes).toString("base64");
      const [status, answer] = await ask("/v3/kv/put", { key: base64("big"), value });
      assert.equal(status, 429);
      const message = `grpc: received message larger than max (${bytes + 10} vs. 2097152)`;
      assert.deepEqual(answer, { code: 8, message });
    }
  });

  test("stops reading a body that never completes a message", async () => {
    const endless = new ReadableStream({
      pull(controller) {
        controller.enqueue(Buffer.alloc(1 << 20, " "));
      },
    });
    const body = { method: "POST", body: endless, duplex: "half" } as RequestInit;
    const response = await fetch(`${server.url}/v3/kv/put`, body).catch(() => undefined);
    assert.ok(response === undefined || response.status === 429);
  });

  test("stops a snapshot at a client that does not read, and continues when it does", async () => {
    for (let i = 0; i < 20; i++) {
      await server.client.unary(KVService.Put, { key: Buffer.from(`bulk${i}`), value: Buffer.alloc(1_000_000, i) });
    }
    const response = await post("/v3/maintenance/snapshot", {});
    let bytes = 0;
    for await (const line of linesOf(response)) bytes += Buffer.from(line.result.blob, "base64").length;
    assert.ok(bytes > 20_000_000);
    assert.equal(bytes % 512, 32, "a database and its sha256");
  });

  test("counts its calls with those of gRPC", async () => {
    const started = (): number => [...methods()].find(({ path }) => path === KVService.Range.path)!.started;
    const methods = (): Iterable<{ path: string; started: number }> => metricsOf(page);
    let page = await (await fetch(`${server.url}/metrics`)).text();
    const before = started();
    await post("/v3/kv/range", { key: base64("a") });
    page = await (await fetch(`${server.url}/metrics`)).text();
    assert.equal(started(), before + 1);
  });

  test("is served over HTTP/2 too", async () => {
    const session = http2.connect(server.url);
    try {
      const put = await h2(session, "/v3/kv/put", { key: base64("h2"), value: base64("v") });
      assert.equal(put.status, 200);
      const { status, body } = await h2(session, "/v3/kv/range", { key: base64("h2") });
      assert.equal(status, 200);
      assert.equal(JSON.parse(body).kvs[0].value, base64("v"));
      const stream = session.request({ ":method": "POST", ":path": "/v3/watch" });
      stream.end(JSON.stringify({ create_request: { key: base64("h2") } }));
      let text = "";
      stream.on("data", (part) => {
        text += part;
      });
      await waitFor("created", () => text.includes('"created":true'));
      stream.close(http2.constants.NGHTTP2_CANCEL);
      await waitFor("the watcher goes with its stream", () => server.etcd.server.watchHub.watcherCount === 0);
    } finally {
      session.close();
    }
  });
});

test("the gateway is disabled unless enabled, and never on the metrics listeners", async () => {
  const listenMetrics = [{ kind: "tcp", host: "127.0.0.1", port: 0, url: "" }] as const;
  const server = await startInProcess({ etcd: { enableGrpcGateway: false, listenMetrics } });
  try {
    const range = (url: string): Promise<Response> => fetch(`${url}/v3/kv/range`, { method: "POST", body: "{}" });
    assert.equal((await range(server.url)).status, 404);
    const enabled = await startInProcess({ etcd: { listenMetrics } });
    try {
      const metrics = enabled.etcd.metricsAddresses[0]!;
      assert.equal((await fetch(`${metrics}/health`)).status, 200);
      assert.equal((await fetch(`${metrics}/metrics`)).status, 200);
      assert.notEqual((await range(metrics)).status, 400);
      assert.equal((await fetch(`${metrics}/v3/kv/range`)).status, 404);
    } finally {
      await enabled.close();
    }
  } finally {
    await server.close();
  }
});

// biome-ignore lint/suspicious/noExplicitAny: an answer is whatever it is; the tests say what it must be.
async function* linesOf(response: Response): AsyncGenerator<any, any, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const part of response.body!) {
    const lines = (rest + decoder.decode(part, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) yield JSON.parse(line);
  }
}

function* metricsOf(page: string): Iterable<{ path: string; started: number }> {
  const pattern = /^grpc_server_started_total\{grpc_method="(\w+)",grpc_service="([\w.]+)",grpc_type="\w+"\} (\d+)$/gm;
  for (const [, method, service, count] of page.matchAll(pattern)) {
    yield { path: `/${service}/${method}`, started: Number(count) };
  }
}

function h2(session: http2.ClientHttp2Session, path: string, body: object): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/json" });
    let status = 0;
    let text = "";
    stream.on("response", (headers) => {
      status = Number(headers[":status"]);
    });
    stream.on("data", (part) => {
      text += part;
    });
    stream.on("end", () => resolve({ status, body: text }));
    stream.on("error", reject);
    stream.end(JSON.stringify(body));
  });
}
