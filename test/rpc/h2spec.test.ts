/** The conformance suite of HTTP/2 and HPACK, https://github.com/summerwind/h2spec, from PATH or the H2SPEC variable. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { test } from "node:test";
import { TestServer } from "./harness.ts";

const program = process.env["H2SPEC"] ?? "h2spec";
const missing = spawnSync(program, ["--version"]).error !== undefined;
const skip = missing && process.env["KVORUM_REQUIRE_ALL"] !== "1" ? `${program} is not installed` : false;

test("h2spec passes in full", { skip }, async () => {
  const server = await TestServer.start({
    maxConcurrentStreams: 100,
    // The suite's errors come after the head of a request, which must not be answered by then.
    http2Request: (request) => {
      const answer = (): void => request.respond(200, { "content-type": "text/plain" }, "kvorum answers h2spec");
      request.readBody(() => {}, answer);
    },
  });
  const child = spawn(program, ["-h", "127.0.0.1", "-p", String(server.port), "-o", "2"]);
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  await new Promise<void>((resolve, reject) => child.on("close", () => resolve()).on("error", reject));
  await server.stop();
  const summary = /(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed/.exec(output);
  assert.ok(summary, `no summary in: ${output.slice(-500)}`);
  assert.equal(summary[1], summary[2], output);
  assert.ok(Number(summary[1]) >= 145, summary[0]);
});
