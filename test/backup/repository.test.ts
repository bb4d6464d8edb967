import assert from "node:assert/strict";
import { test } from "node:test";
import { HEAD } from "../../src/backup/format/manifest.ts";
import { RepositoryEnd, readRepository } from "../../src/backup/repository.ts";
import { DirectoryStore } from "../../src/backup/store/directory.ts";
import { systemClock as clock } from "../../src/base/clock.ts";
import { systemRandom as random } from "../../src/base/random.ts";
import { tempDir } from "../harness/in-process.ts";

test("an object whose manifest is stored counts, though the head could not be written: it is not stored again", async (t) => {
  const dir = tempDir();
  t.after(() => dir.remove());
  const store = new DirectoryStore(dir.path, clock, random);
  const put = store.put.bind(store);
  let failing = true;
  store.put = (name, bytes, options) =>
    name === HEAD && failing ? Promise.reject(new Error("the store is full")) : put(name, bytes, options);
  const end = await RepositoryEnd.open({ store, clock, random, recipients: [] });
  const times = { startedMs: 1, endedMs: 2 };
  const delta = (from: number) =>
    ({ kind: "delta", history: 1, clusterId: "1", from, to: from + 1, events: 1, ...times }) as const;
  assert.equal((await end.append(delta(1))).number, 1);
  failing = false;
  assert.equal((await end.append(delta(2))).number, 2);
  const { objects, head, problems } = await readRepository(store);
  assert.deepEqual(problems, []);
  assert.equal(head?.last, 2);
  assert.deepEqual(
    objects.map(({ manifest }) => manifest.from),
    [1, 2],
  );
});
