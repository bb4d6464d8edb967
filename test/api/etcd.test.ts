import assert from "node:assert/strict";
import { once } from "node:events";
import * as http from "node:http";
import * as net from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Code } from "../../src/base/grpc-codes.ts";
import { connect } from "../../src/client/raw.ts";
import { KVService, WatchCreateRequest, WatchService } from "../../src/proto/etcdserverpb.ts";
import { LockService } from "../../src/proto/v3lockpb.ts";
import { startInProcess, tempDir } from "../harness/in-process.ts";
import { patience, waitFor } from "../harness/wait.ts";
import { bytes } from "../server/requests.ts";

const tcp = { kind: "tcp", host: "127.0.0.1", port: 0, url: "" } as const;

describe("listeners", () => {
  test("a unix socket serves gRPC and HTTP", async () => {
    const dir = tempDir();
    const path = join(dir.path, "client.sock");
    const url = `unix://${path}`;
    const member = await startInProcess({ etcd: { listenClient: [{ kind: "unix", path, url }, tcp] } });
    assert.equal(member.etcd.clientAddresses[0], url);
    await member.client.unary(KVService.Put, { key: bytes("over"), value: bytes("unix") });
    const client = connect(url);
    assert.equal((await client.unary(KVService.Range, { key: bytes("over") })).count, 1);
    client.close();
    assert.equal(await getOverSocket(path, "/health"), '{"health":"true","reason":""}');
    await member.close();
    dir.remove();
  });

  test("several addresses serve the same member", async () => {
    const member = await startInProcess({ etcd: { listenClient: [tcp, tcp] } });
    const [first, second] = member.etcd.clientAddresses;
    assert.notEqual(first, second);
    for (const url of [first!, second!]) assert.equal((await fetch(`${url}/health`)).status, 200);
    await member.close();
  });

  test("with separate addresses for HTTP, the others speak only gRPC", async () => {
    const member = await startInProcess({ etcd: { listenClientHttp: [tcp] } });
    const [httpUrl] = member.etcd.clientHttpAddresses;
    assert.equal((await fetch(`${httpUrl}/health`)).status, 200);
    assert.equal((await fetch(`${httpUrl}/v3/kv/range`, { method: "POST", body: "{}" })).status, 400);
    await assert.rejects(fetch(`${member.url}/health`), causedBy("UND_ERR_SOCKET"));
    await member.client.unary(KVService.Put, { key: bytes("a") });
    await member.close();
  });

  test("a port in use is reported before the data directory is touched", async () => {
    const taken = net.createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => taken.once("listening", resolve));
    const { port } = taken.address() as net.AddressInfo;
    const dir = tempDir();
    const dataDir = join(dir.path, "data");
    await assert.rejects(
      startInProcess({ dataDir, etcd: { listenClient: [tcp, { ...tcp, port }] } }),
      /bind: address already in use: another process listens there/,
    );
    assert.equal((await import("node:fs")).existsSync(dataDir), false);
    taken.close();
    dir.remove();
  });

  test("a client that connects before the member is ready is served as soon as it is", async () => {
    let address: net.AddressInfo | undefined;
    const listen = net.Server.prototype.listen;
    const early: Promise<string>[] = [];
    net.Server.prototype.listen = function (this: net.Server, ...args: unknown[]) {
      this.once("listening", () => {
        const bound = this.address();
        if (typeof bound !== "object" || bound === null) return;
        address = bound;
        early.push(fetch(`http://127.0.0.1:${bound.port}/health`).then((response) => response.text()));
      });
      return Reflect.apply(listen, this, args) as net.Server;
    } as typeof listen;
    try {
      const member = await startInProcess();
      assert.ok(address !== undefined);
      assert.deepEqual(await Promise.all(early), ['{"health":"true","reason":""}']);
      await member.close();
    } finally {
      net.Server.prototype.listen = listen;
    }
  });
});

