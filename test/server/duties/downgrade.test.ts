import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { type EtcdError, errors } from "../../../src/server/contract/errors.ts";
import { Downgrades } from "../../../src/server/duties/downgrade.ts";
import { startMembers, type TestMember } from "../peers.ts";

describe("a request for a downgrade", () => {
  let member: TestMember;
  let downgrades: Downgrades;
  let readError: EtcdError | null;
  beforeEach(async () => {
    [member] = (await startMembers(["3.7.1"])) as [TestMember];
    readError = null;
    const { cluster, logger } = member;
    downgrades = new Downgrades({
      cluster,
      logger,
      readIndex: () => Promise.resolve(readError),
      setDowngrade: (request) => member.setDowngrade(request),
    });
  });
  afterEach(() => member.close());
  const gives = async (promise: Promise<unknown>, wanted: EtcdError) => assert.equal(await promise, wanted);

  test("is refused while the cluster has no version", async () => {
    await gives(downgrades.validate("3.6"), errors.clusterVersionUnavailable);
  });

  test("is valid only for the version below the cluster's, with or without its patch", async () => {
    member.cluster.agreed.set("3.7.0");
    assert.equal(await downgrades.validate("3.6"), "3.7");
    assert.equal(await downgrades.validate("3.6.0"), "3.7");
    assert.equal(await downgrades.validate("3.6.9"), "3.7");
    for (const target of ["3.5", "3.7", "3.8", "2.6"]) {
      await gives(downgrades.validate(target), errors.invalidDowngradeTargetVersion);
    }
    for (const target of ["", "3", "x.y", "3.6.0.0", "v3.6", "3.6."]) {
      await gives(downgrades.validate(target), errors.wrongDowngradeVersionFormat);
      await gives(downgrades.enable(target), errors.wrongDowngradeVersionFormat);
    }
    assert.equal(member.cluster.downgrade.enabled, false);
  });

  test("starts one, which prevents others from starting until it is cancelled", async () => {
    member.cluster.agreed.set("3.7.0");
    assert.equal(await downgrades.enable("3.6.4"), "3.7");
    assert.deepEqual(member.cluster.downgrade, { enabled: true, targetVersion: "3.6.0" });
    await gives(downgrades.enable("3.6"), errors.downgradeInProcess);
    await gives(downgrades.validate("3.6"), errors.downgradeInProcess);
    assert.equal(await downgrades.cancel(), "3.7");
    assert.deepEqual(member.cluster.downgrade, { enabled: false, targetVersion: "" });
    assert.equal(await downgrades.validate("3.6"), "3.7");
  });

  test("to cancel succeeds even when there is nothing to cancel, as in etcd", async () => {
    member.cluster.agreed.set("3.7.0");
    assert.equal(await downgrades.cancel(), "3.7");
    assert.ok(member.logger.lines.some(({ fields }) => fields["error"] === errors.noInflightDowngrade.message));
  });

  test("fails when the cluster cannot be read", async () => {
    member.cluster.agreed.set("3.7.0");
    readError = errors.timeout;
    await gives(downgrades.validate("3.6"), errors.timeout);
    await gives(downgrades.enable("3.6"), errors.timeout);
    assert.equal(member.cluster.downgrade.enabled, false);
  });
});
