import assert from "node:assert/strict";
import * as net from "node:net";
import { test } from "node:test";
import { ConnectionLimit } from "../../../src/api/listeners/connection-limit.ts";
import { Listeners } from "../../../src/api/listeners/listeners.ts";
import { systemClock as clock } from "../../../src/base/clock.ts";
import type { RpcSocket } from "../../../src/rpc/contract.ts";
import { MemoryLogger } from "../../harness/memory-logger.ts";
import { waitFor } from "../../harness/wait.ts";

test("of many connections before the server is ready, the newest wait for it", async (t) => {
  const logger = new MemoryLogger();
  const limit = new ConnectionLimit({ who: "client", max: 5000, advice: "", clock, logger });
  const listeners = new Listeners({ clock, logger, tls: undefined, limit });
  t.after(() => listeners.close());
  const [listener] = await listeners.bindAll(
    [{ kind: "tcp", host: "127.0.0.1", port: 0, url: "http://127.0.0.1:0" }],
    "http",
  );
  const port = Number(new URL(listener!.urls[0]!).port);
  const clients: net.Socket[] = [];
  t.after(() => {
    for (const client of clients) client.destroy();
  });
  let closed = 0;
  for (let i = 0; i < EARLY_MAX + 1; i++) {
    const client = net.connect(port, "127.0.0.1");
    client.once("close", () => closed++);
    client.on("error", () => {});
    clients.push(client);
    await new Promise((resolve) => client.once("connect", resolve));
  }
  await waitFor("the oldest is closed", () => closed > 0);
  assert.equal(closed, 1);
  assert.ok(clients[0]!.destroyed || clients[0]!.readableEnded);
  const served: RpcSocket[] = [];
  listener!.serve((socket) => {
    served.push(socket);
    socket.on("data", (chunk) => socket.write(chunk));
  });
  assert.equal(served.length, EARLY_MAX);
  const newest = clients.at(-1)!;
  newest.write("hello");
  const [echo] = await new Promise<[Buffer]>((resolve) => newest.once("data", (chunk) => resolve([chunk])));
  assert.equal(echo.toString(), "hello");
});

const EARLY_MAX = 1024;
