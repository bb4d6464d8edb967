import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { systemDisk } from "../../../src/base/disk.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { checkBolt } from "../../../src/bolt/check.ts";
import { BoltReader } from "../../../src/bolt/reader.ts";
import type { BackendError, BackendSnapshot } from "../../../src/mvcc/backend/backend.ts";
import { BoltBackend } from "../../../src/mvcc/backend/bolt-backend.ts";
import { hashBackend } from "../../../src/mvcc/store/hash.ts";

const VALUE = Buffer.alloc(1000, "v");

function setUp(t: TestContext): { dir: string; open: (path: string) => BoltBackend } {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-image-"));
  const backends: BoltBackend[] = [];
  t.after(async () => {
    for (const backend of backends) await backend.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const open = (path: string): BoltBackend => {
    const onFailure = (error: BackendError): void => {
      throw error;
    };
    const backend = new BoltBackend({ path, clock: systemClock, logger: nullLogger, batchIntervalMs: 1, onFailure });
    backends.push(backend);
    return backend;
  };
  return { dir, open };
}

function put(backend: BoltBackend, from: number, to: number): void {
  for (let main = from; main < to; main++) backend.putRevision(main, 0, false, VALUE, 0, VALUE.length);
}

async function hashOf(snapshot: BackendSnapshot): Promise<number> {
  try {
    return await hashBackend(snapshot, systemClock);
  } finally {
    snapshot.close();
  }
}

test("the image of a snapshot is a valid file of that moment, while the database is written and defragmented", async (t) => {
  const { dir, open } = setUp(t);
  const backend = open(join(dir, "db"));
  put(backend, 1, 4000);
  await backend.commit();
  for (let main = 1; main < 2000; main++) backend.deleteRevision(main, 0, false);
  const snapshot = await backend.snapshot();
  const image = snapshot.image();
  const chunks: Uint8Array[] = [];
  let next = 4000;
  for await (const chunk of image.chunks()) {
    chunks.push(chunk);
    // Its free pages are used again, and those that it needs become free.
    for (let main = next - 2000; main < next - 1900; main++) backend.deleteRevision(main, 0, false);
    put(backend, next, next + 100);
    next += 100;
    await backend.commit();
    if (chunks.length === 5) await backend.defragment();
  }
  assert.ok(chunks.length > 10, `${chunks.length} chunks`);
  const bytes = Buffer.concat(chunks);
  assert.equal(bytes.length, image.sizeBytes);

  const copy = join(dir, "copy");
  writeFileSync(copy, bytes);
  const reader = new BoltReader({ disk: systemDisk, path: copy });
  assert.deepEqual([...checkBolt(reader)], []);
  reader.close();
  const expected = await hashOf(snapshot);
  const received = open(copy);
  assert.equal(await hashOf(await received.snapshot()), expected);
  // It can be written, and the state that it came with is not overwritten.
  put(received, 10_000, 10_100);
  await received.commit();
});

test("an image whose snapshot is closed ends with an error, and the file is closed only after its last read", async (t) => {
  const { dir, open } = setUp(t);
  const backend = open(join(dir, "db"));
  put(backend, 1, 4000);
  const snapshot = await backend.snapshot();
  const chunks = snapshot.image().chunks()[Symbol.asyncIterator]();
  await chunks.next();
  const late = chunks.next();
  snapshot.close();
  assert.equal(backend.openReadCount(), 1);
  await assert.rejects(late, { code: "ERR_BACKEND_CLOSED" });
  await backend.close();
  assert.equal(backend.openReadCount(), 0);
});
