import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { checkBolt } from "../../src/bolt/check.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import {
  type BoltBucketSource,
  BoltInputError,
  boltChunks,
  measureBolt,
  writeBoltFile,
} from "../../src/bolt/writer.ts";
import { type Content, generator, numbered, sources, tempDir } from "./helpers.ts";

function dump(reader: BoltReader): Content {
  const content: Content = {};
  for (const { name, bucket } of reader.root.buckets()) {
    content[name.toString()] = [...bucket.entries()].map(({ key, value }) => [
      Buffer.from(key).toString("latin1"),
      Buffer.from(value).toString("latin1"),
    ]);
  }
  return content;
}

/** Writes, checks that streaming gives the same bytes, and opens the result. */
function written(t: Parameters<typeof tempDir>[0], buckets: readonly BoltBucketSource[]): BoltReader {
  const path = join(tempDir(t), "db");
  const layout = writeBoltFile({ disk: systemDisk, path, buckets });
  assert.deepEqual(measureBolt(buckets), layout);
  const file = readFileSync(path);
  assert.equal(file.length, layout.sizeBytes);
  assert.ok(Buffer.concat([...boltChunks(buckets, layout)]).equals(file), "the streamed file is the stored file");
  const reader = new BoltReader({ disk: systemDisk, path });
  t.after(() => reader.close());
  assert.deepEqual([...checkBolt(reader)], []);
  return reader;
}

test("a database without buckets is a valid file", (t) => {
  assert.deepEqual(dump(written(t, [])), {});
});

test("everything written is read back, empty buckets and empty values included", (t) => {
  const content: Content = {
    alarm: [],
    auth: [["authRevision", "\0\0\0\0\0\0\0\u0001"]],
    key: [
      ["a", ""],
      ["b", "x"],
      ["b\0", "y"],
    ],
    meta: [],
  };
  const reader = written(t, sources(content));
  assert.deepEqual(dump(reader), content);
  assert.equal(reader.bucket(Buffer.from("key"))?.get(Buffer.from("b"))?.toString(), "x");
  assert.equal(reader.bucket(Buffer.from("key"))?.get(Buffer.from("c")), undefined);
  assert.equal(reader.bucket(Buffer.from("nothing")), undefined);
});

test("a tree of many levels is found by key, walked from any key, and ends at its last", (t) => {
  const count = 60_000;
  const reader = written(t, [numbered("key", count, (i) => i % 40)]);
  const bucket = reader.bucket(Buffer.from("key"))!;
  let seen = 0;
  for (const { key, value } of bucket.entries()) {
    assert.equal(Buffer.from(key).readUInt32BE(4), seen);
    assert.equal(value.length, seen % 40);
    seen++;
  }
  assert.equal(seen, count);
  const from = Buffer.alloc(17);
  from.writeUInt32BE(41_234, 4);
  const first = bucket.entries(from).next().value!;
  assert.equal(Buffer.from(first.key).readUInt32BE(4), 41_234);
  assert.deepEqual(bucket.get(Buffer.from(first.key)), first.value);
  assert.equal(Buffer.from(bucket.last()!.key).readUInt32BE(4), count - 1);
  assert.equal(bucket.entries(Buffer.from([255])).next().done, true);
});

test("values larger than a page, and than a chunk, span pages", (t) => {
  const sizes = [4063, 4064, 4065, 100_000, 3, 1_500_000, 0, 70_000];
  const reader = written(t, [numbered("key", sizes.length, (i) => sizes[i]!)]);
  const values = [...reader.bucket(Buffer.from("key"))!.entries()].map(({ value }) => value);
  assert.deepEqual(
    values.map((value) => value.length),
    sizes,
  );
  for (const [i, value] of values.entries()) assert.ok(value.every((byte) => byte === i));
});

test("every branch page has at least two children, whatever the length of the keys", (t) => {
  const next = generator(7);
  for (let round = 0; round < 30; round++) {
    const count = next() % 400;
    const entries = Array.from({ length: count }, (_, i) => {
      const tail = Buffer.alloc(next() % (round % 3 === 0 ? 6000 : 200), 0x61);
      return [Buffer.concat([Buffer.from(String(i).padStart(6, "0")), tail]), Buffer.alloc(next() % 300)] as const;
    });
    const reader = written(t, sources({ key: entries }));
    const pages = [reader.bucket(Buffer.from("key"))!.rootPage];
    for (let id = pages.pop(); id !== undefined; id = pages.pop()) {
      const page = reader.page(id);
      if (page.isLeaf) continue;
      assert.ok(page.count >= 2, `page ${id} has ${page.count} children`);
      for (let i = 0; i < page.count; i++) pages.push(page.child(i));
    }
  }
});

test("keys out of order, empty or too long are refused with the reason", () => {
  const refused = (content: Content, reason: RegExp) =>
    assert.throws(() => [...boltChunks(sources(content), measureBolt(sources(content)))], {
      name: "BoltInputError",
      message: reason,
    });
  refused({ b: [], a: [] }, /strictly ascending/);
  refused({ a: [["x", "1"], ["x", "2"]] }, /key 78 comes after 78/); // biome-ignore format: one line reads better
  refused({ a: [["", "1"]] }, /a key is empty/);
  refused({ a: [[Buffer.alloc(32769), ""]] }, /32769 bytes/);
});

test("a failed write leaves the existing file, and no other", (t) => {
  const dir = tempDir(t);
  const path = join(dir, "db");
  writeBoltFile({ disk: systemDisk, path, buckets: sources({ a: [["k", "v"]] }) });
  const before = readFileSync(path);
  const broken: BoltBucketSource = {
    name: Buffer.from("a"),
    *entries() {
      yield { key: Buffer.from("k"), value: Buffer.alloc(0) };
      throw new Error("the source failed");
    },
  };
  assert.throws(() => writeBoltFile({ disk: systemDisk, path, buckets: [broken] }), /the source failed/);
  assert.ok(readFileSync(path).equals(before));
  assert.deepEqual(systemDisk.readDir(dir), ["db"]);
});

test("input that changed since it was measured is detected", () => {
  const layout = measureBolt([numbered("key", 1000, () => 10)]);
  assert.throws(() => [...boltChunks([numbered("key", 2000, () => 10)], layout)], BoltInputError);
});
