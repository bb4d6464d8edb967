import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import { connect as connectGrpc } from "../../src/client/raw.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { Remotes } from "../../src/proxy/tcp/remotes.ts";
import { MemoryLogger, startInProcess } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { run, startProxy } from "./helpers.ts";

/** A gateway in front of `endpoints`. */
async function start(t: TestContext, endpoints: readonly string[], ...more: string[]) {
  const started = await startProxy(t, "gateway", `--endpoints=${endpoints.join(",")}`, "start", ...more);
  return { ...started, port: Number(started.address.split(":")[1]) };
}

/** A member that answers each connection with its name and then with what it is sent. */
async function member(
  t: TestContext,
  name: string,
  port = 0,
): Promise<{ address: string; server: Server; sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.write(`${name}:`);
    socket.pipe(socket);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  t.after(() => stop({ server, sockets }));
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, server, sockets };
}

async function stop({
  server,
  sockets,
}: {
  readonly server: Server;
  readonly sockets: ReadonlySet<Socket>;
}): Promise<void> {
  if (!server.listening) return;
  for (const socket of sockets) socket.destroy();
  server.close();
  await once(server, "close");
}

/** What the gateway answers to `text`, until the answer has `bytes` bytes or the connection ends. */
async function ask(port: number, text: string, bytes: number): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.write(text);
  let answer = "";
  socket.setEncoding("utf8");
  await new Promise<void>((resolve) => {
    socket.once("close", () => resolve());
    socket.on("data", (chunk: string) => {
      answer += chunk;
      if (answer.length >= bytes) socket.destroy();
    });
  });
  return answer;
}

test("a gateway forwards connections to the members in turn, bytes as they are", async (t) => {
  const [a, b] = [await member(t, "a"), await member(t, "b")];
  const { port, logger } = await start(t, [`http://${a.address}`, b.address]);
  const answers = [];
  for (let i = 0; i < 4; i++) answers.push(await ask(port, "hello", 7));
  assert.deepEqual(answers, ["a:hello", "b:hello", "a:hello", "b:hello"]);
  const ready = logger.lines.find(({ message }) => message === "ready to proxy client requests");
  assert.deepEqual(ready?.fields["endpoints"], [a.address, b.address]);
});

test("a client of etcd works through a gateway", async (t) => {
  const server = await startInProcess();
  t.after(() => server.close());
  const { address } = await start(t, [server.url]);
  const client = connectGrpc(address);
  t.after(() => client.close());
  const [key, value] = [Buffer.from("k"), Buffer.alloc(1_000_000, "v")];
  await client.unary(KVService.Put, { key, value });
  const { kvs } = await client.unary(KVService.Range, { key });
  assert.deepEqual(Buffer.from(kvs[0]!.value), value);
});

test("a member that cannot be reached is passed over, and used again after the retry delay", async (t) => {
  const [a, b] = [await member(t, "a"), await member(t, "b")];
  await stop(a);
  const { port, logger } = await start(t, [a.address, b.address], "--retry-delay=50ms");
  for (let i = 0; i < 3; i++) assert.equal(await ask(port, "x", 3), "b:x");
  const deactivated = logger.lines.filter(({ message }) => message === "deactivated endpoint");
  assert.equal(deactivated[0]?.fields["address"], a.address);
  assert.match(String(deactivated[0]?.fields["error"]), /ECONNREFUSED/);
  await waitFor("a failed attempt", () =>
    logger.has("failed to activate endpoint (stay inactive for another interval)"),
  );
  await member(t, "a again", Number(a.address.split(":")[1]));
  await waitFor("the member to be used again", () => logger.has("activated"));
  const answers = new Set([await ask(port, "x", 3), await ask(port, "x", 3)]);
  assert.ok(answers.has("b:x") && answers.size === 2, [...answers].join());
});

test("a client is let go when no member can be reached", async (t) => {
  const a = await member(t, "a");
  await stop(a);
  const { port } = await start(t, [a.address]);
  assert.equal(await ask(port, "x", 1), "");
});

