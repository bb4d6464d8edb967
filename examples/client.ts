/**
 * The client library, with a member that it starts for itself: keys, transactions, leases, watches and locks.
 *
 *   node --import tsx examples/client.ts
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Client, op, when } from "kvorum/client";

const url = "http://127.0.0.1:12379";
const dataDir = mkdtempSync(join(tmpdir(), "example-"));
const program = fileURLToPath(new URL("../bin/etcd", import.meta.url));
const args = ["--data-dir", dataDir, "--unsafe-no-fsync", "--listen-peer-urls", "http://127.0.0.1:0"];
args.push("--listen-client-urls", url, "--advertise-client-urls", url, "--log-level", "error");
const member = spawn(process.execPath, [program, ...args], { stdio: "inherit" });

try {
  await using client = new Client({ endpoints: url });
  // Waits until the member serves.
  await client.ready({ timeoutMs: 60_000 });

  // Keys and values are strings, unless a codec says otherwise.
  await client.put("greeting", "hello");
  assert.equal((await client.get("greeting"))?.value, "hello");

  // A namespace is a prefix that its users do not see; JSON is a codec.
  const users = client.namespace("users/").json<{ name: string; logins: number }>();
  await users.put("1", { name: "Ada", logins: 0 });
  await users.put("2", { name: "Grace", logins: 3 });
  for await (const { key, value } of users.list({ all: true })) console.log(key, value.name);

  // Only if nobody has changed it meanwhile. The type of each result follows from its operation.
  const ada = await users.get("1");
  assert.ok(ada);
  const answer = await users.txn({
    compare: [when.modRevision("1", "=", ada.modRevision)],
    success: [op.put("1", { ...ada.value, logins: ada.value.logins + 1 }), op.count({ all: true })],
    failure: [op.get("1")],
  });
  assert.ok(answer.succeeded);
  assert.equal(answer.results[1], 2);

  // What happens from here on, in order, over reconnects.
  const watcher = client.watch({ prefix: "workers/" });
  await watcher.ready;
  {
    // A key that is there while this block is.
    await using lease = await client.leases.grant(10);
    await client.put("workers/1", "here", { lease });
  }
  for await (const event of watcher) {
    console.log(event.type, event.key);
    if (event.type === "delete") break;
  }

  // One at a time, in all processes. What the lock protects can refuse lower tokens, and must stop with the signal.
  {
    await using lock = await client.lock("migration", { ttl: 15 });
    assert.ok(lock.isHeld && !lock.signal.aborted && lock.token > 0);
  }

  // All reads are of one revision; the writes happen only if nothing that was read has changed.
  const { value: left } = await client.transaction(async (transaction) => {
    const seats = Number((await transaction.get("seats")) ?? 10);
    transaction.put("seats", `${seats - 1}`);
    return seats - 1;
  });
  assert.equal(left, 9);
  console.log("done");
} finally {
  if (member.kill()) await once(member, "exit");
  rmSync(dataDir, { recursive: true, force: true });
}
