import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { Client } from "../../src/client/index.ts";
import { Etcd, EtcdResetError, type EtcdSettings } from "../../src/embedded/index.ts";
import { repositoryRoot, run } from "../harness/programs.ts";
import { freePorts } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";

const failures: unknown[] = [];
after(() => assert.deepEqual(failures, [], "no member ends by itself"));

const start = (settings: EtcdSettings = {}): Promise<Etcd> =>
  Etcd.start({ listen: false, onFailure: (member, error) => failures.push([member, error]), ...settings });

describe("etcd inside the process", () => {
  test("serves clients without a socket, and from outside on a port of its own", async () => {
    await using etcd = await start({ listen: 0 });
    const inside = etcd.client();
    await inside.put("greeting", "hello");
    assert.equal(etcd.endpoints.length, 1);
    await using outside = new Client({ endpoints: etcd.endpoints });
    assert.equal((await outside.get("greeting"))?.value, "hello");
    await using silent = await start();
    assert.deepEqual(silent.endpoints, []);
    // The members say themselves how they are reached.
    await inside.cluster.sync();
    assert.equal((await inside.get("greeting"))?.value, "hello");
  });

  test("leaves nothing behind: no file, and nothing that keeps the process running", async () => {
    const files = mkdtempSync(join(tmpdir(), "kvorum-embedded-"));
    const code = `
      import { Etcd } from "./src/embedded/index.ts";
      const etcd = await Etcd.start({ members: 3, tls: true });
      const client = etcd.client();
      await client.put("a", "1");
      await client.leases.grant(10);
      client.watch("a");
      await etcd.kill("m1");
      await etcd.reset();
      await etcd.kill("m2");
      await etcd.stop();
      await etcd.stop();
      console.log("stopped");`;
    const { stdout, stderr } = await run(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code], {
      cwd: repositoryRoot,
      env: { ...process.env, TMPDIR: files },
      timeoutMs: 60_000,
    });
    assert.equal(stdout.toString(), "stopped\n", stderr);
    assert.deepEqual(
      readdirSync(files).filter((name) => !name.startsWith("tsx")),
      [],
    );
    rmSync(files, { recursive: true, force: true });
  });

  test("goes back to snapshots and to its beginning, and keeps its clients", async () => {
    await using etcd = await start();
    const client = etcd.client();
    const first = (await client.put("a", "1")).revision;
    const snapshot = await etcd.snapshot();
    await client.put("a", "2");
    const watcher = client.watch("a");
    await watcher.ready;
    const lease = await client.leases.grant(60);
    await etcd.restore(snapshot);
    await assert.rejects(async () => {
      for await (const _ of watcher);
    }, EtcdResetError);
    assert.ok(lease.signal.aborted);
    const found = await client.get("a");
    assert.deepEqual([found?.value, found?.modRevision], ["1", first]);
    await etcd.reset();
    assert.equal((await client.range("a")).revision, 1);
    assert.equal((await client.put("b", "1")).revision, 2);
    await etcd.restore(snapshot);
    assert.equal((await client.get("a"))?.value, "1");
  });

  test("lets a lease expire when time is put forward, unless its client renews it", async () => {
    await using etcd = await start();
    const client = etcd.client();
    const kept = await client.leases.grant(5);
    const left = await client.leases.grant(30, { keepAlive: false });
    await client.put("kept", "1", { lease: kept });
    await client.put("left", "1", { lease: left });
    await etcd.advance(20_000);
    assert.equal((await client.get("left"))?.value, "1");
    await etcd.advance(15_000);
    await waitFor("the lease is gone", async () => (await client.get("left")) === undefined);
    assert.equal((await client.get("kept"))?.value, "1");
    assert.ok(!kept.signal.aborted);
  });

  test("checks its users", async () => {
    await using etcd = await start({
      users: { root: "secret", app: { password: "word", roles: ["reader"] } },
      roles: { reader: [{ access: "read", prefix: "app/" }] },
    });
    const root = etcd.client({ username: "root", password: "secret" });
    await root.put("app/a", "1");
    const app = etcd.client({ username: "app", password: "word" });
    assert.equal((await app.get("app/a"))?.value, "1");
    await assert.rejects(() => app.put("app/a", "2"), /permission denied/);
    await assert.rejects(() => etcd.client().get("app/a"), /user name is empty/);
    await etcd.reset();
    assert.equal(await root.get("app/a"), undefined);
    await assert.rejects(() => app.put("app/a", "2"), /permission denied/);
  });

  test("serves TLS with a certificate of its own", async () => {
    await using etcd = await Etcd.start({ tls: true });
    await using client = new Client({ endpoints: etcd.endpoints, tls: { ca: etcd.ca! } });
    await client.put("a", "1");
    assert.match(etcd.endpoints[0]!, /^https:/);
  });

  test("compacts, and refuses writes when it is full", async () => {
    await using etcd = await start();
    const client = etcd.client();
    await client.put("a", "1");
    await client.put("a", "2");
    const revision = await etcd.compact();
    await assert.rejects(() => client.get("a", { revision: revision - 1 }), /compacted/);
    await etcd.fill();
    await assert.rejects(() => client.put("a", "3"), /database space exceeded/);
    await client.maintenance.disarm();
    await client.put("a", "3");
  });

  test("takes the time of a slow disk for its writes", async () => {
    await using etcd = await start();
    const client = etcd.client();
    etcd.slowDisk(4000);
    const write = client.put("a", "1");
    await etcd.advance(1000);
    let isDone = false;
    void write.then(() => {
      isDone = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(!isDone);
    await etcd.advance(4000);
    await write;
  });

  test("refuses settings and calls that make no sense, and says why", async () => {
    await assert.rejects(() => start({ members: 0 }), /members is 0: give 1 to 7/);
    await assert.rejects(() => start({ members: ["a", "a"] }), /same name/);
    await assert.rejects(() => start({ members: 3, listen: [1, 2] }), /2 ports for 3 members/);
    await assert.rejects(() => start({ users: { app: "a" } }), /users has no root/);
    await using etcd = await start();
    await assert.rejects(() => etcd.kill("m2"), /there is no member m2, but m1/);
    await assert.rejects(() => etcd.advance(-1), /advance by -1/);
    await etcd.kill("m1");
    await assert.rejects(() => etcd.fill("m1"), /member m1 is off/);
  });
});

describe("etcd inside the process, with a data directory", () => {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-embedded-"));
  after(() => rmSync(dir, { recursive: true, force: true }));

  test("keeps its data over stops and kills", async () => {
    const dataDir = join(dir, "one");
    {
      await using etcd = await start({ dataDir });
      const client = etcd.client();
      await client.put("a", "1");
      await etcd.kill("m1");
      await etcd.restart();
      assert.equal((await client.get("a"))?.value, "1");
      await client.put("b", "2");
      await assert.rejects(() => etcd.reset(), /this one has a dataDir/);
    }
    await using etcd = await start({ dataDir });
    assert.equal((await etcd.client().get("b"))?.value, "2");
  });

  test("keeps it in three members", async () => {
    const dataDir = join(dir, "three");
    {
      await using etcd = await start({ dataDir, members: 3 });
      await etcd.client().put("a", "1");
    }
    await using etcd = await start({ dataDir, members: 3 });
    assert.equal((await etcd.client().get("a"))?.value, "1");
  });
});

describe("a cluster of three inside the process", () => {
  test("elects another leader when it is killed, cut off or stands still", async () => {
    await using etcd = await start({ members: 3 });
    const client = etcd.client();
    await client.put("a", "0");
    for (const way of ["kill", "partition", "pause", "shutDown"] as const) {
      const old = await etcd.leader();
      await etcd[way](old);
      await etcd.advance(1000);
      const next = await etcd.leader();
      if (way !== "partition") assert.notEqual(next, old, way);
      await waitFor(`a write after ${way}`, () =>
        client.put("a", way, { timeoutMs: 2000 }).then(
          () => true,
          () => false,
        ),
      );
      if (way === "pause") etcd.resume();
      else if (way === "partition") etcd.heal();
      else await etcd.restart();
      await etcd.advance(1000);
      assert.equal((await client.get("a"))?.value, way);
    }
  });

  test("moves its leadership, and is one again after a reset", async () => {
    await using etcd = await start({ members: 3 });
    const client = etcd.client();
    const target = etcd.members.find((name) => name !== "m1")!;
    await etcd.moveLeader(target);
    assert.equal(await etcd.leader(), target);
    await client.put("a", "1");
    await etcd.kill("m1", "m2");
    assert.deepEqual(
      etcd.members.map((name) => etcd.state(name)),
      ["off", "off", "running"],
    );
    await etcd.reset();
    assert.equal(await client.get("a"), undefined);
    assert.deepEqual(
      etcd.members.map((name) => etcd.state(name)),
      ["running", "running", "running"],
    );
  });

  test("brings a member that was off up to date, by its log or by a snapshot", async () => {
    await using etcd = await start({ members: 3 });
    const client = etcd.client();
    await etcd.kill("m3");
    await etcd.leader();
    for (let i = 0; i < 50; i++) await client.put("a", `${i}`);
    await etcd.restart("m3");
    const found = await client.get("a", { endpoint: "m3:2379" });
    assert.equal(found?.value, "49");
  });
});

test("members in several processes are one cluster: the first is founded alone, others join it", async () => {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-embedded-"));
  const [first, second] = (await freePorts(2)).map((port) => `http://127.0.0.1:${port}`);
  try {
    const settings = { listen: 0, dataDir: join(dir, "1"), members: ["one"], peers: { url: first! } };
    await using one = await start(settings);
    const client = one.client();
    await client.put("a", "1");
    await client.cluster.add([second!]);
    const cluster = { one: first!, two: second! };
    // Each has its own time and loop here, as in two processes.
    await using two = await start({
      listen: 0,
      dataDir: join(dir, "2"),
      members: ["two"],
      peers: { url: second!, cluster, join: true },
    });
    assert.equal((await two.client().get("a", { timeoutMs: 30_000 }))?.value, "1");
    await two.client().put("a", "2", { timeoutMs: 30_000 });
    assert.equal((await client.get("a", { timeoutMs: 30_000 }))?.value, "2");
    const names = (await client.cluster.members()).map(({ name }) => name);
    assert.deepEqual(names.sort(), ["one", "two"]);
    await client.close();
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test("peers of several members in one process are refused", async () => {
  await assert.rejects(start({ members: 2, peers: { url: "http://127.0.0.1:1" } }), /peers is for one member/);
});
