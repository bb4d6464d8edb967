import assert from "node:assert/strict";
import { test } from "node:test";
import { canReusePort } from "../../../src/config/checks/listeners.ts";
import { validateSettings } from "../../../src/config/checks/validate.ts";
import { Settings } from "../../../src/config/settings/settings.ts";
import { complaintOf, load, recordingLog } from "../harness.ts";

// Every error text about an etcd flag was compared with what etcd v3.7.1 logs for the same arguments.
const REFUSED: readonly (readonly [arguments: string, complaint: string])[] = [
  ["--election-timeout=200", "--election-timeout[200ms] should be at least as 5 times as --heartbeat-interval[100ms]"],
  ["--election-timeout=60000", "--election-timeout[60000ms] is too long, and should be set less than 50000ms"],
  ["--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"],
  ["--election-timeout=0", "--election-timeout must be >0 (set to 0ms)"],
  [
    "--listen-client-urls=http://foo:80 --advertise-client-urls=http://a:80",
    "expected IP in URL for binding (http://foo:80)",
  ],
  [
    "--listen-peer-urls=http://z-b-data-1.staging.huatai.me:2380",
    "expected IP in URL for binding (http://z-b-data-1.staging.huatai.me:2380)",
  ],
  [
    "--listen-client-urls=http://127.0.0.1:1",
    "--advertise-client-urls is required when --listen-client-urls is set explicitly",
  ],
  [
    "--initial-advertise-peer-urls=http://:1",
    '--initial-advertise-peer-urls "http://:1" must be "host:port" (unexpected empty host (http://:1))',
  ],
  [
    "--advertise-client-urls=http://:1",
    '--advertise-client-urls "http://:1" must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket" (unexpected empty host (http://:1))',
  ],
  [
    "--discovery-srv=a --initial-cluster=x=http://a:1",
    'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"',
  ],
  ["--max-long-requests=0", "--max-long-requests must be >0: without any, long reads would wait for ever"],
  [
    "--max-long-requests-per-client=0",
    "--max-long-requests-per-client must be >0: without any, long reads would wait for ever",
  ],
  ["--discovery-token=x", "both --discovery-token and --discovery-endpoints must be set"],
  ["--discovery-endpoints=a,,b --discovery-token=x", "--discovery-endpoints must not contain empty endpoints"],
  ["--discovery-fallback=proxy", `v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`],
  ["--auto-compaction-mode=foo", 'unknown auto-compaction-mode "foo"'],
  ["--auto-compaction-mode=", "undefined auto-compaction-mode"],
  ["--auto-compaction-retention=x", 'error parsing CompactionRetention: time: invalid duration "x"'],
  [
    "--auto-compaction-mode=revision --auto-compaction-retention=-3",
    'error parsing CompactionRetention: time: missing unit in duration "-3"',
  ],
  ["--compact-hash-check-time=0", "--compact-hash-check-time must be >0 (set to 0s)"],
  ["--compact-hash-check-time=-1m", "--compact-hash-check-time must be >0 (set to -1m0s)"],
  [
    "--distributed-tracing-sampling-rate=-1 --enable-distributed-tracing",
    "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
  ],
  [
    "--feature-gates=LeaseCheckpointPersist=true",
    "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
  ],
  ["--tls-min-version=x", 'unexpected TLS version "x" (must be one of: TLS1.2, TLS1.3)'],
  ["--tls-min-version=TLS1.3 --tls-max-version=TLS1.2", "min version (TLS1.3) is greater than max version (TLS1.2)"],
  ["--tls-min-version=TLS1.3 --cipher-suites=a", "cipher suites cannot be configured when only TLS1.3 is enabled"],
  ["--cipher-suites=foo", 'unexpected TLS cipher suite "foo"'],
  [
    "--cipher-suites=TLS_RSA_WITH_RC4_128_SHA",
    'TLS cipher suite "TLS_RSA_WITH_RC4_128_SHA" is insecure and not built into OpenSSL: leave it out of --cipher-suites',
  ],
  [
    "--listen-metrics-urls=https://127.0.0.1:1",
    "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
  ],
  [
    "--listen-client-urls=https://127.0.0.1:5 --advertise-client-urls=https://127.0.0.1:5",
    "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:5 with HTTPS scheme",
  ],
  ["--auth-token=foo", "auth: invalid auth options"],
  ["--logger=capnslog", "--logger=capnslog is removed in v3.5"],
  ["--logger=foo", 'unknown logger option "foo"'],
  ["--log-format=foo", "unknown log format: foo, supported values json, console"],
  ["--log-level=foo", 'unrecognized level: "foo"'],
  ["--log-outputs=default,stdout", 'multi logoutput for "default" is not supported yet'],
  ["--log-outputs=/nonexist/x", 'open sink "/nonexist/x": open /nonexist/x: no such file or directory'],
  ["--log-outputs=foo://x", 'open sink "foo://x": no sink found for scheme "foo"'],
  [
    "--log-outputs=systemd/journal,stderr",
    `running with systemd/journal but other '--log-outputs' values (["stderr" "systemd/journal"]) are configured with 'default'; override 'default' value with something else`,
  ],
  [
    "--log-outputs=default --enable-log-rotation",
    "--log-outputs requires a single file path when --log-rotate-config-json is defined",
  ],
];

