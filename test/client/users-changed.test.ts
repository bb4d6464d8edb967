/** Calls that a member refuses because users were changed while they were on their way, as of users whom certificates name. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Client, RpcError } from "../../src/client/index.ts";
import { KVService, PutResponse, ResponseHeader } from "../../src/proto/etcdserverpb.ts";
import { ctl } from "../ctl/helpers.ts";
import { TestServer } from "../rpc/harness.ts";

const INVALID_ARGUMENT = 3;

/** A server that refuses the first puts. */
async function refusing(t: TestContext, count: number) {
  const server = await TestServer.start();
  t.after(() => server.stop());
  const seen = { puts: 0 };
  server.rpc.unary(KVService.Put.path, (call) => {
    if (++seen.puts <= count) call.fail(INVALID_ARGUMENT, "etcdserver: revision of auth store is old");
    else call.respond(PutResponse.encode(PutResponse.create({ header: ResponseHeader.create({ revision: 7 }) })));
  });
  return { endpoint: `http://127.0.0.1:${server.port}`, seen };
}

test("the client sends such a call again, and gives up when it goes on", async (t) => {
  const { endpoint, seen } = await refusing(t, 3);
  const client = new Client({ endpoints: endpoint, timeoutMs: 60_000 });
  t.after(() => client.close());
  assert.equal((await client.put("k", "v")).revision, 7);
  assert.equal(seen.puts, 4);
  const always = await refusing(t, Number.POSITIVE_INFINITY);
  const other = new Client({ endpoints: always.endpoint, timeoutMs: 60_000 });
  t.after(() => other.close());
  await assert.rejects(other.put("k", "v"), (error) => error instanceof RpcError && /is old/.test(error.details));
});

test("etcdctl sends it again too, but not with a token that it was given", async (t) => {
  const { endpoint, seen } = await refusing(t, 3);
  const { code, stdout } = await ctl(["--endpoints", endpoint, "put", "k", "v"]);
  assert.equal(code, 0);
  assert.equal(stdout.toString(), "OK\n");
  assert.equal(seen.puts, 4);
  const other = await refusing(t, 3);
  const given = await ctl(["--endpoints", other.endpoint, "--auth-jwt-token", "t", "put", "k", "v"]);
  assert.match(given.stderr, /revision of auth store is old/);
  assert.equal(other.seen.puts, 1);
});
