import assert from "node:assert/strict";
import { test } from "node:test";
import { flagSettings } from "../../../src/config/settings/definitions.ts";
import { complaintOf, load } from "../harness.ts";

for (const spec of flagSettings) {
  const { status } = spec;
  if (status?.state !== "no effect" || spec.kind.name !== "bool") continue;
  test(`--${spec.name} is accepted, and the log says that it has no effect`, async () => {
    const { config, entries } = await load([`--${spec.name}=${spec.default === "false"}`]);
    assert.ok(config);
    assert.ok(entries.some((entry) => entry.msg === `--${spec.name} has no effect: ${status.reason}`));
  });
}

test("a setting that is only checked is accepted silently", async () => {
  const names = flagSettings.filter(({ status }) => status?.state === "only checked").map(({ name }) => `--${name}`);
  assert.ok(names.includes("--client-cert-file"));
  const { config, entries } = await load(names.map((name) => `${name}=x`));
  assert.ok(config);
  assert.deepEqual(
    entries.filter(({ msg }) => names.some((name) => msg.includes(name))),
    [],
  );
});

test("a feature gate without effect is accepted, and the log says so", async () => {
  const { entries } = await load(["--feature-gates=PriorityRequest=true,LeaseCheckpoint=true"]);
  assert.deepEqual(
    entries.filter((entry) => entry.msg.startsWith("--feature-gates")).map((entry) => entry.msg),
    ["--feature-gates: PriorityRequest has no effect yet"],
  );
});

const THREE = "--initial-cluster=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380";

test("a cluster of several members is verified completely", async () => {
  const own = ["--initial-advertise-peer-urls=http://10.0.0.1:2380", THREE];
  assert.equal(
    await complaintOf(["--name=z", ...own]),
    `couldn't find local name "z" in the initial cluster configuration`,
  );
  assert.match(
    await complaintOf(["--name=a", THREE]),
    /^--initial-cluster has a=http:\/\/10.0.0.1:2380 but missing from --initial-advertise-peer-urls=http:\/\/localhost:2380/,
  );
  assert.equal(await complaintOf(["--name=a", ...own]), "");
});
