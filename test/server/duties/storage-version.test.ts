import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { formatVersion, parseVersion } from "../../../src/base/semver.ts";
import { DowngradeVersionTestRequest, InternalRaftRequest, PutRequest } from "../../../src/proto/etcdserverpb.ts";
import { Entry, EntryType } from "../../../src/proto/raftpb.ts";
import { LogVersion } from "../../../src/server/duties/log-version.ts";
import { StorageVersion } from "../../../src/server/duties/storage-version.ts";
import { MemoryLogger } from "../../harness/in-process.ts";
import { MemoryBackend } from "../../harness/memory-backend.ts";

const KEY = Buffer.from("storageVersion");
const version = (text: string) => parseVersion(text)!;

function storage(options: { term?: number; logVersion?: string; stored?: string } = {}) {
  const backend = new MemoryBackend({ clock: systemClock });
  const logger = new MemoryLogger();
  if (options.stored !== undefined) backend.put("meta", KEY, Buffer.from(options.stored));
  const storageVersion = new StorageVersion({
    backend: () => backend,
    logger,
    term: () => options.term ?? 1,
    logVersion: () => (options.logVersion === undefined ? undefined : version(options.logVersion)),
  });
  const stored = (): string | undefined => {
    const bytes = backend.get("meta", KEY);
    return bytes === undefined ? undefined : Buffer.from(bytes).toString();
  };
  return { storageVersion, stored, logger };
}

describe("the version of the stored state", () => {
  test("is 3.5 for a written state without a version, and unknown before anything was written", () => {
    assert.equal(formatVersion(storage().storageVersion.detected!), "3.5.0");
    assert.equal(storage({ term: 0 }).storageVersion.detected, undefined);
    assert.equal(storage({ stored: "" }).storageVersion.stored, undefined);
    assert.equal(formatVersion(storage({ stored: "3.6.0" }).storageVersion.detected!), "3.6.0");
  });

  test("rises and falls one minor version at a time, and before 3.6 it is not stored", () => {
    const { storageVersion, stored, logger } = storage();
    storageVersion.migrate(version("3.7.0"));
    assert.equal(stored(), "3.7.0");
    storageVersion.migrate(version("3.6.0"));
    assert.equal(stored(), "3.6.0");
    storageVersion.migrate(version("3.5.0"));
    assert.equal(stored(), undefined);
    assert.deepEqual(
      logger.lines.map(({ fields }) => fields["new-storage-version"]),
      ["3.6.0", "3.7.0", "3.6.0", "3.5.0"],
    );
  });

  test("is not migrated where this server does not know the changes", () => {
    const { storageVersion, stored } = storage({ stored: "3.7.0" });
    assert.throws(
      () => storageVersion.migrate(version("3.8.0")),
      /^StorageVersionError: cannot create migration plan: version "3.8.0" is not supported$/,
    );
    assert.throws(() => storageVersion.migrate(version("3.4.0")), /version "3.5.0" is not supported/);
    assert.throws(() => storageVersion.migrate(version("4.0.0")), /changing major storage version is not supported/);
    assert.equal(stored(), "3.7.0");
    assert.throws(() => storage({ stored: "3.8.0" }).storageVersion.check("3.7.1"), /"3.8.0" is not supported/);
    storage({ stored: "3.6.0" }).storageVersion.check("3.7.1");
  });

  test("is not lowered below what the log after the last snapshot needs", () => {
    const { storageVersion, stored } = storage({ stored: "3.7.0", logVersion: "3.7.0" });
    assert.throws(
      () => storageVersion.migrate(version("3.6.0")),
      /cannot downgrade storage, WAL contains newer entries, as the target version \(3\.6\.0\) is lower than the version \(3\.7\.0\) detected from WAL logs/,
    );
    assert.equal(stored(), "3.7.0");
  });

  test("of an empty state cannot be changed", () => {
    assert.throws(() => storage({ term: 0 }).storageVersion.migrate(version("3.7.0")), /missing term information/);
  });
});

describe("the version that a log needs", () => {
  const entry = (index: number, request: Partial<InternalRaftRequest>): Entry =>
    Entry.create({
      index,
      term: 1,
      type: EntryType.EntryNormal,
      data: InternalRaftRequest.encode(InternalRaftRequest.create(request)),
    });
  const mark = (ver: string) => ({ downgradeVersionTest: DowngradeVersionTestRequest.create({ ver }) });
  const put = { put: PutRequest.create({ key: Buffer.from("k"), value: Buffer.alloc(100) }) };

  test("is none for ordinary requests", () => {
    assert.equal(new LogVersion([entry(1, put), entry(2, {})]).since(0), undefined);
  });

  test("is the highest named by a mark in it, until a snapshot covers the last mark", () => {
    const log = new LogVersion([entry(1, put), entry(2, mark("3.7.0")), entry(3, put), entry(4, mark("3.5.0"))]);
    assert.equal(formatVersion(log.since(3)!), "3.7.0");
    assert.equal(log.since(4), undefined);
    log.mark("3.5.0", 9);
    assert.equal(formatVersion(log.since(4)!), "3.6.0");
    assert.equal(log.since(9), undefined);
  });
});
