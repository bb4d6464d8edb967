import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Client, LeaseLostError } from "../../src/client/index.ts";
import { startInProcess } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { servedClient } from "./served.ts";

describe("a lease", () => {
  let client: Client;
  servedClient((served) => (client = served));

  test("holds keys until it is revoked", async () => {
    const lease = await client.leases.grant(60);
    await client.put("held", "1", { lease });
    assert.equal((await client.get("held"))?.lease, lease.id);
    const { ttl, grantedTtl, keys } = await client.leases.timeToLive(lease, { keys: true });
    assert.deepEqual([grantedTtl, keys.map((key) => Buffer.from(key).toString())], [60, ["held"]]);
    assert.ok(ttl > 0 && ttl <= 60 && lease.isAlive && lease.safeMs > 0);
    assert.ok((await client.leases.list()).includes(lease.id));
    await lease.revoke();
    assert.equal(await client.get("held"), undefined);
    assert.deepEqual([lease.isAlive, lease.signal.aborted, lease.safeMs], [false, true, 0]);
  });

  test("is revoked at the end of its block", async () => {
    {
      await using lease = await client.leases.grant(60);
      await client.put("block", "1", { lease });
    }
    assert.equal(await client.get("block"), undefined);
  });

  test("is renewed while it is open", async () => {
    const lease = await client.leases.grant(6);
    let leastMs = lease.safeMs;
    await waitFor("a renewal", () => {
      const isRenewed = lease.safeMs > leastMs;
      leastMs = Math.min(leastMs, lease.safeMs);
      return isRenewed;
    });
    assert.ok(lease.isAlive);
    await lease.revoke();
  });

  test("that another client revokes is reported as lost", async () => {
    const lease = await client.leases.grant(1);
    await client.leases.revoke(lease.id);
    await waitFor("the loss", () => lease.signal.aborted);
    assert.ok(lease.signal.reason instanceof LeaseLostError && lease.signal.reason.leaseId === lease.id);
  });

  test("can be renewed once by its id", async () => {
    const lease = await client.leases.grant(30, { keepAlive: false });
    assert.equal(await client.leases.keepAliveOnce(lease.id), 30);
    await client.leases.revoke(lease.id);
    assert.equal(await client.leases.keepAliveOnce(lease.id), undefined);
    lease.abandon();
  });
});

test("a lease whose member is gone is lost before the server can end it", async () => {
  const server = await startInProcess();
  await using client = new Client({ endpoints: server.url });
  const lease = await client.leases.grant(2);
  let lostWithMs: number | undefined;
  const grantedMs = performance.now();
  lease.signal.addEventListener("abort", () => (lostWithMs = performance.now() - grantedMs));
  await server.close(0);
  await waitFor("the loss", () => lostWithMs !== undefined);
  assert.ok(lease.signal.reason instanceof LeaseLostError);
});
