import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { test } from "node:test";
import type { CallDiagnostics, ConnectionDiagnostics } from "../../src/client/index.ts";
import { Etcd } from "../../src/embedded/index.ts";

test("a client tells the diagnostics channels of its calls and connections", async (t) => {
  const calls: CallDiagnostics[] = [];
  const connections: ConnectionDiagnostics[] = [];
  const onCall = (told: unknown): void => void calls.push(told as CallDiagnostics);
  const onConnection = (told: unknown): void => void connections.push(told as ConnectionDiagnostics);
  subscribe("kvorum:client:call", onCall);
  subscribe("kvorum:client:connection", onConnection);
  t.after(() => {
    unsubscribe("kvorum:client:call", onCall);
    unsubscribe("kvorum:client:connection", onConnection);
  });
  await using etcd = await Etcd.start({ listen: false });
  const client = etcd.client();
  await client.put("a", "1");
  await assert.rejects(() => client.get("a", { revision: 99 }), /future revision/);
  await assert.rejects(() => client.get("a", { signal: AbortSignal.abort(new Error("not now")) }), /not now/);
  const controller = new AbortController();
  const given = client.get("a", { signal: controller.signal });
  controller.abort(new Error("no more"));
  await assert.rejects(given, /no more/);
  assert.deepEqual(
    calls.map(({ method, endpoint, code, attempts }) => [method, endpoint, code, attempts]),
    [
      ["/etcdserverpb.KV/Put", "m1:2379", 0, 1],
      ["/etcdserverpb.KV/Range", "m1:2379", 11, 1],
      ["/etcdserverpb.KV/Range", undefined, undefined, 0],
      ["/etcdserverpb.KV/Range", "m1:2379", undefined, 1],
    ],
  );
  assert.ok(calls.every(({ tookMs }) => tookMs >= 0));
  assert.deepEqual(connections, [{ endpoint: "m1:2379", connected: true, problem: "" }]);
});
