/** The compatible module beside the npm package whose surface it has: the same calls, the same answers. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, beforeEach, describe, test } from "node:test";
import { Etcd3 as Theirs } from "etcd3";
import { Etcd } from "../../src/embedded/index.ts";
import {
  EtcdLeaseInvalidError,
  EtcdLockFailedError,
  EtcdPermissionDeniedError,
  GRPCDeadlineExceededError,
  GRPCUnavailableError,
  Isolation,
  NotCampaigningError,
  Etcd3 as Ours,
  STMConflictError,
} from "../../src/etcd3/index.ts";
import { waitFor } from "../harness/wait.ts";

let etcd: Etcd;
let client: Ours;

before(async () => {
  etcd = await Etcd.start();
  client = new Ours({ hosts: [...etcd.endpoints] });
});
beforeEach(async () => {
  await client.delete().all();
});
after(async () => {
  client.close();
  await etcd.stop();
});

/** What varies from server to server, and from call to call. */
function constant(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return value.toString("latin1");
  if (Array.isArray(value)) return value.map(constant);
  if (typeof value !== "object" || value === null) return value;
  const varying = new Set(["header", "create_revision", "mod_revision", "lease", "response", "request"]);
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => !varying.has(name))
      .map(([name, each]) => [name, constant(each)]),
  );
}

type Surface = Pick<Ours, "get" | "getAll" | "put" | "delete" | "if" | "namespace">;

/** What is asked of both. */
const CALLS: Readonly<Record<string, (client: Surface) => PromiseLike<unknown>>> = {
  "a string": (c) => c.get("a").string(),
  "nothing as null": (c) => c.get("none").string(),
  "a number": (c) => c.get("number").number(),
  json: (c) => c.get("json").json(),
  "a buffer": (c) => c.get("a").buffer(),
  "whether it exists": (c) => c.get("a").exists(),
  "the whole answer": (c) => c.get("a").exec(),
  "an empty answer": (c) => c.get("none").exec(),
  "all as strings": (c) => c.getAll().strings(),
  "a prefix": (c) => c.getAll().prefix("n"),
  "a range": (c) => c.getAll().inRange({ start: "a", end: "b" }).strings(),
  "keys, sorted and limited": (c) => c.getAll().sort("Key", "Descend").limit(2).keys(),
  "a count": (c) => c.getAll().count(),
  "a namespace": (c) => c.namespace("n").getAll().keys(),
  "a put and what was before": (c) => c.put("a").value("2").getPrevious(),
  "a touch": (c) => c.put("a").touch(),
  "a transaction": (c) => c.if("a", "Value", "==", "2").then(c.put("t").value(1), c.get("a")).else(c.get("b")).commit(),
  "a transaction that fails": (c) =>
    c.if("a", "Version", ">", 99).then(c.put("t").value(1)).else(c.delete().key("b")).commit(),
  "a delete and what was before": (c) => c.delete().prefix("n").getPrevious(),
  "a delete": (c) => c.delete().all(),
};

test("answers like the npm package", async () => {
  const theirs = new Theirs({ hosts: [...etcd.endpoints] });
  try {
    const answers = [];
    for (const each of [client, theirs as unknown as Surface]) {
      await client.delete().all();
      for (const [key, value] of Object.entries({ a: "1", b: "2", number: "12", json: '{"x":1}' })) {
        await client.put(key).value(value);
      }
      const found: Record<string, unknown> = {};
      for (const [name, call] of Object.entries(CALLS)) found[name] = constant(await call(each));
      answers.push(found);
    }
    assert.deepEqual(answers[0], answers[1]);
  } finally {
    theirs.close();
  }
});

