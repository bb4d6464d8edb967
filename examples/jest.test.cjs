/** The same with jest, whose hooks are global: `npm install --save-dev jest`, then `npx jest examples/jest.test.cjs`. */
const { useEtcd } = require("kvorum/testing");

const { expect, test } = globalThis;
const fixture = useEtcd();

test("a value can be read after it was put", async () => {
  await fixture.client.put("greeting", "hello");
  expect((await fixture.client.get("greeting"))?.value).toBe("hello");
});

test("a write is refused when the database is full", async () => {
  const { client, etcd } = fixture;
  await etcd.fill();
  await expect(client.put("greeting", "hello")).rejects.toThrow("database space exceeded");
});
