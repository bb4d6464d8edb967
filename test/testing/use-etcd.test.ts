import assert from "node:assert/strict";
import * as runner from "node:test";
import { describe, test } from "node:test";
import { EmbeddedError, type TestHooks, useEtcd } from "../../src/testing/index.ts";

describe("useEtcd", () => {
  const fixture = useEtcd(runner, { listen: false });

  test("gives a client of a new cluster", async () => {
    assert.equal((await fixture.client.put("a", "1")).revision, 2);
  });

  test("resets it before the next test", async () => {
    assert.equal(await fixture.client.get("a"), undefined);
    assert.equal((await fixture.client.put("b", "1")).revision, 2);
    await fixture.etcd.advance(1000);
  });
});

describe("useEtcd with users", () => {
  const fixture = useEtcd(runner, { listen: false, users: { root: "secret" } });

  test("gives a client of root", async () => {
    await fixture.client.put("a", "1");
  });
});

describe("useEtcd with the hooks of other runners", () => {
  const calls: string[] = [];
  const recorded = (name: string) => (run: () => Promise<void>) => void calls.push(`${name} ${run.length}`);
  const hooks: TestHooks = {
    beforeAll: recorded("beforeAll"),
    beforeEach: recorded("beforeEach"),
    afterAll: recorded("afterAll"),
  };

  test("takes them by their names, as given or from the globals", (t) => {
    useEtcd(hooks);
    assert.deepEqual(calls.splice(0), ["beforeAll 0", "beforeEach 0", "afterAll 0"]);
    Object.assign(globalThis, hooks);
    t.after(() => {
      for (const name of Object.keys(hooks)) Reflect.deleteProperty(globalThis, name);
    });
    useEtcd();
    assert.deepEqual(calls.splice(0), ["beforeAll 0", "beforeEach 0", "afterAll 0"]);
  });

  test("says what is missing, and when it is used outside of tests", () => {
    assert.throws(() => useEtcd(), /needs the hooks of the test runner/);
    assert.throws(() => useEtcd({ beforeEach() {} }), /needs the hooks of the test runner/);
    assert.throws(() => useEtcd(hooks).client, EmbeddedError);
  });
});
