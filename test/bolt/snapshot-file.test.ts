import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { appendSha256Trailer, copySnapshot, verifySnapshotFile } from "../../src/bolt/snapshot-file.ts";
import { writeBoltFile } from "../../src/bolt/writer.ts";
import { numbered, tempDir } from "./helpers.ts";

const buckets = [numbered("key", 20_000, () => 50)];

test("a snapshot file is the database and its sha256", (t) => {
  const path = join(tempDir(t), "snapshot.db");
  const layout = writeBoltFile({ disk: systemDisk, path, buckets });
  const database = readFileSync(path);
  appendSha256Trailer(systemDisk, path);
  const snapshot = readFileSync(path);
  const digest = createHash("sha256").update(database).digest();
  assert.ok(snapshot.equals(Buffer.concat([database, digest])));
  assert.equal(verifySnapshotFile(systemDisk, path), layout.sizeBytes);
  assert.throws(() => appendSha256Trailer(systemDisk, path), /already ends with a checksum/);
});

test("a snapshot file without its sha256, or with a wrong one, is refused", (t) => {
  const path = join(tempDir(t), "snapshot.db");
  writeBoltFile({ disk: systemDisk, path, buckets });
  assert.throws(() => verifySnapshotFile(systemDisk, path), { code: "hash-missing" });
  appendSha256Trailer(systemDisk, path);
  const bytes = readFileSync(path);
  bytes[5000] = bytes[5000]! ^ 1;
  writeFileSync(path, bytes);
  assert.throws(() => verifySnapshotFile(systemDisk, path), {
    code: "hash-mismatch",
    message: /expected sha256 \[(\d+ ){31}\d+\], got \[/,
  });
});

test("a copy of a snapshot is the database without its sha256, which is compared on the way", (t) => {
  const directory = tempDir(t);
  const from = join(directory, "snapshot.db");
  const to = join(directory, "copy.db");
  writeBoltFile({ disk: systemDisk, path: from, buckets });
  const database = readFileSync(from);
  let copied = 0;
  const progress = (): { add(bytes: number): void; end(): void } => ({
    add: (bytes) => (copied += bytes),
    end: () => {},
  });
  const copy = (verify: boolean): void => copySnapshot({ disk: systemDisk, from, to, verify, progress });
  assert.throws(() => copy(true), { code: "hash-missing" });
  copy(false);
  assert.ok(readFileSync(to).equals(database));
  appendSha256Trailer(systemDisk, from);
  copied = 0;
  copy(true);
  assert.ok(readFileSync(to).equals(database));
  assert.equal(copied, database.length);
  const bytes = readFileSync(from);
  bytes[5000] = bytes[5000]! ^ 1;
  writeFileSync(from, bytes);
  assert.throws(() => copy(true), { code: "hash-mismatch" });
  copy(false);
  writeFileSync(from, Buffer.alloc(100_000));
  assert.throws(() => copy(false), { code: "not-bolt" });
});
