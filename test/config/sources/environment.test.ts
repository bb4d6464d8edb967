import assert from "node:assert/strict";
import { test } from "node:test";
import { complaintOf, load } from "../harness.ts";

test("a variable sets a flag that was not given, and the log says so", async () => {
  const { config, entries } = await load([], { ETCD_NAME: "from-env", ETCD_MAX_TXN_OPS: "7" });
  assert.equal(config?.name, "from-env");
  assert.equal(config?.maxTxnOps, 7);
  const used = entries.filter((entry) => entry.msg === "recognized and used environment variable");
  assert.deepEqual(
    used.map((entry) => entry.fields),
    [
      { "variable-name": "ETCD_MAX_TXN_OPS", "variable-value": "7" },
      { "variable-name": "ETCD_NAME", "variable-value": "from-env" },
    ],
  );
});

test("a flag overrides its variable, with the warning of etcd 3.3", async () => {
  const { config, entries } = await load(["--name=flag"], { ETCD_NAME: "env" });
  assert.equal(config?.name, "flag");
  const warning = entries.find((entry) => entry.msg.includes("shadowed"));
  assert.equal(warning?.level, "warn");
  assert.equal(warning?.msg, "recognized environment variable ETCD_NAME, but unused: shadowed by corresponding flag");
});

test("a variable without a flag is reported with its value", async () => {
  const { entries } = await load([], { ETCD_FOO: "bar", HOME: "/root" });
  const warnings = entries.filter((entry) => entry.msg === "unrecognized environment variable");
  assert.deepEqual(
    warnings.map((entry) => entry.fields["environment-variable"]),
    ["ETCD_FOO=bar"],
  );
});

test("an invalid value of a variable is refused with the variable's name", async () => {
  const { error } = await load([], { ETCD_MAX_TXN_OPS: "x" });
  assert.equal(error?.message, 'invalid value "x" for ETCD_MAX_TXN_OPS: parse error');
  assert.equal(error?.kind, "verify");
});

test("ETCD_VERSION does not set --version", async () => {
  const { config, entries } = await load([], { ETCD_VERSION: "v3.5.0" });
  assert.ok(config);
  assert.deepEqual(entries.find((entry) => entry.msg === "cannot set special environment variable")?.fields, {
    key: "ETCD_VERSION",
    value: "v3.5.0",
  });
});

test("a password in a variable is not logged", async () => {
  const { entries } = await load([], { ETCD_DISCOVERY_PASSWORD: "geheim" });
  assert.ok(!JSON.stringify(entries).includes("geheim"));
});

test("listening on other addresses without advertising any is refused from the environment too", async () => {
  assert.equal(
    await complaintOf([], { ETCD_LISTEN_CLIENT_URLS: "http://127.0.0.1:1" }),
    "--advertise-client-urls is required when --listen-client-urls is set explicitly",
  );
});

test("ETCD_CONFIG_FILE names the configuration file", async () => {
  assert.equal(
    await complaintOf([], { ETCD_CONFIG_FILE: "/nowhere/etcd.yml" }),
    "open /nowhere/etcd.yml: no such file or directory",
  );
});