describe("the module with the surface of etcd3", () => {
  test("keeps a lease alive, and says when it is lost", async () => {
    const lease = client.lease(60);
    await lease.put("leased").value("1");
    assert.equal((await client.get("leased").exec()).kvs[0]?.lease, await lease.grant());
    assert.equal((await lease.keepaliveOnce()).TTL, "60");
    const lost = once(lease, "lost");
    await client.leaseClient.leaseRevoke({ ID: await lease.grant() });
    await assert.rejects(() => lease.keepaliveOnce(), EtcdLeaseInvalidError);
    assert.ok((await lost)[0] instanceof EtcdLeaseInvalidError);
    assert.ok(lease.revoked());
    assert.throws(() => client.lease(0), /at least 1 second/);
  });

  test("gives a lock to one", async () => {
    const lock = await client.lock("door").acquire();
    await assert.rejects(() => client.lock("door").acquire(), EtcdLockFailedError);
    await lock.release();
    assert.equal(await client.lock("door").do(() => "inside"), "inside");
  });

  test("watches, and says what was refused", async () => {
    const watcher = await client.watch().prefix("jobs/").create();
    const put = once(watcher, "put");
    await client.put("jobs/1").value("sweep");
    const [kv] = await put;
    assert.deepEqual([kv.key.toString(), kv.value.toString(), kv.version], ["jobs/1", "sweep", "1"]);
    const gone = once(watcher, "delete");
    await client.delete().key("jobs/1");
    assert.equal((await gone)[0].key.toString(), "jobs/1");
    assert.ok((watcher.lastRevision() ?? 0) > 1);
    await watcher.cancel();
    await etcd.compact();
    const late = client.watch().key("a").startRevision("1").watcher();
    assert.match((await once(late, "error"))[0].message, /compacted/);
  });

  test("elects one, who is followed only when it resigns, and not when one behind it leaves", async () => {
    const first = await client.election("boss", 60).campaign("1").wait();
    const observer = await client.election("boss").observe();
    const second = client.election("boss", 60).campaign("2");
    await second.getCampaignKey();
    const third = client.election("boss", 60).campaign("3");
    await third.getCampaignKey();
    let elected = 0;
    third.on("elected", () => elected++);
    // Those behind watch all before them: the end of one that waits elects nobody.
    await second.resign();
    await client.put("something").value("else");
    assert.equal(await client.election("boss").leader(), "1");
    assert.equal(elected, 0);
    await first.proclaim("still 1");
    await waitFor("the observer sees it", () => observer.leader() === "still 1");
    await first.resign();
    await third.wait();
    assert.equal(await client.election("boss").leader(), "3");
    await assert.rejects(() => first.proclaim("again"), NotCampaigningError);
    await third.resign();
    await observer.cancel();
  });

  test("repeats a software transaction until what it read still holds", async () => {
    await client.put("n").value(1);
    let tries = 0;
    const add = (isolation: Isolation, retries = 3) =>
      client.stm({ isolation, retries }).transact(async (tx) => {
        const n = Number(await tx.get("n"));
        if (tries++ === 0) await client.put("n").value(10);
        await tx.put("n").value(n + 1);
      });
    await add(Isolation.SerializableSnapshot);
    assert.deepEqual([await client.get("n").number(), tries], [11, 2]);
    tries = 0;
    await assert.rejects(() => add(Isolation.RepeatableReads, 0), STMConflictError);
  });

  test("tells errors by their classes", async () => {
    const nobody = new Ours({ hosts: "127.0.0.1:1" });
    await assert.rejects(async () => await nobody.get("a"), GRPCUnavailableError);
    await assert.rejects(async () => await nobody.put("a").value("1"), GRPCUnavailableError);
    nobody.close();
    await assert.rejects(
      () =>
        client
          .get("a")
          .options({ deadline: new Date(0) })
          .exec(),
      GRPCDeadlineExceededError,
    );
    assert.throws(() => new Ours({ hosts: ["https://a:1", "http://b:1"] }), /mix of secure and insecure/);
    await using guarded = await Etcd.start({ users: { root: "secret", app: { password: "word" } } });
    const app = new Ours({ hosts: [...guarded.endpoints], auth: { username: "app", password: "word" } });
    await assert.rejects(async () => await app.get("a"), EtcdPermissionDeniedError);
    app.close();
    const root = new Ours({ hosts: [...guarded.endpoints], auth: { username: "root", password: "secret" } });
    const role = await root.role("reader").create();
    await role.grant({ permission: "Read", range: root.range({ prefix: "app/" }) });
    assert.deepEqual(
      (await role.permissions()).map(({ permission, range }) => [
        permission,
        range.start.toString(),
        range.end.toString(),
      ]),
      [["Read", "app/", "app0"]],
    );
    assert.deepEqual(
      (await root.getUsers()).map(({ name }) => name),
      ["app", "root"],
    );
    root.close();
  });

  test("takes what stands in for a server in tests", async () => {
    client.mock({ exec: async <T>() => JSON.parse('{"kvs":[]}') as T });
    assert.equal(await client.get("a"), null);
    client.unmock();
    assert.equal(Number((await client.maintenance.status()).raftTerm) > 0, true);
  });
});
