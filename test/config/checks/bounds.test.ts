import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { JOURNAL_SOCKET } from "../../../src/base/log-journal.ts";
import { complaintOf, load, loadConfigOf, loadFile } from "../harness.ts";

const ACCEPTED: readonly string[] = [
  "--heartbeat-interval=1 --election-timeout=5",
  "--election-timeout=50000",
  "--max-long-requests=1 --max-long-requests-per-client=1",
  "--compact-hash-check-time=1ms",
];

for (const line of ACCEPTED) {
  test(`${line} is within the bounds`, async () => {
    assert.equal(await complaintOf(line.split(" ")), "");
  });
}

const REFUSED: readonly (readonly [arguments: string, complaint: string])[] = [
  ["--election-timeout=50001", "--election-timeout[50001ms] is too long, and should be set less than 50000ms"],
  [
    "--enable-distributed-tracing --distributed-tracing-sampling-rate=1000001",
    "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
  ],
];

for (const [line, complaint] of REFUSED) {
  test(`${line} is out of bounds, in etcd's words`, async () => {
    assert.equal(await complaintOf(line.split(" ")), complaint);
  });
}

test("a bcrypt cost from 4 to 31 is taken, any other replaced by 10", async () => {
  for (const [cost, used] of [
    [3, 10],
    [4, 4],
    [31, 31],
    [32, 10],
  ]) {
    assert.equal((await loadConfigOf([`--bcrypt-cost=${cost}`])).auth.bcryptCost, used);
  }
});

test("requests above 10 MiB are allowed with a warning that says both sizes", async () => {
  const warnings = async (bytes: number) => {
    const { entries } = await load([`--max-request-bytes=${bytes}`]);
    return entries.filter(({ msg }) => msg === "exceeded recommended request limit").map(({ fields }) => fields);
  };
  assert.deepEqual(await warnings(10_485_760), []);
  const fields = (bytes: number, size: string) => ({
    "max-request-bytes": bytes,
    "max-request-size": size,
    "recommended-request-bytes": 10_485_760,
    "recommended-request-size": "10 MB",
  });
  assert.deepEqual(await warnings(10_485_761), [fields(10_485_761, "10 MB")]);
  assert.deepEqual(await warnings(2_040_109_466), [fields(2_040_109_466, "2.0 GB")]);
});

test("timeouts between members below five seconds are raised to that, and this is said", async () => {
  for (const [name, field] of [
    ["raft-read-timeout", "raftReadTimeoutMs"],
    ["raft-write-timeout", "raftWriteTimeoutMs"],
  ] as const) {
    const { config, entries } = await load([`--${name}=4999ms`]);
    assert.equal(config?.[field], 5000);
    assert.ok(entries.some(({ msg }) => msg === `${name} increased to minimum value: 5s`));
    assert.equal((await loadConfigOf([`--${name}=5001ms`]))[field], 5001);
  }
});

test("with discovery the default cluster does not apply, from flags or from a file", async (t) => {
  const flags = ["--discovery-endpoints=http://127.0.0.1:1", "--discovery-token=x"];
  assert.equal((await loadConfigOf(flags)).initialCluster, "");
  const own = "default=http://localhost:2380";
  const section = "discovery-config: {client: {endpoints: ['http://127.0.0.1:1']}, token: x}\n";
  assert.equal((await loadFile(t, section)).config?.initialCluster, "");
  assert.equal((await loadFile(t, "enable-pprof: false\n")).config?.initialCluster, own);
});

test("a log to the journal is opened where there is one, and refused in etcd's words where not", async () => {
  const missing = `can't find journal (dial unixgram ${JOURNAL_SOCKET}: connect: no such file or directory)`;
  const complaint = await complaintOf(["--log-outputs=systemd/journal"]);
  assert.equal(complaint, existsSync(JOURNAL_SOCKET) ? "" : missing);
});