for (const [line, complaint] of REFUSED) {
  test(`${line} is refused with etcd's words`, async () => {
    assert.equal(await complaintOf(line.split(" ")), complaint);
  });
}

const ROTATION: readonly (readonly [json: string, complaint: string])[] = [
  ["x", "improperly formatted log rotation config: invalid character 'x' looking for beginning of value"],
  ["", "improperly formatted log rotation config: unexpected end of JSON input"],
  ['{"maxsize":1', "improperly formatted log rotation config: unexpected end of JSON input"],
  ['{"maxsize":1} x', "improperly formatted log rotation config: invalid character 'x' after top-level value"],
  [
    '{"maxsize":"1"}',
    "invalid log rotation config: json: cannot unmarshal string into Go struct field logRotationConfig.Logger.maxsize of type int",
  ],
  [
    '{"maxsize":1.5}',
    "invalid log rotation config: json: cannot unmarshal number 1.5 into Go struct field logRotationConfig.Logger.maxsize of type int",
  ],
  [
    '{"localtime":1}',
    "invalid log rotation config: json: cannot unmarshal number into Go struct field logRotationConfig.Logger.localtime of type bool",
  ],
  ["[]", "invalid log rotation config: json: cannot unmarshal array into Go value of type embed.logRotationConfig"],
];

test("a log rotation with a mistyped key is refused, because the disk would fill silently", async () => {
  const argv = ["--enable-log-rotation", "--log-outputs=/nonexist/x", '--log-rotation-config-json={"maxsiz":1}'];
  assert.equal(
    await complaintOf(argv),
    'invalid log rotation config: unknown key "maxsiz"; there are maxsize, maxage, maxbackups, localtime and compress',
  );
});

for (const [json, complaint] of ROTATION) {
  test(`a log rotation of ${json || "nothing"} is refused with etcd's words`, async () => {
    const argv = ["--enable-log-rotation", "--log-outputs=/nonexist/x", `--log-rotation-config-json=${json}`];
    assert.equal(await complaintOf(argv), complaint);
  });
}

test("a member may listen on localhost, on addresses of both families and on sockets", async () => {
  const { config } = await load([
    "--listen-client-urls=http://localhost:1,http://0.0.0.0:2,http://[::1]:3,unix:///tmp/x",
    "--advertise-client-urls=http://a.example:1",
  ]);
  assert.equal(config?.listenClientUrls.length, 4);
});

test("a member with the default name is told to choose one, in etcd's words", () => {
  const { log, entries } = recordingLog();
  validateSettings(new Settings(), log);
  assert.deepEqual(
    entries.map((entry) => entry.msg),
    [
      "Running http and grpc server on single port. This is not recommended for production.",
      "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name",
    ],
  );
});

test("large requests and an invalid bcrypt cost cause a warning; the cost falls back to etcd's", async () => {
  const { config, entries } = await load(["--max-request-bytes=33554432", "--bcrypt-cost=99"]);
  assert.equal(config?.maxRequestBytes, 33554432);
  assert.equal(config?.auth.bcryptCost, 10);
  const [request, cost] = entries.filter((entry) => entry.level === "warn" && /exceeded|bcrypt/.test(entry.msg));
  assert.equal(request?.fields["max-request-size"], "34 MB");
  assert.equal(cost?.fields["given-cost"], 99);
});

test("--socket-reuse-port needs a Node that can share a port", async () => {
  const works = ["22.12.0", "23.1.0", "24.0.0"].every(canReusePort);
  assert.ok(works);
  for (const version of ["20.19.0", "22.11.0", "23.0.0"]) assert.equal(canReusePort(version), false);
  const complaint = await complaintOf(["--socket-reuse-port"]);
  if (canReusePort(process.versions.node)) assert.equal(complaint, "");
  else assert.match(complaint, /^--socket-reuse-port needs Node 22.12, or 23.1 and later; this is v/);
});
