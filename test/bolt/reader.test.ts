import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { checkBolt } from "../../src/bolt/check.ts";
import { BoltError } from "../../src/bolt/format.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { writeBoltFile } from "../../src/bolt/writer.ts";
import { rounds } from "../harness/fast.ts";
import { generator, numbered, sources, tempDir } from "./helpers.ts";

const PAGE = 4096;

function sample(t: Parameters<typeof tempDir>[0], count = 2000): { path: string; bytes: Buffer } {
  const path = join(tempDir(t), "db");
  writeBoltFile({
    disk: systemDisk,
    path,
    buckets: [...sources({ alarm: [], auth: [["a", "b"]] }), numbered("key", count, (i) => (i === 77 ? 20_000 : 30))],
  });
  return { path, bytes: readFileSync(path) };
}

/** Reads everything; may only throw a BoltError. */
function readAll(path: string): number {
  const reader = new BoltReader({ disk: systemDisk, path });
  try {
    let bytes = 0;
    for (const { name, bucket } of reader.root.buckets()) {
      bytes += name.length;
      for (const { key, value } of bucket.entries()) bytes += key.length + value.length;
    }
    return bytes;
  } finally {
    reader.close();
  }
}

test("the meta with the higher transaction id is used, and one damaged meta does not matter", (t) => {
  const { path, bytes } = sample(t);
  const whole = readAll(path);
  for (const meta of [0, 1]) {
    const damaged = Buffer.from(bytes);
    damaged[meta * PAGE + 60] = damaged[meta * PAGE + 60]! ^ 1;
    writeFileSync(path, damaged);
    assert.equal(readAll(path), whole);
  }
});

test("a file that is not bbolt, of another version, or with two bad metas is refused with the reason", (t) => {
  const { path, bytes } = sample(t);
  const refused = (change: (bytes: Buffer) => Buffer, code: string, reason: RegExp) => {
    writeFileSync(path, change(Buffer.from(bytes)));
    assert.throws(
      () => new BoltReader({ disk: systemDisk, path }),
      (error) => error instanceof BoltError && error.code === code && reason.test(error.message),
    );
  };
  refused(() => Buffer.alloc(0), "not-bolt", /magic/);
  refused(() => Buffer.from("SQLite format 3"), "not-bolt", /magic/);
  const poke = (offset: number) => (copy: Buffer) => {
    for (const page of [0, PAGE]) copy[page + offset] = copy[page + offset]! ^ 1;
    return copy;
  };
  refused(poke(16 + 4), "version", /version/);
  refused(poke(16 + 40), "damaged", /checksum/);
  refused((copy) => copy.subarray(0, copy.length - 1), "damaged", /cut short/);
});

test("damage names the file and the page", (t) => {
  const { path, bytes } = sample(t);
  const page = 20;
  bytes.writeUInt16LE(0x10, page * PAGE + 8);
  writeFileSync(path, bytes);
  assert.throws(() => readAll(path), { name: "BoltError", page, file: path, code: "damaged" });
  const reader = new BoltReader({ disk: systemDisk, path });
  t.after(() => reader.close());
  const problems = [...checkBolt(reader)];
  assert.match(problems[0]!, /page 20: is of type 0x10/);
});

test("a page above the limit is refused, not loaded", (t) => {
  const { path } = sample(t);
  const reader = new BoltReader({ disk: systemDisk, path, pageBytesMax: 8192 });
  t.after(() => reader.close());
  assert.throws(() => [...reader.bucket(Buffer.from("key"))!.entries()], { name: "BoltError", code: "limit" });
});

test("a branch that points at itself ends in an error", (t) => {
  const { path, bytes } = sample(t);
  for (let id = 2; id * PAGE < bytes.length; id++) {
    if (bytes.readUInt16LE(id * PAGE + 8) !== 1) continue;
    const count = bytes.readUInt16LE(id * PAGE + 10);
    for (let i = 0; i < count; i++) bytes.writeUInt32LE(id, id * PAGE + 16 + 16 * i + 8);
  }
  writeFileSync(path, bytes);
  assert.throws(() => readAll(path), { name: "BoltError", code: "damaged", message: /not a tree/ });
  const reader = new BoltReader({ disk: systemDisk, path });
  t.after(() => reader.close());
  assert.throws(() => reader.bucket(Buffer.from("key"))!.get(Buffer.from("x")), /not a tree/);
  assert.throws(() => reader.bucket(Buffer.from("key"))!.last(), /not a tree/);
  assert.ok([...checkBolt(reader)].some((problem) => problem.includes("multiple references")));
});

test("no mutation of a file makes the reader crash, hang or read endlessly", (t) => {
  const { path, bytes } = sample(t, 600);
  const next = generator(2024);
  let damaged = 0;
  for (let round = 0; round < rounds(1500); round++) {
    const copy = Buffer.from(bytes);
    for (let flips = 1 + (next() % 4); flips > 0; flips--) {
      // Headers and elements are where a change hurts most: aim at the first 256 bytes of a page half of the time.
      const inPage = next() % 2 === 0 ? next() % 256 : next() % PAGE;
      const at = PAGE * (2 + (next() % (bytes.length / PAGE - 2))) + inPage;
      if (next() % 3 === 0) copy.writeUInt32LE(next() % 2 === 0 ? next() % 40 : next(), Math.min(at, copy.length - 4));
      else copy[at] = next() & 255;
    }
    writeFileSync(path, copy);
    try {
      readAll(path);
    } catch (error) {
      assert.ok(error instanceof BoltError, `round ${round}: ${String(error)}`);
      damaged++;
    }
    const reader = new BoltReader({ disk: systemDisk, path });
    for (const problem of checkBolt(reader)) assert.equal(typeof problem, "string");
    reader.close();
  }
  assert.ok(damaged > rounds(100), `only ${damaged} mutations were noticed`);
});
