/**
 * etcd in the tests of a Node application: a separate member for a test file, on ports chosen by the system, used
 * through the npm client etcd3. `node.test.mjs` needs no process.
 *
 *   node --test examples/process.test.mjs
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Etcd3 } from "etcd3";

const program = fileURLToPath(new URL("../bin/etcd", import.meta.url));
const dataDir = mkdtempSync(join(tmpdir(), "example-"));
let member;
let client;

before(async () => {
  const url = `http://127.0.0.1:${await freePort()}`;
  const args = ["--data-dir", dataDir, "--unsafe-no-fsync", "--listen-peer-urls", "http://127.0.0.1:0"];
  args.push("--listen-client-urls", url, "--advertise-client-urls", url, "--log-level", "error");
  member = spawn(process.execPath, [program, ...args], { stdio: "inherit" });
  await healthy(url);
  client = new Etcd3({ hosts: url });
});

after(async () => {
  client?.close();
  if (member?.kill()) await once(member, "exit");
  rmSync(dataDir, { recursive: true, force: true });
});

test("a value can be read after it was put", async () => {
  await client.put("greeting").value("hello");
  assert.equal(await client.get("greeting").string(), "hello");
});

test("a watcher receives puts", async () => {
  const watcher = await client.watch().prefix("jobs/").create();
  const heard = once(watcher, "put");
  await client.put("jobs/1").value("sweep");
  const [event] = await heard;
  assert.equal(event.key.toString(), "jobs/1");
  await watcher.cancel();
});

test("of two clients that want a lock, one gets it", async () => {
  const first = await client.lock("door").acquire();
  await assert.rejects(client.lock("door").acquire());
  await first.release();
});

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Waits until the member serves, at most a minute. */
async function healthy(url) {
  for (const end = Date.now() + 60_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const answer = await fetch(`${url}/health`).catch(() => undefined);
    if (answer?.ok) return;
    if (member.exitCode !== null) break;
  }
  throw new Error(`the member does not serve at ${url}`);
}
