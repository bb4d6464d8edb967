import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Code } from "../../src/base/grpc-codes.ts";
import { type RawClient, type RawStream, RpcError } from "../../src/client/raw.ts";
import { DeleteRangeRequest, KVService, LeaseService } from "../../src/proto/etcdserverpb.ts";
import { ElectionService, type LeaderKey, type LeaderResponse } from "../../src/proto/v3electionpb.ts";
import { LockService } from "../../src/proto/v3lockpb.ts";
import { startInProcess } from "../harness/in-process.ts";
import { requireStockEtcd, stockEtcd, stockEtcdVersion } from "../harness/programs.ts";
import { startServer } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";
import { bytes, text } from "../server/requests.ts";

interface Target {
  readonly client: RawClient;
  close(): Promise<void>;
}

/** Stock etcd must pass the same tests; otherwise they would test something other than its behaviour. */
locksAndElections("this server", false, () => startInProcess(), 3.007);
locksAndElections("stock etcd", requireStockEtcd(), () => startServer(stockEtcd()), (await stockEtcdVersion()) ?? 0);

function locksAndElections(name: string, skip: string | false, start: () => Promise<Target>, version: number): void {
  describe(`locks and elections of ${name}`, { skip }, () => {
    let target: Target;
    let client: RawClient;
    before(async () => {
      target = await start();
      client = target.client;
    });
    after(() => target.close());

    const lease = async (ttl = 60): Promise<bigint> => (await client.unary(LeaseService.LeaseGrant, { ttl })).id;
    const lock = async (lockName: string, id: bigint): Promise<string> =>
      text((await client.unary(LockService.Lock, { name: bytes(lockName), lease: id })).key);
    const campaign = async (election: string, value: string, id: bigint): Promise<LeaderKey> => {
      const { leader } = await client.unary(ElectionService.Campaign, {
        name: bytes(election),
        value: bytes(value),
        lease: id,
      });
      return leader!;
    };
    const keysUnder = async (prefix: string): Promise<string[]> => {
      const { kvs } = await client.unary(KVService.Range, { key: bytes(`${prefix}/`), rangeEnd: bytes(`${prefix}0`) });
      return kvs.map(({ key }) => text(key));
    };
    const fails = async (call: Promise<unknown>, code: number, details: string): Promise<void> => {
      await assert.rejects(call, (error: RpcError) => {
        assert.ok(error instanceof RpcError);
        assert.deepEqual([error.code, error.details], [code, details]);
        return true;
      });
    };

    test("a lock is a key of its name and the lease in hexadecimal, and goes to the client waiting longest", async () => {
      const [first, second, third] = [await lease(), await lease(), await lease()];
      const key = await lock("door", first);
      assert.equal(key, `door/${first.toString(16)}`);
      const order: string[] = [];
      const waitSecond = lock("door", second).then((k) => order.push(`second ${k}`));
      await waitFor("second waits", async () => (await keysUnder("door")).length === 2);
      const waitThird = lock("door", third).then((k) => order.push(`third ${k}`));
      await waitFor("third waits", async () => (await keysUnder("door")).length === 3);
      assert.deepEqual(order, []);
      await client.unary(LockService.Unlock, { key: bytes(key) });
      await waitSecond;
      assert.deepEqual(order, [`second door/${second.toString(16)}`]);
      await client.unary(LeaseService.LeaseRevoke, { id: second });
      await waitThird;
      assert.equal(order.length, 2, "a lease that ends gives its lock back");
    });

    test("the holder of a lock may acquire it again", async () => {
      const id = await lease();
      assert.equal(await lock("again", id), await lock("again", id));
    });

    test("a client that stops waiting leaves the queue", async () => {
      const [holder, waiter] = [await lease(), await lease()];
      await lock("queue", holder);
      const controller = new AbortController();
      const waiting = client.unary(
        LockService.Lock,
        { name: bytes("queue"), lease: waiter },
        { signal: controller.signal },
      );
      await waitFor("it waits", async () => (await keysUnder("queue")).length === 2);
      controller.abort();
      await assert.rejects(waiting, { code: Code.CANCELED });
      await waitFor("it left", async () => (await keysUnder("queue")).length === 1);
    });

    const skipExpired = version < 3.005 && "etcd before 3.5 gave the lock to the session that had expired";
    test("a client whose place in the queue expired does not get the lock", { skip: skipExpired }, async () => {
      const [holder, waiter] = [await lease(), await lease()];
      const key = await lock("expired", holder);
      const waiting = lock("expired", waiter);
      waiting.catch(() => {});
      await waitFor("it waits", async () => (await keysUnder("expired")).length === 2);
      await client.unary(LeaseService.LeaseRevoke, { id: waiter });
      await client.unary(LockService.Unlock, { key: bytes(key) });
      await fails(waiting, 2, "mutex: session is expired");
    });

    test("a lock without a lease creates one, and with a missing one fails", async () => {
      const { key } = await client.unary(LockService.Lock, { name: bytes("own") });
      assert.match(text(key), /^own\/[0-9a-f]+$/);
      await fails(lock("none", 12345n), 2, "etcdserver: requested lease not found");
    });

    test("unlocking a free lock does nothing, and needs a key", async () => {
      await client.unary(LockService.Unlock, { key: bytes("unlocked/1") });
      await fails(client.unary(LockService.Unlock, {}), 2, "etcdserver: key is not provided");
    });

    test("an election is won by the first, and by the next when that one resigns", async () => {
      const [first, second] = [await lease(), await lease()];
      const leader = await campaign("chair", "one", first);
      assert.equal(text(leader.key), `chair/${first.toString(16)}`);
      assert.deepEqual([text(leader.name), leader.lease], ["chair", first]);
      let won = false;
      const next = campaign("chair", "two", second).then((l) => {
        won = true;
        return l;
      });
      await waitFor("second waits", async () => (await keysUnder("chair")).length === 2);
      const seen = await client.unary(ElectionService.Leader, { name: bytes("chair") });
      assert.equal(text(seen.kv!.value), "one");
      assert.equal(seen.kv!.createRevision, leader.rev);
      assert.equal(won, false);
      await client.unary(ElectionService.Resign, { leader });
      await next;
      assert.equal(text((await client.unary(ElectionService.Leader, { name: bytes("chair") })).kv!.value), "two");
      await fails(client.unary(ElectionService.Proclaim, { leader, value: bytes("late") }), 2, "election: not leader");
    });

    test("campaigning again replaces the value and keeps the place", async () => {
      const id = await lease();
      const leader = await campaign("replace", "old", id);
      const again = await campaign("replace", "new", id);
      assert.equal(again.rev, leader.rev);
      assert.equal(text((await client.unary(ElectionService.Leader, { name: bytes("replace") })).kv!.value), "new");
    });

    test("an election without a leader, and a request without one, say so", async () => {
      await fails(client.unary(ElectionService.Leader, { name: bytes("empty") }), 2, "election: no leader");
      await fails(client.unary(ElectionService.Proclaim, {}), 2, '"leader" field must be provided');
      await fails(client.unary(ElectionService.Resign, {}), 2, '"leader" field must be provided');
    });

    test("observers see each leader and each of its proclamations, from the current one on", async () => {
      const [first, second] = [await lease(), await lease()];
      const leader = await campaign("news", "one", first);
      const observer = client.stream(ElectionService.Observe);
      await observer.send({ name: bytes("news") });
      observer.end();
      const values = valuesOf(observer);
      assert.equal((await values.next()).value, "one");
      await client.unary(ElectionService.Proclaim, { leader, value: bytes("one more") });
      assert.equal((await values.next()).value, "one more");
      const next = campaign("news", "two", second);
      await waitFor("second waits", async () => (await keysUnder("news")).length === 2);
      await client.unary(ElectionService.Resign, { leader });
      await next;
      assert.equal((await values.next()).value, "two");
      observer.cancel();
    });

    test("observers of an election without a leader wait for one", async () => {
      const observer = client.stream(ElectionService.Observe);
      await observer.send({ name: bytes("later") });
      observer.end();
      const values = valuesOf(observer);
      const first = values.next();
      await campaign("later", "elected", await lease());
      assert.equal((await first).value, "elected");
      observer.cancel();
    });

    test("observers see the first of several that come at once", async () => {
      const observer = client.stream(ElectionService.Observe);
      await observer.send({ name: bytes("burst") });
      observer.end();
      const values = valuesOf(observer);
      const first = values.next();
      await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          client.unary(KVService.Put, { key: bytes(`burst/${i}`), value: bytes(`${i}`) }),
        ),
      );
      const { kvs } = await client.unary(KVService.Range, { key: bytes("burst/"), rangeEnd: bytes("burst0") });
      const oldest = kvs.sort((a, b) => a.createRevision - b.createRevision)[0]!;
      assert.equal((await first).value, text(oldest.value));
      observer.cancel();
    });

    test("deleting the leader's key makes the next one leader", async () => {
      const [first, second] = [await lease(), await lease()];
      const leader = await campaign("deleted", "one", first);
      const next = campaign("deleted", "two", second);
      await waitFor("second waits", async () => (await keysUnder("deleted")).length === 2);
      await client.unary(KVService.DeleteRange, DeleteRangeRequest.create({ key: leader.key }));
      assert.equal(text((await next).key), `deleted/${second.toString(16)}`);
    });
  });
}

async function* valuesOf(stream: RawStream<unknown, LeaderResponse>): AsyncGenerator<string, void, undefined> {
  for await (const { kv } of stream) yield text(kv!.value);
}
