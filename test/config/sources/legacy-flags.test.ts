import assert from "node:assert/strict";
import { test } from "node:test";
import { complaintOf, load } from "../harness.ts";

test("an experimental flag of an older etcd is mapped to its current name, with a warning", async () => {
  const { config, entries } = await load([
    "--experimental-corrupt-check-time=1m",
    "--experimental-watch-progress-notify-interval",
    "5m",
    "--experimental-initial-corrupt-check",
  ]);
  assert.equal(config?.checks.corruptCheckMs, 60000);
  assert.equal(config?.watchProgressNotifyIntervalMs, 300000);
  assert.equal(config?.features.enabled("InitialCorruptCheck"), true);
  assert.ok(
    entries.some(
      (entry) => entry.msg === "--experimental-corrupt-check-time is a flag of an older etcd; use --corrupt-check-time",
    ),
  );
});

test("an old flag that requests nothing is accepted, one that requests a removed feature is refused with advice", async () => {
  assert.equal(
    await complaintOf(["--enable-v2=false", "--proxy=off", "--proxy-failure-wait=5000", "--discovery="]),
    "",
  );
  assert.equal(
    await complaintOf(["--enable-v2"]),
    "--enable-v2=true is not supported: the v2 API was removed in etcd v3.6; move the clients to v3",
  );
  assert.match(await complaintOf(["--proxy=on"]), /'etcd grpc-proxy start' took its place/);
  assert.match(await complaintOf(["--discovery=http://x"]), /use --discovery-token and --discovery-endpoints/);
  assert.match(await complaintOf(["--ca-file=x"]), /use --trusted-ca-file and --client-cert-auth/);
});

test("--debug still means a log at that level", async () => {
  const { config, entries } = await load(["--debug"]);
  assert.equal(config?.log.level, "debug");
  assert.ok(
    entries.some(
      ({ msg }) => msg === "--debug is a flag of an older etcd: the log level is debug now; use --log-level=debug",
    ),
  );
  assert.equal((await load(["--debug=false"])).config?.log.level, "info");
});

test("flags that etcd ignores are ignored silently", async () => {
  const { config, entries } = await load(["--vv", "--snapshot=anything", "--force"], { ETCD_V: "1" });
  assert.ok(config);
  assert.ok(!entries.some((entry) => entry.msg.includes("older etcd")));
});

test("the value of an old flag is checked like the new one's, under the given name", async () => {
  assert.equal(
    await complaintOf(["--experimental-corrupt-check-time=x"]),
    'invalid value "x" for flag -experimental-corrupt-check-time: parse error',
  );
});
