import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { rounds } from "../../harness/fast.ts";
import { patience } from "../../harness/wait.ts";
import { load, loadFile, tempDir } from "../harness.ts";

const INTO = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
const YAML = "error converting YAML to JSON: yaml:";

// Compared with etcd v3.7.1. Its builds with Go 1.24 and later put the names of embedded structs into the path
// ("configYAML.Config.name"); these are the texts of earlier builds, which the documents quote.
const REFUSED: readonly (readonly [yaml: string, complaint: string])[] = [
  [
    "log-outputs: /var/log/etcd/etcd.log",
    `${INTO} string into Go struct field configYAML.log-outputs of type []string`,
  ],
  ["log-outputs: [5]", `${INTO} number into Go struct field configYAML.log-outputs of type string`],
  ["heartbeat-interval: abc", `${INTO} string into Go struct field configYAML.heartbeat-interval of type uint`],
  ["heartbeat-interval: 1.5", `${INTO} number 1.5 into Go struct field configYAML.heartbeat-interval of type uint`],
  ["heartbeat-interval: -5", `${INTO} number -5 into Go struct field configYAML.heartbeat-interval of type uint`],
  [
    "heartbeat-interval: 99999999999999999999999",
    `${INTO} number 1e+23 into Go struct field configYAML.heartbeat-interval of type uint`,
  ],
  [
    "max-concurrent-streams: 4294967296",
    `${INTO} number 4294967296 into Go struct field configYAML.max-concurrent-streams of type uint32`,
  ],
  [
    "grpc-keepalive-timeout: 10s",
    `${INTO} string into Go struct field configYAML.grpc-keepalive-timeout of type time.Duration`,
  ],
  ['pre-vote: "yes"', `${INTO} string into Go struct field configYAML.pre-vote of type bool`],
  ["name: 5", `${INTO} number into Go struct field configYAML.name of type string`],
  ["name: yes", `${INTO} bool into Go struct field configYAML.name of type string`],
  ["name: [a]", `${INTO} array into Go struct field configYAML.name of type string`],
  ["name: {a: b}", `${INTO} object into Go struct field configYAML.name of type string`],
  [
    "auto-compaction-retention: 1",
    `${INTO} number into Go struct field configYAML.auto-compaction-retention of type string`,
  ],
  [
    "client-transport-security: abc",
    `${INTO} string into Go struct field configYAML.client-transport-security of type embed.securityConfig`,
  ],
  [
    'client-transport-security:\n  client-cert-auth: "x"',
    `${INTO} string into Go struct field securityConfig.client-transport-security.client-cert-auth of type bool`,
  ],
  [
    "peer-transport-security:\n  allowed-cn: abc",
    `${INTO} string into Go struct field securityConfig.peer-transport-security.allowed-cn of type []string`,
  ],
  ["peer-transport-security:", "invalid peer-transport-security"],
  [
    "discovery-config: {client: {max-request-bytes: x}}",
    `${INTO} string into Go struct field ConfigSpec.discovery-config.client.max-request-bytes of type int`,
  ],
  [
    "discovery-config: {client: {auth: 5}}",
    `${INTO} number into Go struct field ConfigSpec.discovery-config.client.auth of type clientv3.AuthConfig`,
  ],
  [
    "discovery-config: {client: {secure: {server-name: 5}}}",
    `${INTO} number into Go struct field SecureConfig.discovery-config.client.secure.server-name of type string`,
  ],
  ["hello", `${INTO} string into Go value of type embed.configYAML`],
  ["- a", `${INTO} array into Go value of type embed.configYAML`],
  ["name:\tabc\n\tfoo: b", `${YAML} line 2: found a tab character that violates indentation`],
  ["log-outputs: *x", `${YAML} unknown anchor 'x' referenced`],
  ["name: a\u0001b", `${YAML} control characters are not allowed`],
  ["<<: 5", `${YAML} map merge requires map or sequence of maps as the value`],
  ["heartbeat-interval: .inf", "error converting YAML to JSON: json: unsupported value: +Inf"],
  ["feature-gates: Foo=true", "unrecognized feature gate: Foo"],
  ["initial-cluster-state: foo", 'unexpected clusterState "foo"'],
  [
    "listen-peer-urls: foo",
    "unexpected error setting up listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo",
  ],
  ["election-timeout: 1", "--election-timeout[1ms] should be at least as 5 times as --heartbeat-interval[100ms]"],
];

