import assert from "node:assert/strict";
import { test } from "node:test";
import { flagSettings } from "../../../src/config/settings/definitions.ts";
import { complaintOf, load } from "../harness.ts";

/** A value that differs from the default and is valid by itself. */
const OTHER: Readonly<Record<string, string>> = {
  text: "x",
  bool: "",
  duration: "9s",
  int: "9",
  uint: "9",
  set: "a",
  list: "a",
};

for (const spec of flagSettings) {
  if (spec.status?.state !== "not built") continue;
  test(`--${spec.name} is refused by name, because it is not built yet`, async () => {
    const value = spec.kind.name === "bool" ? String(spec.default === "false") : OTHER[spec.kind.name];
    const argv = [`--${spec.name}=${value}`];
    if (spec.name === "discovery-token") argv.push("--discovery-endpoints=a");
    if (spec.name === "discovery-endpoints") argv.push("--discovery-token=a");
    if (spec.name.startsWith("discovery-srv")) argv.push("--initial-cluster=default=http://localhost:2380");
    const { error } = await load(spec.name === "discovery-srv" ? argv.slice(0, 1) : argv, {}, { initialized: true });
    assert.equal(error?.kind, "unbuilt");
    assert.match(error?.message ?? "", /^--[a-z-]+ is not supported by this version/);
    assert.match(error?.message ?? "", /not built yet, see docs\/differences.md$/);
  });
}

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

test("a flag at its default is never refused", async () => {
  const argv = flagSettings
    .filter((spec) => spec.status?.state === "not built")
    .filter((spec) => spec.default !== "")
    .map((spec) => `--${spec.name}=${spec.default}`);
  assert.equal(await complaintOf(argv), "");
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
