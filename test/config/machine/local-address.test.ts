import assert from "node:assert/strict";
import { test } from "node:test";
import { newConfig } from "../../../src/config/load/new-config.ts";
import { findLocalAddress } from "../../../src/config/machine/local-address.ts";
import { FeatureGates } from "../../../src/config/values/feature-gates.ts";
import { recordingLog } from "../harness.ts";

const find = (advertisePeerUrls: string, gate = true) => {
  const features = new FeatureGates().with(`SetMemberLocalAddr=${gate}`);
  const { log, entries } = recordingLog();
  return { address: findLocalAddress(newConfig({ advertisePeerUrls, features }), log), entries };
};

test("SetMemberLocalAddr dials from the first advertised address that identifies the machine", () => {
  assert.equal(find("http://127.0.0.1:1,http://a.test:2,http://10.0.0.7:3,http://10.0.0.8:4").address, "10.0.0.7");
  assert.equal(find("http://[::1]:1,http://[2001:db8::7]:2").address, "2001:db8::7");
});

test("without one the system chooses, and the log says so", () => {
  const { address, entries } = find("http://localhost:1,http://0.0.0.0:2");
  assert.equal(address, undefined);
  assert.ok(
    entries.some(({ level, msg }) => level === "warn" && msg.startsWith("unable to set a member local address")),
  );
});

test("without the gate no address is searched for", () => {
  assert.deepEqual(find("http://10.0.0.7:3", false), { address: undefined, entries: [] });
});
