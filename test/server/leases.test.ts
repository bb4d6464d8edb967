import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { KVService, LeaseService } from "../../src/proto/etcdserverpb.ts";
import { slow } from "../harness/fast.ts";
import { startInProcess, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { bytes, text } from "./requests.ts";

/** Elections are quick, so that leases may be short: the shortest is one and a half election timeouts. */
const server = { tickMs: 10 };

describe("leases of a member", () => {
  test("expire with their keys, and the deletion is one revision that watchers and readers see", async () => {
    const member = await startInProcess({ server });
    const { client } = member;
    const { id, ttl } = await client.unary(LeaseService.LeaseGrant, { ttl: 1 });
    assert.equal(ttl, 1);
    for (const key of ["a", "b"]) await client.unary(KVService.Put, { key: bytes(key), lease: id });
    const { header } = await client.unary(KVService.Put, { key: bytes("c") });
    const startMs = performance.now();
    const left = (): Promise<number> =>
      client.unary(KVService.Range, { key: bytes("a"), rangeEnd: bytes("z"), countOnly: true }).then((r) => r.count);
    await waitFor("the keys go", async () => (await left()) === 1);
    assert.ok(performance.now() - startMs > 500, "not early");
    const after = await client.unary(KVService.Range, { key: bytes("c") });
    assert.equal(after.header!.revision, header!.revision + 1);
    assert.equal((await client.unary(LeaseService.LeaseTimeToLive, { id })).ttl, -1);
    assert.equal((await client.unary(LeaseService.LeaseLeases, {})).leases.length, 0);
    await member.close();
    assert.deepEqual(member.failures, []);
  });

  test("live as long as they are renewed", async () => {
    const member = await startInProcess({ server });
    const { client } = member;
    const { id } = await client.unary(LeaseService.LeaseGrant, { ttl: 1 });
    await client.unary(KVService.Put, { key: bytes("kept"), lease: id });
    const stream = client.stream(LeaseService.LeaseKeepAlive);
    const answers = stream[Symbol.asyncIterator]();
    const remainingMs = () => member.etcd.server.lessor.lookup(id)!.expiryMs - performance.now();
    for (let i = 0; i < 12; i++) {
      await stream.send({ id });
      assert.equal((await answers.next()).value!.ttl, 1);
      await waitFor("a part of its time is gone", () => remainingMs() < 800);
    }
    assert.equal((await client.unary(KVService.Range, { key: bytes("kept") })).count, 1);
    await stream.send({ id: 404n });
    assert.equal((await answers.next()).value!.ttl, 0, "an unknown one has no time to live");
    stream.cancel();
    await member.close();
  });

  test("survive a restart with their keys, and expire after it", async () => {
    const dir = tempDir();
    const dataDir = join(dir.path, "data");
    const first = await startInProcess({ dataDir, server });
    await first.client.unary(LeaseService.LeaseGrant, { id: 5n, ttl: 1 });
    await first.client.unary(LeaseService.LeaseGrant, { id: -6n, ttl: 1000 });
    await first.client.unary(KVService.Put, { key: bytes("short"), lease: 5n });
    await first.client.unary(KVService.Put, { key: bytes("long"), lease: -6n });
    await first.close();
    const second = await startInProcess({ dataDir, server });
    const { client } = second;
    const long = await client.unary(LeaseService.LeaseTimeToLive, { id: -6n, keys: true });
    assert.equal(long.grantedTtl, 1000);
    assert.deepEqual(long.keys.map(text), ["long"]);
    await waitFor("the short one expires", async () => {
      return (await client.unary(KVService.Range, { key: bytes("short") })).count === 0;
    });
    assert.equal((await client.unary(KVService.Range, { key: bytes("long") })).count, 1);
    await second.close();
    dir.remove();
  });

  test("end with all of their keys when they are revoked, except those that moved to another", async () => {
    const member = await startInProcess({ server });
    const { client } = member;
    const { id } = await client.unary(LeaseService.LeaseGrant, { ttl: 1000 });
    const { id: other } = await client.unary(LeaseService.LeaseGrant, { ttl: 1000 });
    for (const key of ["a", "b", "c"]) await client.unary(KVService.Put, { key: bytes(key), lease: id });
    await client.unary(KVService.Put, { key: bytes("b"), lease: other });
    await client.unary(KVService.Put, { key: bytes("c") });
    await client.unary(LeaseService.LeaseRevoke, { id });
    const { kvs } = await client.unary(KVService.Range, { key: bytes("a"), rangeEnd: bytes("z") });
    assert.deepEqual(
      kvs.map(({ key }) => text(key)),
      ["b", "c"],
    );
    await assert.rejects(client.unary(LeaseService.LeaseRevoke, { id }), /requested lease not found/);
    await member.close();
  });

  test("many that expire together all end", slow, async () => {
    const member = await startInProcess({ server });
    const { client } = member;
    for (let i = 1; i <= 600; i += 100) {
      await Promise.all(
        Array.from({ length: 100 }, async (_, j) => {
          const id = BigInt(i + j);
          await client.unary(LeaseService.LeaseGrant, { id, ttl: 1 });
          await client.unary(KVService.Put, { key: bytes(`k${id}`), lease: id }).catch(() => {});
        }),
      );
    }
    const count = async (): Promise<number> => (await client.unary(LeaseService.LeaseLeases, {})).leases.length;
    await waitFor("all gone", async () => (await count()) === 0);
    assert.equal((await client.unary(KVService.Range, { key: bytes("k"), rangeEnd: bytes("l") })).count, 0);
    await member.close();
    assert.deepEqual(member.failures, []);
  });
});