describe("the HTTP side", () => {
  test("tells browsers which origins may call, and answers their preflight request", async () => {
    const all = await startInProcess();
    const answer = await fetch(`${all.url}/version`);
    assert.equal(answer.headers.get("access-control-allow-origin"), "*");
    const preflight = await fetch(`${all.url}/v3/kv/range`, { method: "OPTIONS" });
    assert.equal(preflight.status, 200);
    assert.equal(preflight.headers.get("access-control-allow-headers"), "accept, content-type, authorization");
    await all.close();

    const one = await startInProcess({ etcd: { cors: ["http://good.example"] } });
    const ask = async (origin: string): Promise<string | null> =>
      (await fetch(`${one.url}/version`, { headers: { origin } })).headers.get("access-control-allow-origin");
    assert.equal(await ask("http://good.example"), "http://good.example");
    assert.equal(await ask("http://bad.example"), null);
    await one.close();
  });

  test("answers only to the allowed host names", async () => {
    const member = await startInProcess({ etcd: { hostWhitelist: ["good.example"] } });
    const { port } = new URL(member.url);
    const ask = (host: string): Promise<number> =>
      new Promise((resolve, reject) => {
        http
          .get({ host: "127.0.0.1", port, path: "/version", headers: { host } }, (response) => {
            response.resume();
            resolve(response.statusCode!);
          })
          .on("error", reject);
      });
    assert.equal(await ask("good.example"), 200);
    assert.equal(await ask(`good.example:${port}`), 200);
    assert.equal(await ask("evil.example"), 421);
    await member.close();
  });

  test("serves several requests on one connection, and reports a request that is not HTTP", async () => {
    const member = await startInProcess();
    const { port } = new URL(member.url);
    const socket = net.connect(Number(port), "127.0.0.1");
    let text = "";
    socket.on("data", (part) => {
      text += part;
    });
    const request = "GET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    socket.write(request.slice(0, 3));
    for (let i = 0; i < 20; i++) await turn();
    socket.write(request.slice(3) + request);
    await waitFor("two answers", () => text.split("HTTP/1.1 200 OK").length === 3);
    socket.write("this is not HTTP\r\n\r\n");
    await waitFor("a refusal", () => text.includes("HTTP/1.1 400 Bad Request"));
    await waitFor("its end", () => socket.readableEnded);
    await member.close();
  });

  test("does not act on an incomplete request", async () => {
    const member = await startInProcess();
    const { port } = new URL(member.url);
    const { committedIndex } = member.etcd.server.replication;
    const socket = net.connect(Number(port), "127.0.0.1");
    socket.write("POST /v3/lease/grant HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    socket.write('{"TTL":"10"}');
    // The server is in this process: it reads what it was sent in a turn of this loop.
    for (let i = 0; i < 20; i++) await turn();
    socket.destroy();
    await once(socket, "close");
    for (let i = 0; i < 20; i++) await turn();
    assert.equal(member.etcd.server.replication.committedIndex, committedIndex);
    await member.close();
  });
});

describe("the end of a member", () => {
  test("lets running requests finish, ends streams, and frees port and data directory", async () => {
    const dir = tempDir();
    const dataDir = join(dir.path, "data");
    const member = await startInProcess({ dataDir });
    const watch = member.client.stream(WatchService.Watch);
    await watch.send({ createRequest: WatchCreateRequest.create({ key: bytes("a") }) });
    const responses = watch[Symbol.asyncIterator]();
    await responses.next();
    const ended = responses.next().then(
      () => "ended",
      () => "failed",
    );
    const idle = await fetch(`${member.url}/health`);
    await idle.text();
    const puts = Array.from({ length: 50 }, (_, i) => member.client.unary(KVService.Put, { key: bytes(`k${i}`) }));
    await puts[0];
    const closing = member.etcd.close(500);
    const outcomes = await Promise.allSettled(puts);
    assert.ok(outcomes.filter(({ status }) => status === "fulfilled").length >= 1);
    await closing;
    assert.ok(["ended", "failed"].includes(await ended));
    await assert.rejects(fetch(`${member.url}/health`), causedBy("ECONNREFUSED"));
    assert.deepEqual(member.failures, []);
    member.client.close();
    const again = await startInProcess({ dataDir });
    const { count } = await again.client.unary(KVService.Range, { key: bytes("k"), rangeEnd: bytes("l") });
    assert.ok(count >= outcomes.filter(({ status }) => status === "fulfilled").length, "what was answered is there");
    await again.close();
    dir.remove();
  });

  test("does not wait for clients waiting for a lock", async () => {
    const member = await startInProcess();
    await member.client.unary(LockService.Lock, { name: bytes("l") });
    const waiting = member.client.unary(LockService.Lock, { name: bytes("l") });
    const refused = assert.rejects(waiting, { code: Code.UNAVAILABLE });
    const overHttp = fetch(`${member.url}/v3/lock/lock`, { method: "POST", body: '{"name":"bA=="}' }).then(
      (response) => response.status,
      () => -1,
    );
    await waitFor("both wait", async () => {
      const range = { key: bytes("l/"), rangeEnd: bytes("l0") };
      return (await member.client.unary(KVService.Range, range)).count === 3;
    });
    const startMs = performance.now();
    await member.etcd.close(200);
    assert.ok(performance.now() - startMs < patience(2000));
    await refused;
    assert.equal(await overHttp, -1, "the connection ends without an answer");
    member.client.close();
    assert.deepEqual(member.failures, []);
  });

  test("may be requested twice", async () => {
    const member = await startInProcess();
    await member.client.unary(KVService.Put, { key: bytes("a") });
    await Promise.all([member.etcd.close(100), member.etcd.close(0)]);
    await member.close();
  });
});

/** `fetch` gives the reason of a failure in the cause. */
const causedBy = (code: string) => (error: Error) => {
  assert.equal((error.cause as NodeJS.ErrnoException).code, code);
  return true;
};

function getOverSocket(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    http
      .get({ socketPath, path }, (response) => {
        let text = "";
        response.on("data", (part) => {
          text += part;
        });
        response.on("end", () => resolve(text));
      })
      .on("error", reject);
  });
}
