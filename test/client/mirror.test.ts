import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Client, Mirror, type MirrorChange } from "../../src/client/index.ts";
import { startInProcess, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { servedClient } from "./served.ts";

describe("a mirror", () => {
  let client: Client;
  servedClient((served) => (client = served));

  test("shows what was there, and what is written, when it is told to wait for it", async () => {
    const space = client.namespace("mirror/");
    await space.put("b", "1");
    await space.put("a", "1");
    const changes: MirrorChange<string, string>[] = [];
    await using mirror = new Mirror(space, { all: true }, { onChange: (change) => changes.push(change) });
    await mirror.ready;
    assert.deepEqual(
      mirror.values().map(({ key, value }) => [key, value]),
      [
        ["a", "1"],
        ["b", "1"],
      ],
    );
    const { revision } = await space.put("a", "2");
    await mirror.waitFor(revision);
    assert.equal(mirror.get("a")?.value, "2");
    await space.delete("b");
    await client.put("elsewhere", "1");
    await mirror.sync();
    assert.deepEqual([mirror.has("b"), mirror.size], [false, 1]);
    assert.ok(mirror.revision >= revision + 2);
    assert.deepEqual(
      changes.map((change) => [change.type, change.previous?.value]),
      [
        ["set", "1"],
        ["delete", "1"],
      ],
    );
  });

  test("refuses to show the past once it is closed", async () => {
    const mirror = new Mirror(client, { prefix: "closed/" });
    await mirror.ready;
    mirror.close();
    assert.throws(() => mirror.get("a"), { code: "ERR_CLIENT_CLOSED" });
    await assert.rejects(mirror.sync(), { code: "ERR_CLIENT_CLOSED" });
  });
});

test("a mirror whose history is compacted while it is cut off lists again and reports the differences", async () => {
  const dir = tempDir();
  let server = await startInProcess({ dataDir: dir.path });
  await using client = new Client({ endpoints: server.url });
  await client.put("k/kept", "1");
  await client.put("k/changed", "1");
  await client.put("k/deleted", "1");
  const changes: string[] = [];
  const onChange = (change: MirrorChange<string, string>) =>
    changes.push(change.type === "set" ? `${change.kv.key}=${change.kv.value}` : `${change.key} gone`);
  await using mirror = new Mirror(client, { prefix: "k/" }, { onChange });
  await mirror.ready;
  await server.close(0);
  server = await startInProcess({ dataDir: dir.path });
  const other = new Client({ endpoints: server.url });
  await other.put("k/changed", "2");
  await other.delete("k/deleted");
  const { revision } = await other.put("k/new", "1");
  await other.maintenance.compact(revision);
  client.endpoints = [server.url];
  await waitFor("the new state", () => mirror.revision >= revision);
  assert.deepEqual(changes.toSorted(), ["k/changed=2", "k/deleted gone", "k/new=1"]);
  assert.deepEqual(
    mirror.values().map(({ key }) => key),
    ["k/changed", "k/kept", "k/new"],
  );
  other.close();
  client.close();
  await server.close();
  dir.remove();
});

describe("a transaction", () => {
  let client: Client;
  servedClient((served) => (client = served));

  test("is repeated until nothing that it has read has changed", async () => {
    await client.put("counter", "0");
    const results = await Promise.all(
      Array.from({ length: 20 }, () =>
        client.transaction(
          async (transaction) => {
            const next = Number(await transaction.get("counter")) + 1;
            transaction.put("counter", `${next}`);
            assert.equal(await transaction.get("counter"), `${next}`);
            return next;
          },
          { timeoutMs: 120_000 },
        ),
      ),
    );
    assert.equal((await client.get("counter"))?.value, "20");
    assert.equal(new Set(results.map(({ value }) => value)).size, 20);
    assert.equal(new Set(results.map(({ revision }) => revision)).size, 20);
  });

  test("reads one revision, and writes nothing when its function throws", async () => {
    await client.put("pair/a", "1");
    await client.put("pair/b", "1");
    const { value } = await client.transaction(async (transaction) => {
      const a = await transaction.get("pair/a");
      await client.txn({ success: [] });
      await client.put("pair/b", "2");
      return [a, await transaction.get("pair/b"), await transaction.get("pair/none")];
    });
    assert.deepEqual(value, ["1", "1", undefined]);
    const refused = new Error("refused");
    const failing = client.transaction((transaction) => {
      transaction.delete("pair/a");
      throw refused;
    });
    await assert.rejects(failing, refused);
    assert.equal((await client.get("pair/a"))?.value, "1");
  });
});
