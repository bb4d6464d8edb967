import assert from "node:assert/strict";
import { test } from "node:test";
import { isAllowed } from "../../../src/deploy/operations/versions.ts";

test("a cluster goes one minor version at a time, and in the direction that is asked for", () => {
  assert.equal(isAllowed("upgrade", ["3.6.5", "3.6.5", "3.7.1"], "3.7.1"), undefined);
  assert.equal(isAllowed("upgrade", ["3.7.0"], "3.7.1"), undefined);
  assert.equal(isAllowed("downgrade", ["3.7.1"], "3.6.5"), undefined);
  assert.equal(isAllowed("switch-engine", ["3.7.0"], "3.7.1"), undefined);
  assert.match(isAllowed("upgrade", ["3.5.21"], "3.7.1")!, /one minor version at a time, so go to 3\.6 first/);
  assert.match(isAllowed("downgrade", ["3.7.1"], "3.5.21")!, /one minor version at a time, so go to 3\.6 first/);
  assert.match(isAllowed("upgrade", ["3.7.1"], "3.6.5")!, /newer than 3\.6\.5: that is a downgrade/);
  assert.match(isAllowed("downgrade", ["3.6.5"], "3.7.1")!, /older than 3\.7\.1: that is an upgrade/);
  assert.match(isAllowed("switch-engine", ["3.6.5"], "3.7.1")!, /upgrade or downgrade first/);
  assert.match(isAllowed("upgrade", ["2.3.8"], "3.7.1")!, /there is no way from there to 3\.7\.1/);
  assert.throws(() => isAllowed("upgrade", ["3.7.1"], "latest"), /latest is not a version such as 3\.7\.1/);
});
