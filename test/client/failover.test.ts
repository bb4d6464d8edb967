/** The client's guarantees while members of a real cluster are killed, of either kind. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, LeaseLostError, RpcError } from "../../src/client/index.ts";
import { type Kind, withCluster } from "../harness/cluster.ts";
import { requireStockEtcd } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";

const WRITES = 100;

/** Repeats what does no harm when it was done already; the cluster may still be electing. */
async function surely(action: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await action();
      return;
    } catch (error) {
      if (!(error instanceof RpcError) || !(error.maybeApplied || error.code === NOT_FOUND)) throw error;
      if (error.code === NOT_FOUND) return;
    }
  }
}

const NOT_FOUND = 5;

for (const kind of ["ours", "stock"] as const satisfies readonly Kind[]) {
  const skip = kind === "stock" && requireStockEtcd();
  test(`watches, leases, locks and writes survive the death of any member (${kind})`, { skip }, async () => {
    await withCluster({ members: [kind, kind, kind] }, async (cluster) => {
      const endpoints = cluster.all.map(({ url }) => url);
      await using client = new Client({ endpoints, timeoutMs: 60_000, keepAliveMs: 1000, keepAliveTimeoutMs: 1000 });
      await using other = new Client({ endpoints: endpoints.toReversed(), timeoutMs: 60_000 });

      const watcher = client.watch({ prefix: "log/" });
      await watcher.ready;
      const seen: { readonly value: string; readonly revision: number }[] = [];
      const watching = (async () => {
        for await (const event of watcher) {
          if (event.type !== "put") continue;
          seen.push({ value: event.kv.value, revision: event.revision });
          if (event.kv.value === "end") break;
        }
      })();
      const lock = await client.lock("held", { ttl: 60 });
      const waiting = other.lock("held", { ttl: 60 });
      await waitFor("both in the queue", async () => (await client.count({ prefix: "held/" })) === 2);

      // Known to be there, and those whose answer was lost.
      const written: string[] = [];
      const unsure = new Set<string>();
      const writing = (async () => {
        for (let i = 0; i < WRITES; i++) {
          try {
            await other.put(`log/${i % 7}`, `${i}`);
            written.push(`${i}`);
          } catch (error) {
            if (!(error instanceof RpcError && error.maybeApplied)) throw error;
            unsure.add(`${i}`);
          }
        }
      })();
      for (const [i, member] of cluster.all.entries()) {
        const goal = Math.floor((WRITES * (i + 1)) / 5);
        await waitFor("some writes", () => written.length + unsure.size >= goal, 60_000);
        await member.kill("SIGKILL");
        await member.start();
      }
      await writing;
      await surely(() => client.put("log/end", "end"));
      await watching;

      const values = seen.map(({ value }) => value);
      assert.equal(new Set(values).size, values.length, "nothing is seen twice");
      assert.deepEqual(
        seen.map(({ revision }) => revision),
        seen.map(({ revision }) => revision).toSorted((a, b) => a - b),
      );
      const certain = values.filter((value) => !unsure.has(value));
      assert.deepEqual(certain, [...written, "end"], "every acknowledged write is seen, in order");

      // A lock is held, or known to be lost: never both believed and gone.
      if (lock.signal.aborted) assert.ok(lock.signal.reason instanceof LeaseLostError);
      else
        assert.equal(
          (await client.range({ prefix: "held/" }, { sort: "create", limit: 1 })).kvs[0]?.createRevision,
          lock.token,
        );
      await surely(() => client.leases.revoke(lock.lease.id));
      const next = await waiting;
      assert.ok(next.token > lock.token);
    });
  });
}

test("the library works with stock etcd", { skip: requireStockEtcd() }, async () => {
  await withCluster({ members: ["stock"] }, async (cluster) => {
    await using client = new Client({ endpoints: cluster.all[0]!.url, timeoutMs: 60_000 });
    const { revision } = await client.put("a", "1");
    await client.put("large", "x".repeat(1_000_000));
    assert.equal((await client.get("large"))?.value.length, 1_000_000);
    const seen: string[] = [];
    for await (const event of client.watch({ all: true }, { revision })) if (seen.push(event.key) === 2) break;
    assert.deepEqual(seen, ["a", "large"]);
    await using lease = await client.leases.grant(60);
    await client.put("leased", "1", { lease });
    await using leadership = await client.election("e").campaign("me");
    assert.equal((await client.election("e").leader())?.token, leadership.token);
    const { value } = await client.transaction(async (transaction) => transaction.get("a"));
    assert.equal(value, "1");
    let bytes = 0;
    for await (const piece of client.maintenance.snapshot()) bytes += piece.length;
    assert.equal(bytes % 512, 32);
    assert.equal((await client.cluster.sync()).length, 1);
    assert.equal((await client.get("leased"))?.lease, lease.id);
  });
});
