/** The npm client `etcd3`, used through its public API. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, beforeEach, describe, test } from "node:test";
import { Etcd3, EtcdLeaseInvalidError, type IKeyValue, type IOptions, type Watcher } from "etcd3";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { ourEtcd } from "../harness/programs.ts";
import { type Server, startServer } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";

describe("the npm client etcd3", () => {
  let server: Server;
  let options: IOptions;
  let client: Etcd3;
  before(async () => {
    server = await startServer(ourEtcd());
    // The client's own backoff grows to half a minute and outlives its watchers.
    const soon = { duration: 50, next: () => soon };
    options = { hosts: server.url, faultHandling: { watchBackoff: soon } };
    client = new Etcd3(options);
  });
  after(async () => {
    client?.close();
    await server?.close();
  });
  beforeEach(async () => {
    await client.delete().all();
    for (const [key, value] of [
      ["foo1", "bar1"],
      ["foo2", "bar2"],
      ["foo3", "{"],
      ["baz", "bar5"],
    ]) {
      await client.put(key!).value(value!);
    }
  });

  test("gets single keys as strings, numbers, JSON and buffers", async () => {
    assert.equal(await client.get("foo1").string(), "bar1");
    assert.deepEqual(await client.get("foo1").buffer(), Buffer.from("bar1"));
    assert.equal(await client.get("absent").string(), null);
    assert.equal(await client.get("foo1").exists(), true);
    assert.equal(await client.get("absent").exists(), false);
    await client.put("number").value(42);
    assert.equal(await client.get("number").number(), 42);
    await client.put("json").value(JSON.stringify({ a: [1] }));
    assert.deepEqual(await client.get("json").json(), { a: [1] });
  });

  test("reads at an older revision", async () => {
    const { header } = await client.put("old").value("1");
    await client.put("old").value("2");
    assert.equal(await client.get("old").revision(header.revision), "1");
    assert.equal(await client.get("old").serializable(true), "2");
  });

  test("gets many keys by prefix and range, sorted and limited", async () => {
    assert.deepEqual(await client.getAll().prefix("foo").strings(), { foo1: "bar1", foo2: "bar2", foo3: "{" });
    assert.deepEqual(await client.getAll().keys(), ["baz", "foo1", "foo2", "foo3"]);
    assert.equal(await client.getAll().count(), 4);
    assert.deepEqual(await client.getAll().inRange({ start: "b", end: "foo2" }).keys(), ["baz", "foo1"]);
    assert.deepEqual(await client.getAll().sort("Key", "Descend").limit(2).keys(), ["foo3", "foo2"]);
    assert.deepEqual(await client.getAll().prefix("foo").sort("Value", "Ascend").limit(1).keys(), ["foo1"]);
    const { kvs, more, count } = await client.getAll().limit(1).exec();
    assert.deepEqual([kvs.length, more, count], [1, true, "4"]);
  });

  test("filters by revisions", async () => {
    const { header } = await client.put("later").value("x");
    assert.deepEqual(await client.getAll().minModRevision(header.revision).keys(), ["later"]);
    assert.deepEqual(await client.getAll().minCreateRevision(header.revision).keys(), ["later"]);
    assert.equal(
      (
        await client
          .getAll()
          .maxModRevision(Number(header.revision) - 1)
          .keys()
      ).length,
      4,
    );
    assert.equal(
      (
        await client
          .getAll()
          .maxCreateRevision(Number(header.revision) - 1)
          .keys()
      ).length,
      4,
    );
  });

  test("puts: previous values, touch, keeping the lease", async () => {
    assert.equal((await client.put("foo1").value("new").getPrevious()).value.toString(), "bar1");
    const before = (await client.get("foo1").exec()).kvs[0] as IKeyValue;
    await client.put("foo1").touch();
    const touched = (await client.get("foo1").exec()).kvs[0] as IKeyValue;
    assert.equal(touched.value.toString(), "new");
    assert.equal(Number(touched.version), Number(before.version) + 1);
    const lease = client.lease(100);
    await lease.put("foo1").value("leased");
    await client.put("foo1").value("still leased").ignoreLease();
    assert.equal((await client.get("foo1").exec()).kvs[0]!.lease, await lease.grant());
    await lease.revoke();
  });

  test("deletes keys, ranges and everything, and returns what was there", async () => {
    const [previous] = await client.delete().key("foo1").getPrevious();
    assert.equal(previous?.value.toString(), "bar1");
    assert.equal((await client.delete().prefix("foo")).deleted, "2");
    assert.equal((await client.delete().key("absent")).deleted, "0");
    await client.delete().all();
    assert.equal(await client.getAll().count(), 0);
  });

  test("transactions with if, then and else", async () => {
    const swap = () =>
      client
        .if("foo1", "Value", "==", "bar1")
        .and("foo2", "Version", ">", 0)
        .then(client.put("foo1").value("swapped"), client.get("foo2"))
        .else(client.get("foo1"))
        .commit();
    const first = await swap();
    assert.equal(first.succeeded, true);
    assert.equal(first.responses[1]?.response_range?.kvs[0]?.value.toString(), "bar2");
    const second = await swap();
    assert.equal(second.succeeded, false);
    assert.equal(second.responses[0]?.response_range?.kvs[0]?.value.toString(), "swapped");
    for (const [column, value] of [
      ["Create", 0],
      ["Mod", 0],
      ["Version", 0],
    ] as const) {
      assert.equal((await client.if("absent", column, "==", value).then().commit()).succeeded, true, column);
    }
  });

  test("errors arrive as the client's own types", async () => {
    await assert.rejects(client.get("foo1").revision(999_999).exec(), /required revision is a future revision/);
    await assert.rejects(client.put("").value("x").exec(), /key is not provided/);
    const gone = client.lease(100);
    await gone.grant();
    await gone.revoke();
    await assert.rejects(client.put("x").value("y").lease("4711").exec(), EtcdLeaseInvalidError);
  });

  test("software transactional memory retries until its counter is right", async () => {
    await client.put("counter").value(0);
    const add = () =>
      client.stm({ retries: 50 }).transact(async (tx) => {
        const value = await tx.get("counter").number();
        await tx.put("counter").value(value! + 1);
      });
    await Promise.all(Array.from({ length: 8 }, add));
    assert.equal(await client.get("counter").number(), 8);
  });

  test("a lease keeps its keys while it is kept alive, and revoking it deletes them", async () => {
    const lease = client.lease(2);
    await lease.put("leased").value("here");
    const established = once(lease, "keepaliveSucceeded");
    await lease.grant();
    await established;
    await lease.keepaliveOnce();
    assert.equal(await client.get("leased"), "here");
    await lease.revoke();
    assert.equal(lease.revoked(), true);
    assert.equal(await client.get("leased"), null);
  });

  test("a released lease expires with its keys", async () => {
    const lease = client.lease(1, { autoKeepAlive: false });
    await lease.put("short").value("life");
    lease.release();
    await waitFor("the key is gone", async () => (await client.get("short")) === null, 15_000);
  });

  test("a lock is held by one client at a time", async () => {
    let inside = 0;
    let most = 0;
    const work = () =>
      client.lock("resource").do(async () => {
        most = Math.max(most, ++inside);
        await client.get("foo1");
        inside--;
      });
    await work();
    const held = await client.lock("resource").ttl(10).acquire();
    await assert.rejects(work(), /Failed to acquire a lock on resource/);
    await held.release();
    await work();
    assert.equal(most, 1);
  });

  async function watching(watcher: Watcher): Promise<{ seen: string[]; watcher: Watcher }> {
    const seen: string[] = [];
    watcher.on("put", (kv, previous) =>
      seen.push(`put ${kv.key}=${kv.value}${previous ? ` was ${previous.value}` : ""}`),
    );
    watcher.on("delete", (kv) => seen.push(`delete ${kv.key}`));
    return { seen, watcher };
  }

  test("watchers of keys, prefixes and ranges see the changes, and only those", async () => {
    const prefix = await watching(await client.watch().prefix("foo").withPreviousKV().create());
    const single = await watching(await client.watch().key("baz").create());
    const deletes = await watching(await client.watch().prefix("foo").only("delete").create());
    const puts = await watching(await client.watch().inRange({ start: "a", end: "z" }).only("put").create());
    await client.put("foo1").value("new");
    await client.put("other").value("x");
    await client.delete().key("foo2");
    await client.put("baz").value("last");
    await waitFor("all events", () => single.seen.length === 1 && puts.seen.length === 3 && deletes.seen.length === 1);
    await waitFor("all events of the prefix", () => prefix.seen.length === 2);
    assert.deepEqual(prefix.seen, ["put foo1=new was bar1", "delete foo2"]);
    assert.deepEqual(single.seen, ["put baz=last"]);
    assert.deepEqual(deletes.seen, ["delete foo2"]);
    assert.deepEqual(puts.seen, ["put foo1=new", "put other=x", "put baz=last"]);
    for (const { watcher } of [prefix, single, deletes, puts]) await watcher.cancel();
  });

  test("a watcher from an older revision catches up", async () => {
    const { header } = await client.put("foo1").value("first");
    await client.put("foo1").value("second");
    const { seen, watcher } = await watching(await client.watch().key("foo1").startRevision(header.revision).create());
    await waitFor("both puts", () => seen.length === 2);
    assert.deepEqual(seen, ["put foo1=first", "put foo1=second"]);
    await watcher.cancel();
  });

  test("a watcher continues after the server was restarted", async () => {
    const { seen, watcher } = await watching(await client.watch().key("again").create());
    await client.put("again").value("1");
    await waitFor("the first put", () => seen.length === 1);
    const reconnected = once(watcher, "connected");
    await server.kill("SIGKILL");
    await server.start();
    await reconnected;
    await server.client.unary(KVService.Put, {
      key: Buffer.from("again"),
      value: Buffer.from("2"),
    });
    await waitFor("the second put", () => seen.length === 2, 20_000);
    assert.deepEqual(seen, ["put again=1", "put again=2"]);
    await watcher.cancel();
  });

  test("elections: one is leader, an observer sees it, and the next follows when it resigns", async () => {
    const election = client.election("singleton", 5);
    const first = election.campaign("one");
    await first.wait();
    assert.equal(await election.leader(), "one");
    const observer = await election.observe();
    assert.equal(observer.leader(), "one");
    const other = new Etcd3(options);
    const second = other.election("singleton", 5).campaign("two");
    const elected = once(second, "elected");
    await first.proclaim("one again");
    await waitFor("the proclamation", () => observer.leader() === "one again");
    await first.resign();
    await elected;
    await waitFor("the new leader", () => observer.leader() === "two");
    await second.resign();
    await observer.cancel();
    other.close();
  });

  test("namespaces hide their prefix", async () => {
    const users = client.namespace("users/");
    await users.put("ada").value("1");
    assert.equal(await client.get("users/ada"), "1");
    assert.deepEqual(await users.getAll().strings(), { ada: "1" });
    const { seen, watcher } = await watching(await users.watch().key("ada").create());
    await client.put("users/ada").value("2");
    await waitFor("the event", () => seen.length === 1);
    assert.deepEqual(seen, ["put ada=2"]);
    await watcher.cancel();
    await users.delete().all();
    assert.equal(await client.getAll().count(), 4);
  });

  test("maintenance: status, hash, defragment, members", async () => {
    const status = await client.maintenance.status();
    assert.match(status.version, /^3\.\d+\.\d+$/);
    assert.equal(status.leader, status.header.member_id);
    assert.ok(Number((await client.maintenance.hash()).hash) > 0);
    await client.maintenance.defragment();
    const { members } = await client.cluster.memberList({});
    assert.deepEqual(
      members.map(({ name, clientURLs }) => ({ name, clientURLs })),
      [{ name: "default", clientURLs: [server.url] }],
    );
    const snapshot = await client.maintenance.snapshot();
    let size = 0;
    snapshot.on("data", (part) => (size += part.blob.length));
    await new Promise<void>((resolve, reject) => snapshot.on("end", resolve).on("error", reject));
    assert.ok(size > 0);
  });
});