for (const [yaml, complaint] of REFUSED) {
  test(`a file with ${JSON.stringify(yaml)} is refused with etcd's words`, async (t) => {
    const { error } = await loadFile(t, `${yaml}\n`);
    assert.equal(error?.message, complaint);
    assert.equal(error?.kind, "verify");
  });
}

test("of two errors the first by key name is reported, and types before values", async (t) => {
  const { error } = await loadFile(t, "name: 5\nlisten-peer-urls: foo\nelection-timeout: x\n");
  assert.match(error?.message ?? "", /election-timeout of type uint/);
});

test("the file excludes flags and variables, which are ignored", async (t) => {
  const path = join(tempDir(t), "c.yml");
  writeFileSync(path, "name: file\nlog-outputs: [/dev/null]\n");
  const { config } = await load([`--config-file=${path}`, "--name=flag", "--max-txn-ops=9"], { ETCD_MAX_TXN_OPS: "7" });
  assert.equal(config?.name, "file");
  assert.equal(config?.maxTxnOps, 128);
});

test("YAML 1.1 words, octal numbers and nanoseconds have etcd's meaning", async (t) => {
  const { config } = await loadFile(
    t,
    "pre-vote: off\nstrict-reconfig-check: n\nmax-txn-ops: 010\nmax-wals: 1_0\ngrpc-keepalive-timeout: 10000000000\nname: 2020-01-02\nlog-outputs: [/dev/null]\n",
  );
  assert.equal(config?.preVote, false);
  assert.equal(config?.strictReconfigCheck, false);
  assert.equal(config?.maxTxnOps, 8);
  assert.equal(config?.maxWalFiles, 10);
  assert.equal(config?.keepalive.timeoutMs, 10000);
  assert.equal(config?.name, "2020-01-02");
});

test("keys are matched case-insensitively, empty values keep the default, the last of equal keys wins", async (t) => {
  const { config } = await loadFile(t, "NAME: a\nwal-dir:\nmax-txn-ops: 1\nmax-txn-ops: 2\nlog-outputs: [/dev/null]\n");
  assert.equal(config?.name, "a");
  assert.equal(config?.walDir, "");
  assert.equal(config?.maxTxnOps, 2);
});

test("a file in JSON is a file in YAML", async (t) => {
  const { config } = await loadFile(t, '{"name":"j","max-txn-ops":3,"log-outputs":["/dev/null"]}');
  assert.equal(config?.name, "j");
  assert.equal(config?.maxTxnOps, 3);
});

test("a key that etcd does not know is ignored with a warning", async (t) => {
  const { config, entries } = await loadFile(t, "proxy: 'off'\nfoo: 1\nname: a\nlog-outputs: [/dev/null]\n");
  assert.equal(config?.name, "a");
  assert.deepEqual(entries.find((entry) => entry.msg.includes("does not know"))?.fields, { keys: ["foo", "proxy"] });
});

test("a property that every JavaScript object has is an unknown key", async (t) => {
  for (const key of ["constructor", "toString", "__proto__", "hasOwnProperty", "valueOf"]) {
    const { error, entries } = await loadFile(t, `name: a\n${key}: 1\nclient-transport-security:\n  ${key}: x\n`);
    assert.equal(error, undefined, key);
    const warning = entries.find((entry) => entry.msg.startsWith("the configuration file has keys"));
    assert.deepEqual(warning?.fields["keys"], [`client-transport-security.${key}`, key].sort());
  }
});

test("the sections set their fields", async (t) => {
  const { error, config } = await loadFile(
    t,
    `name: a
listen-client-urls: http://127.0.0.1:1
socket-options: {reuse-address: true}
client-transport-security: {client-cert-auth: false, cert-file: ""}
peer-transport-security: {allowed-cn: [], auto-tls: false}
discovery-config: {client: {dial-timeout: 2000000000, secure: {insecure-transport: true}}}
cors: http://a:1,http://b:1
host-whitelist: b,a
feature-gates: CompactHashCheck=true
log-outputs: [/dev/null]
`,
  );
  assert.equal(error, undefined);
  assert.equal(config?.socketReuseAddress, true);
  assert.deepEqual([...config!.cors], ["http://a:1", "http://b:1"]);
  assert.deepEqual([...config!.hostWhitelist], ["a", "b"]);
  assert.equal(config?.features.enabled("CompactHashCheck"), true);
});

