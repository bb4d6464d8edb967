import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { getAnswer } from "../../src/pod/http.ts";

test("an answer whose connection breaks in its middle is an error at once, not a wait for ever", async (t) => {
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-length": "100" });
    response.write("begins", () => response.destroy());
  }).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await assert.rejects(getAnswer(`http://127.0.0.1:${port}/state`, {}, systemClock), /aborted|hang up|ECONNRESET/);
});
