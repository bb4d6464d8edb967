import assert from "node:assert/strict";
import { test } from "node:test";
import { ClientOptionsError, optionsFromEnvironment } from "../../src/client/index.ts";

test("a client's settings come from the variables of etcdctl", () => {
  assert.deepEqual(optionsFromEnvironment({}), {});
  assert.deepEqual(
    optionsFromEnvironment({
      ETCDCTL_ENDPOINTS: "https://a:1,https://b:2",
      ETCDCTL_CACERT: "/ca",
      ETCDCTL_CERT: "/cert",
      ETCDCTL_KEY: "/key",
      ETCDCTL_INSECURE_SKIP_TLS_VERIFY: "true",
      ETCDCTL_USER: "root:se:cret",
      ETCDCTL_DIAL_TIMEOUT: "1.5s",
      ETCDCTL_COMMAND_TIMEOUT: "1m",
      ETCDCTL_UNKNOWN: "x",
    }),
    {
      endpoints: ["https://a:1", "https://b:2"],
      tls: { caFile: "/ca", certFile: "/cert", keyFile: "/key", insecureSkipVerify: true },
      username: "root",
      password: "se:cret",
      connectTimeoutMs: 1500,
      timeoutMs: 60_000,
    },
  );
  assert.deepEqual(optionsFromEnvironment({ ETCDCTL_USER: "a:b", ETCDCTL_PASSWORD: "c" }), {
    username: "a:b",
    password: "c",
  });
});

test("variables that make no sense are refused by name", () => {
  assert.throws(() => optionsFromEnvironment({ ETCDCTL_USER: "root" }), ClientOptionsError);
  assert.throws(() => optionsFromEnvironment({ ETCDCTL_COMMAND_TIMEOUT: "soon" }), /ETCDCTL_COMMAND_TIMEOUT/);
  assert.throws(() => optionsFromEnvironment({ ETCDCTL_DIAL_TIMEOUT: "0s" }), /ETCDCTL_DIAL_TIMEOUT/);
});
