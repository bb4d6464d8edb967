/**
 * etcd in the tests of a Node application, inside their own process: nothing to install beside the package, no container,
 * no port. Each test begins with an empty cluster.
 *
 *   node --test examples/node.test.mjs
 */
import assert from "node:assert/strict";
import * as runner from "node:test";
import { useEtcd } from "kvorum/testing";

const fixture = useEtcd(runner);

runner.test("a value can be read after it was put", async () => {
  await fixture.client.put("greeting", "hello");
  assert.equal((await fixture.client.get("greeting"))?.value, "hello");
});

runner.test("nothing is left of the test before", async () => {
  assert.equal(await fixture.client.get("greeting"), undefined);
});

runner.test("a worker that stops renewing its lease is gone after it", async () => {
  const { client, etcd } = fixture;
  const lease = await client.leases.grant(10, { keepAlive: false });
  await client.put("workers/1", "here", { lease });
  const watcher = client.watch({ prefix: "workers/" });
  await watcher.ready;
  await etcd.advance(15_000);
  for await (const event of watcher) {
    assert.deepEqual([event.type, event.key], ["delete", "workers/1"]);
    break;
  }
});
