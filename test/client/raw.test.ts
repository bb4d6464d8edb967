import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { connect, RpcError } from "../../src/client/raw.ts";
import {
  KVService,
  MaintenanceService,
  WatchCancelRequest,
  WatchCreateRequest,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { ourEtcd } from "../harness/programs.ts";
import { freePorts, type Server, startServer } from "../harness/server.ts";

const key = Buffer.from("a");

describe("a raw connection", () => {
  let server: Server;
  before(async () => {
    server = await startServer(ourEtcd());
  });
  after(() => server.close());

  test("carries a request and its response", async () => {
    await server.client.unary(KVService.Put, { key, value: Buffer.from("b") });
    const { kvs, header } = await server.client.unary(KVService.Range, { key });
    assert.equal(kvs[0]?.value.toString(), "b");
    assert.equal(typeof header?.clusterId, "bigint");
  });

  test("rejects with the server's code and text", async () => {
    await assert.rejects(server.client.unary(KVService.Put, {}), (error: RpcError) => {
      assert.ok(error instanceof RpcError);
      assert.equal(error.code, 3);
      assert.equal(error.details, "etcdserver: key is not provided");
      assert.equal(error.message, "rpc error: code = InvalidArgument desc = etcdserver: key is not provided");
      return true;
    });
  });

  test("streams in both directions until it is cancelled", async () => {
    const stream = server.client.stream(WatchService.Watch);
    await stream.send({ createRequest: WatchCreateRequest.create({ key }) });
    const responses = stream[Symbol.asyncIterator]();
    const created = (await responses.next()).value!;
    assert.equal(created.created, true);
    await server.client.unary(KVService.Put, { key });
    assert.equal((await responses.next()).value!.events.length, 1);
    await stream.send({ cancelRequest: WatchCancelRequest.create({ watchId: created.watchId }) });
    assert.equal((await responses.next()).value!.canceled, true);
    stream.cancel();
    assert.equal((await responses.next()).done, true);
  });

  test("delivers every message of a stream that the server ends", async () => {
    const stream = server.client.stream(MaintenanceService.Snapshot);
    await stream.send({});
    stream.end();
    let size = 0;
    let remaining = -1;
    for await (const part of stream) {
      size += part.blob.length;
      remaining = part.remainingBytes;
    }
    assert.equal(remaining, 0);
    assert.equal(size % 512, 32, "a database of whole pages and its SHA-256");
  });

  test("a call past its timeout fails with DEADLINE_EXCEEDED", async () => {
    const stream = server.client.stream(WatchService.Watch, { timeoutMs: 50 });
    await assert.rejects(
      async () => {
        for await (const _ of stream);
      },
      { name: "RpcError", code: 4 },
    );
  });

  test("an abort signal cancels a call", async () => {
    const signal = AbortSignal.abort();
    await assert.rejects(server.client.unary(KVService.Range, { key }, { signal }), { code: 1 });
  });
});

test("a connection without a listener fails with UNAVAILABLE", async () => {
  const [port] = await freePorts(1);
  const client = connect(`http://127.0.0.1:${port}`);
  await assert.rejects(client.ready(100), { code: 14 });
  await assert.rejects(client.unary(KVService.Range, { key }), { code: 14 });
  client.close();
});