test("when one side ends, so does the other", async (t) => {
  const a = await member(t, "a");
  const { port } = await start(t, [a.address]);
  const clients = [connect(port, "127.0.0.1"), connect(port, "127.0.0.1")];
  for (const client of clients) client.on("error", () => {}).resume();
  await waitFor("two connections to the member", () => a.sockets.size === 2);
  clients[0]!.destroy();
  await waitFor("the member's side to end", () => a.sockets.size === 1);
  for (const socket of a.sockets) socket.destroy();
  await once(clients[1]!, "close");
});

test("the proxy does not read ahead of a member that does not read", async (t) => {
  const held: Socket[] = [];
  const server = createServer((socket) => {
    held.push(socket.on("error", () => {}).pause());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of held) socket.destroy();
    server.close();
  });
  const { port } = await start(t, [`127.0.0.1:${(server.address() as AddressInfo).port}`]);
  const client = connect(port, "127.0.0.1").on("error", () => {});
  t.after(() => client.destroy());
  const chunk = Buffer.alloc(1 << 20);
  const most = 256;
  let taken = 0;
  while (taken < most && client.write(chunk, () => taken++)) await once(client, "drain").catch(() => {});
  let before = -1;
  await waitFor("the sockets to be full", async () => {
    const same = before === taken;
    before = taken;
    for (let i = 0; i < 8; i++) client.write(chunk, () => taken++);
    await new Promise(setImmediate);
    return same && client.writableLength > 8 * chunk.length;
  });
  assert.ok(taken < 64, `${taken} MiB were taken`);
});

for (const [what, args, message] of [
  ["an endpoint without port", ["--endpoints=a"], /^error parsing endpoint "a": an endpoint is host:port/],
  ["a listen address without port", ["--listen-addr=xx"], /^failed to validate listen address: xx\n$/],
  [
    "a gateway to itself",
    ["--endpoints=127.0.0.1:23790"],
    /^SRV or endpoint \(127\.0\.0\.1:23790->127\.0\.0\.1:23790\) should not resolve to the gateway listen addr/,
  ],
  ["an unknown flag", ["--bogus"], /^Error: unknown flag: --bogus\nUsage:\n {2}etcd gateway start \[flags\]/],
  ["a delay that is none", ["--retry-delay=x"], /invalid argument "x" for "--retry-delay" flag/],
  [
    "a host that does not exist",
    ["--endpoints=nowhere.invalid:1"],
    /^failed to resolve endpoint host: nowhere\.invalid/,
  ],
] as const) {
  test(`the start is refused for ${what}`, async () => {
    const { code, err } = await run("gateway", "start", ...args);
    assert.equal(code, 1);
    assert.match(err, message);
  });
}

test("an address in use is named", async (t) => {
  const a = await member(t, "a");
  const { code, err } = await run("gateway", "start", "--endpoints=127.0.0.1:1", `--listen-addr=${a.address}`);
  assert.equal(code, 1);
  assert.match(err, new RegExp(`^listen tcp ${a.address}: .*EADDRINUSE`));
});

test("help names every flag, and a command that does not exist gets help", async () => {
  const { out } = await run("gateway", "start", "--help");
  const flags = [...out.matchAll(/--([a-z-]+)/g)].map((match) => match[1]);
  const all = "listen-addr discovery-srv discovery-srv-name insecure-discovery trusted-ca-file endpoints retry-delay";
  for (const flag of all.split(" ")) assert.ok(flags.includes(flag), flag);
  assert.match((await run("gateway", "bogus")).out, /etcd gateway \[command\]/);
});

test("the lowest priority takes all, by weight, and one connection in a hundred goes to a member of weight 0", () => {
  const drawn: number[] = [];
  const remotes = new Remotes({
    remotes: [
      { host: "a", port: 1, address: "a", priority: 1, weight: 30 },
      { host: "b", port: 1, address: "b", priority: 1, weight: 70 },
      { host: "c", port: 1, address: "c", priority: 1, weight: 0 },
      { host: "d", port: 1, address: "d", priority: 2, weight: 100 },
    ],
    retryMs: 60_000,
    clock: systemClock,
    random: { ...systemRandom, below: () => drawn.shift()! },
    logger: new MemoryLogger(),
  });
  const pick = (...draws: number[]): string | undefined => {
    drawn.push(...draws);
    return remotes.pick()?.address;
  };
  assert.deepEqual([pick(1, 0), pick(1, 29), pick(1, 30), pick(1, 99), pick(0)], ["a", "a", "b", "b", "c"]);
});
