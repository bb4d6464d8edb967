import assert from "node:assert/strict";
import { test } from "node:test";
import { EndpointError, hostPort, parseEndpoint } from "../../src/client/endpoint.ts";

test("an endpoint is a host and a port, with an optional scheme that selects TLS", () => {
  const read = (endpoint: string) => {
    const { secure, host, port, path } = parseEndpoint(endpoint);
    return [secure, host, port, path];
  };
  assert.deepEqual(read("a.test:2379"), [undefined, "a.test", 2379, undefined]);
  assert.deepEqual(read("http://a.test:1/some/path?x"), [false, "a.test", 1, undefined]);
  assert.deepEqual(read("https://[::1]:2"), [true, "::1", 2, undefined]);
  assert.deepEqual(read(":2379"), [undefined, "localhost", 2379, undefined]);
  assert.deepEqual(read("unix:///run/etcd.sock"), [undefined, "etcd.sock", 0, "/run/etcd.sock"]);
  assert.deepEqual(read("unixs://localhost:27"), [true, "localhost", 0, "localhost:27"]);
  assert.equal(hostPort(parseEndpoint("[::1]:2")), "[::1]:2");
});

test("an invalid endpoint is refused with the reason", () => {
  for (const [endpoint, problem] of [
    ["", /^missing address/],
    ["http:", /^address http:: missing port in address$/],
    ["a.test", /^address a\.test: missing port in address$/],
    ["https://a.test", /^address a\.test: missing port in address$/],
    ["a:b:1", /^address a:b:1: too many colons in address$/],
    ["[::1", /^address \[::1: missing '\]' in address$/],
    ["a:99999", /^address a:99999: invalid port$/],
    ["a:x", /^address a:x: invalid port$/],
    ["ftp://a:1", /^address ftp:\/\/a:1: unknown scheme "ftp"/],
    ["unix://", /^address unix:\/\/: names no socket$/],
  ] as const) {
    assert.throws(
      () => parseEndpoint(endpoint),
      (error: Error) => error instanceof EndpointError && problem.test(error.message),
      endpoint,
    );
  }
});
