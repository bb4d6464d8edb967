import assert from "node:assert/strict";
import { test } from "node:test";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { startInProcess } from "../harness/in-process.ts";

const put = { key: Buffer.from("a"), value: Buffer.from("b") };

test("a request that takes longer than the limit is logged with its time and size", async () => {
  // Every request takes longer than no time.
  const server = await startInProcess({ server: { warningUnaryRequestDurationMs: 0 } });
  try {
    await server.client.unary(KVService.Put, put);
    const line = server.logger.lines.find(
      ({ message, fields }) => message === "request stats" && fields["request"] === "Put",
    );
    assert.ok(line, "the put is logged");
    assert.equal(line.level, "warn");
    assert.equal(line.fields["request size"], 6);
    assert.match(String(line.fields["time spent"]), /^[\d.]+(ns|µs|ms|s)$/);
  } finally {
    await server.close();
  }
});

test("a request within the limit is not logged", async () => {
  const server = await startInProcess({ server: { warningUnaryRequestDurationMs: 3_600_000 } });
  try {
    await server.client.unary(KVService.Put, put);
    assert.equal(server.logger.has("request stats"), false);
  } finally {
    await server.close();
  }
});
