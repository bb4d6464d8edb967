import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { PageCache } from "../../src/bolt/page-cache.ts";
import { findMeta, PageFile } from "../../src/bolt/page-file.ts";
import { StateReader } from "../../src/bolt/state-reader.ts";
import { writeBoltFile } from "../../src/bolt/writer.ts";
import { numbered, tempDir } from "./helpers.ts";

test("a list of large values leaves at most 32 MiB of their pages in memory, whatever the limit of the cache", (t) => {
  const path = join(tempDir(t), "db");
  writeBoltFile({ disk: systemDisk, path, buckets: [numbered("key", 100, () => 500_000)] });
  const file = systemDisk.open(path, "r");
  t.after(() => file.close());
  const meta = findMeta(file);
  const pages = new PageFile(file, meta.pageSize);
  pages.pageCount = meta.pageCount;
  const cache = new PageCache(pages, 512 * 1024 * 1024);
  const state = new StateReader(cache, meta);
  const key = Buffer.alloc(17);
  key[8] = 0x5f;
  for (let i = 0; i < 100; i++) {
    key.writeUInt32BE(i, 4);
    assert.equal(state.get("key", key)!.length, 500_000);
  }
  assert.ok(cache.largeBytes <= 32 * 1024 * 1024, `${cache.largeBytes} bytes`);
  assert.ok(cache.largeBytes > 24 * 1024 * 1024, `${cache.largeBytes} bytes: the last ones are kept`);
});