test("the file's section for peers sets TLS between members", async (t) => {
  const { config } = await loadFile(
    t,
    `peer-transport-security:
  cert-file: a.pem
  key-file: a.key
  client-cert-file: c.pem
  client-key-file: c.key
  trusted-ca-file: ca.pem
  client-cert-auth: true
  allowed-cn: [etcd]
  allowed-hostname: [etcd.internal]
  skip-client-san-verification: true
log-outputs: [/dev/null]
`,
  );
  assert.deepEqual(config?.peerTls, {
    certFile: "a.pem",
    keyFile: "a.key",
    clientCertFile: "c.pem",
    clientKeyFile: "c.key",
    clientCertAuth: true,
    trustedCaFile: "ca.pem",
    crlFile: "",
    autoTls: false,
    allowedCns: ["etcd"],
    allowedHostnames: ["etcd.internal"],
    skipClientSanVerify: true,
  });
});

test("the file's section for clients sets TLS, and what no flag can", async (t) => {
  const { config } = await loadFile(
    t,
    `client-transport-security:
  cert-file: a.pem
  key-file: a.key
  trusted-ca-file: ca.pem
  client-cert-auth: true
  allowed-cn: [root, ops]
  skip-client-san-verification: true
cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
log-outputs: [/dev/null]
`,
  );
  assert.deepEqual(config?.clientTls, {
    certFile: "a.pem",
    keyFile: "a.key",
    clientCertFile: "",
    clientKeyFile: "",
    clientCertAuth: true,
    trustedCaFile: "ca.pem",
    crlFile: "",
    autoTls: false,
    allowedCns: ["root", "ops"],
    allowedHostnames: [],
    skipClientSanVerify: true,
  });
});

test("a file that multiplies itself by aliases is refused at once", async (t) => {
  const bomb = ["a: &a [x,x,x,x,x,x,x,x,x,x]"];
  for (let i = 1; i < 12; i++) {
    const of = String.fromCharCode(96 + i);
    const name = String.fromCharCode(97 + i);
    bomb.push(`${name}: &${name} [${Array(10).fill(`*${of}`).join(",")}]`);
  }
  const started = performance.now();
  const { error } = await loadFile(t, bomb.join("\n"));
  assert.equal(error?.message, `${YAML} document contains excessive aliasing`);
  assert.ok(performance.now() - started < patience(5000));
});

test("depth and size are limited", async (t) => {
  const deep = await loadFile(t, `a: ${"[".repeat(20000)}${"]".repeat(20000)}`);
  assert.equal(deep.error?.message, `${YAML} exceeded max depth of 1000`);
  const nested = Array.from({ length: 1200 }, (_, i) => `${" ".repeat(i)}a:`).join("\n");
  assert.match((await loadFile(t, nested)).error?.message ?? "", /exceeded max depth/);
  const large = await loadFile(t, `name: ${"x".repeat(1024 * 1024)}`);
  assert.equal(large.error?.message, `${YAML} document is larger than 1048576 bytes`);
});

test("bytes that are not text are refused", async (t) => {
  const { error } = await loadFile(t, Buffer.from([0x6e, 0x61, 0xff, 0xfe]));
  assert.equal(error?.message, `${YAML} invalid leading UTF-8 octet`);
});

test("damaged files end in a configuration or in a ConfigError", async (t) => {
  const sound = `name: 'a'
heartbeat-interval: 100
listen-peer-urls: http://localhost:2380
peer-transport-security: &p {client-cert-auth: false, allowed-cn: [a, b]}
x: {<<: *p, y: !!binary aGVsbG8=}
log-outputs: [/dev/null]
auto-compaction-retention: "1"
? [complex]
: - |
    block
  - >-
    folded
`;
  const parts = [
    "&a",
    "*a",
    "[",
    "]",
    "{",
    "}",
    ":",
    "- ",
    "\n",
    "\t",
    "!!",
    "|",
    ">",
    "'",
    '"',
    "%",
    "@",
    "\0",
    "<<:",
    "? ",
    "#",
    "---\n",
    "é",
  ];
  let seed = 99;
  const below = (bound: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return (seed >>> 8) % bound;
  };
  const { yamlToJson } = await import("../../../src/config/sources/yaml.ts");
  for (let round = 0; round < rounds(800); round++) {
    let text = sound;
    for (let i = below(4); i >= 0; i--) {
      const at = below(text.length);
      text = text.slice(0, at) + parts[below(parts.length)] + text.slice(at + below(6));
    }
    try {
      await yamlToJson(Buffer.from(text));
    } catch (error) {
      assert.equal((error as Error).name, "ConfigError", text);
    }
    if (round % 25 === 0) await loadFile(t, text.replaceAll("name:", "log-outputs:"));
  }
});
