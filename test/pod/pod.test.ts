/** Pods of a StatefulSet from the first start on, as processes. The long form is test/pod/long.suite.ts (`npm run pods`). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { withPods } from "./pods.ts";

test("pods found a cluster, take a place again after a lost volume, leave when scaled down, and come back all at once", () =>
  withPods({ replicas: 3 }, async (pods) => {
    pods.start(pods.first(3));
    await pods.settled(pods.first(3));
    await pods.pod(0).client.put("a", "1");

    await pods.pod(1).kill();
    pods.pod(1).loseVolume();
    pods.pod(1).start();
    await pods.settled(pods.first(3));
    assert.match(pods.pod(1).said(), /its volume was lost/);
    assert.equal((await pods.pod(1).client.get("a"))?.value, "1");

    await pods.scale(3, 2);
    await pods.settled(pods.first(2));
    await Promise.all(pods.first(2).map((pod) => pod.kill()));
    pods.start(pods.first(2));
    await pods.settled(pods.first(2));
    assert.equal((await pods.pod(0).client.get("a"))?.value, "1");
  }));
