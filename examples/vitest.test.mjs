/** The same with vitest: `npm install --save-dev vitest`, then `npx vitest run examples/vitest.test.mjs`. */
import { useEtcd } from "kvorum/testing";
import * as runner from "vitest";

const { expect, test } = runner;
const fixture = useEtcd(runner, { members: 3 });

test("a value can be read after it was put", async () => {
  await fixture.client.put("greeting", "hello");
  expect((await fixture.client.get("greeting"))?.value).toBe("hello");
});

test("the cluster goes on when its leader is lost", async () => {
  const { client, etcd } = fixture;
  const leader = await etcd.leader();
  await etcd.kill(leader);
  expect(await etcd.leader()).not.toBe(leader);
  await client.put("greeting", "hello");
});
