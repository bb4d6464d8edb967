import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { appendSha256Trailer, verifySnapshotFile, withSha256Trailer } from "../../src/bolt/snapshot-file.ts";
import { boltChunks, measureBolt, writeBoltFile } from "../../src/bolt/writer.ts";
import { numbered, tempDir } from "./helpers.ts";

const buckets = [numbered("key", 20_000, () => 50)];

test("a snapshot file is the database and its sha256, stored or streamed", (t) => {
  const path = join(tempDir(t), "snapshot.db");
  const layout = writeBoltFile({ disk: systemDisk, path, buckets });
  const database = readFileSync(path);
  appendSha256Trailer(systemDisk, path);
  const snapshot = readFileSync(path);
  const digest = createHash("sha256").update(database).digest();
  assert.ok(snapshot.equals(Buffer.concat([database, digest])));
  const streamed = Buffer.concat([...withSha256Trailer(boltChunks(buckets, measureBolt(buckets)))]);
  assert.ok(streamed.equals(snapshot));
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
