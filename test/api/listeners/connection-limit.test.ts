// Slow: hundreds of connections, and limits that are waited for.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, type TestContext, test } from "node:test";
import { ConnectionLimit, connectionLimits } from "../../../src/api/listeners/connection-limit.ts";
import { connect as connectClient, type RawClient } from "../../../src/client/raw.ts";
import { KVService, WatchCreateRequest, WatchService } from "../../../src/proto/etcdserverpb.ts";
import { type InProcess, type InProcessOptions, startInProcess } from "../../harness/in-process.ts";
import { MemoryLogger } from "../../harness/memory-logger.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";
import { patience, waitFor } from "../../harness/wait.ts";

const bytes = (text: string): Buffer => Buffer.from(text);

async function start(
  t: TestContext,
  maxClientConnections: number,
  more: InProcessOptions["etcd"] = {},
): Promise<InProcess> {
  const member = await startInProcess({ etcd: { maxClientConnections, ...more } });
  t.after(async () => {
    await member.close();
    assert.deepEqual(member.failures, []);
  });
  return member;
}

async function open(t: TestContext, url: string, count: number, text = ""): Promise<Socket[]> {
  const { hostname, port } = new URL(url);
  const sockets = Array.from({ length: count }, () => connect(Number(port), hostname).on("error", () => {}));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  if (text !== "") for (const socket of sockets) socket.write(text);
  return sockets;
}

async function put(t: TestContext, url: string): Promise<void> {
  const client = connectClient(url);
  t.after(() => client.close());
  await client.unary(KVService.Put, { key: bytes("k"), value: bytes("v") }, { timeoutMs: patience(8000) });
}

/** Keeps a connection busy. */
async function watch(client: RawClient): Promise<{ cancel(): void }> {
  const stream = client.stream(WatchService.Watch);
  await stream.send({ createRequest: WatchCreateRequest.create({ key: bytes("k") }) });
  await stream[Symbol.asyncIterator]().next();
  return stream;
}

const metric = async (member: InProcess, name: string): Promise<number> => {
  const page = await (await fetch(`${member.url}/metrics`, { headers: { connection: "close" } })).text();
  return Number(new RegExp(`^kvorum_network_connections${name}\\{listener="client"\\} (\\d+)`, "m").exec(page)?.[1]);
};

describe("at the limit of connections", () => {
  test("silent connections make room for active ones, and are logged once", async (t) => {
    const member = await start(t, 20);
    await open(t, member.url, 100);
    for (let i = 0; i < 5; i++) await put(t, member.url);
    assert.ok((await metric(member, "")) <= 20);
    assert.equal(await metric(member, "_max"), 20);
    assert.ok((await metric(member, "_displaced_total")) >= 80);
    const lines = member.logger.lines.filter(({ message }) => /client connection/.test(message));
    assert.equal(lines.length, 1);
    assert.match(String(lines[0]!.fields["advice"]), /--max-client-connections/);
  });

  test("half a request counts as silent, as does a preface alone", async (t) => {
    const member = await start(t, 20);
    await open(t, member.url, 50, "POST /v3/kv/range HTTP/1.1\r\nHost: a");
    await open(t, member.url, 50, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    await put(t, member.url);
    assert.equal((await fetch(`${member.url}/health`)).status, 200);
  });

  test("idle HTTP/1 connections between requests make room", async (t) => {
    const member = await start(t, 20);
    const resting = await open(t, member.url, 19, "GET /version HTTP/1.1\r\nHost: a\r\n\r\n");
    await Promise.all(resting.map((socket) => once(socket, "data")));
    for (let i = 0; i < 3; i++) await put(t, member.url);
    assert.ok(resting.some((socket) => socket.destroyed || socket.readableEnded || !socket.writable));
  });

  test("new connections are closed when all others are busy, and served again when one has gone", async (t) => {
    const member = await start(t, 10);
    // The member's own client is one of them.
    const clients = [member.client, ...Array.from({ length: 9 }, () => connectClient(member.url))];
    t.after(() => {
      for (const client of clients.slice(1)) client.close();
    });
    const streams: { cancel(): void }[] = [];
    for (const client of clients) streams.push(await watch(client));
    const [refused] = await open(t, member.url, 1);
    await once(refused!.resume(), "close");
    assert.ok(member.logger.lines.some(({ message }) => message.startsWith("refused a client connection")));
    streams[1]!.cancel();
    clients[1]!.close();
    await waitFor(
      "a place is free",
      async () => (await fetch(`${member.url}/health`).catch(() => undefined))?.status === 200,
    );
  });

  test("members have a separate limit", async (t) => {
    const member = await start(t, 10, { listenPeer: [{ kind: "tcp", host: "127.0.0.1", port: 0, url: "" }] });
    await open(t, member.url, 100);
    const [url] = member.etcd.peerAddresses;
    assert.equal((await fetch(`${url}/version`)).status, 200);
    await open(t, url!, 1500);
    assert.equal((await fetch(`${url}/version`)).status, 200);
    await put(t, member.url);
  });
});

describe("the limits", () => {
  const limits = (descriptors: number, clientsMax = 0) => {
    const logger = new MemoryLogger();
    const { clients, peers } = connectionLimits({ clientsMax, clock: new VirtualClock(), logger, descriptors });
    return { clients: clients.max, peers: peers.max, warned: logger.lines.length > 0 };
  };

  test("reserve descriptors for files, and for members", () => {
    assert.deepEqual(limits(20_000), { clients: 18_826, peers: 1024, warned: false });
    assert.deepEqual(limits(1024), { clients: 765, peers: 109, warned: false });
    assert.deepEqual(limits(300), { clients: 118, peers: 32, warned: false });
    assert.deepEqual(limits(200), { clients: 32, peers: 32, warned: true });
  });

  test("are the operator's where those are lower", () => {
    assert.equal(limits(1024, 100).clients, 100);
    assert.equal(limits(1024, 5000).clients, 765);
  });

  test("count a connection until it is closed", () => {
    const limit = new ConnectionLimit({
      who: "client",
      max: 1,
      advice: "",
      clock: new VirtualClock(),
      logger: new MemoryLogger(),
    });
    const closers: (() => void)[] = [];
    const socket = (): Socket =>
      ({ once: (_: string, closed: () => void) => closers.push(closed), destroy() {} }) as unknown as Socket;
    const first = socket();
    assert.equal(limit.admit(first), true);
    limit.spoke(first);
    assert.equal(limit.admit(socket()), false);
    closers[0]!();
    assert.equal(limit.admit(socket()), true);
    assert.deepEqual([limit.open, limit.refused, limit.displaced], [1, 1, 0]);
  });
});
