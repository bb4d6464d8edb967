/** Every HTTP response has exactly the headers of etcd's. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type InProcess, startInProcess } from "../../harness/in-process.ts";

const TEXT = "text/plain; charset=utf-8";
const JSON_TYPE = "application/json";
const CORS = {
  "access-control-allow-headers": "accept, content-type, authorization",
  "access-control-allow-methods": "POST, GET, OPTIONS, PUT, DELETE",
  "access-control-allow-origin": "*",
};
const NOSNIFF = { "x-content-type-options": "nosniff" };

/** For the connection, not the response. */
const OF_THE_CONNECTION = ["connection", "content-length", "date", "keep-alive", "transfer-encoding"];

const answers: readonly (readonly [request: string, status: number, headers: Record<string, string>, body?: string])[] =
  [
    ["GET /health", 200, { "content-type": TEXT }],
    ["GET /health?serializable=true", 200, { "content-type": TEXT }],
    ["POST /health", 405, { allow: "GET", "content-type": TEXT, ...NOSNIFF }],
    ["GET /livez", 200, { "content-type": TEXT, ...NOSNIFF }],
    ["GET /readyz?verbose", 200, { "content-type": TEXT, ...NOSNIFF }],
    ["POST /readyz", 405, { allow: "GET", "content-type": TEXT, ...NOSNIFF }],
    ["GET /version", 200, { "content-type": JSON_TYPE }],
    ["POST /version", 405, { allow: "GET", "content-type": TEXT, ...NOSNIFF }],
    ["GET /metrics", 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }],
    ["GET /debug/vars", 200, { "content-type": "application/json; charset=utf-8" }],
    ["GET /nope", 404, { "content-type": TEXT, ...NOSNIFF }],
    ["GET //health", 307, { "content-type": "text/html; charset=utf-8", location: "/health" }],
    ["POST //health", 307, { location: "/health" }],
    ["OPTIONS /health", 200, {}],
    [
      "POST /v3/kv/range",
      200,
      { "content-type": JSON_TYPE, "grpc-metadata-content-type": "application/grpc" },
      '{"key":"YQ=="}',
    ],
    ["POST /v3/kv/range", 400, { "content-type": JSON_TYPE }, "{"],
    ["GET /v3/kv/range", 501, { "content-type": JSON_TYPE }],
    ["POST /v3/nope", 404, { "content-type": JSON_TYPE }, "{}"],
  ];

describe("the headers of a response", () => {
  let server: InProcess;
  before(async () => {
    server = await startInProcess();
  });
  after(() => server.close());

  for (const [request, status, headers, body] of answers) {
    test(`of ${request}${body === undefined ? "" : ` with ${body}`} are those of etcd`, async () => {
      const [method, path] = request.split(" ") as [string, string];
      const init = { method, redirect: "manual", ...(body === undefined ? {} : { body }) } as const;
      const response = await fetch(server.url + path, init);
      await response.text();
      const own = [...response.headers].filter(([name]) => !OF_THE_CONNECTION.includes(name));
      assert.deepEqual([response.status, Object.fromEntries(own)], [status, { ...CORS, ...headers }]);
    });
  }
});
