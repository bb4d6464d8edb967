import assert from "node:assert/strict";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { lockFile } from "../../src/base/file-locks.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { writeBoltFile } from "../../src/bolt/writer.ts";
import { type BucketChange, changedBuckets } from "../../src/utl/database.ts";
import { damagePage } from "../harness/damaged-page.ts";
import { startInProcess, tempDir } from "../harness/in-process.ts";
import { etcdutl, putText, saveSnapshot } from "../utl/helpers.ts";
import { doctor } from "./helpers.ts";

let dir: ReturnType<typeof tempDir>;
/** A healthy directory: of a member restored from a backup, in stock etcd's formats. */
let healthy: string;
let copies = 0;

before(async () => {
  dir = tempDir();
  const server = await startInProcess();
  const backup = join(dir.path, "backup.db");
  try {
    for (let i = 0; i < 50; i++) await putText(server.client, `key ${i}`, "x".repeat(500));
    await saveSnapshot(server.client, backup);
  } finally {
    await server.close();
  }
  healthy = join(dir.path, "healthy");
  const { code, err } = await etcdutl("snapshot", "restore", backup, "--data-dir", healthy);
  assert.equal(code, 0, err);
  chmodSync(healthy, 0o700);
});

after(() => dir.remove());

function copy(): string {
  const path = join(dir.path, `copy-${++copies}`);
  cpSync(healthy, path, { recursive: true });
  chmodSync(path, 0o700);
  return path;
}

/** The findings that are not `ok`, except those about the machine's own disk. */
async function found(dataDir: string) {
  const { code, out } = await doctor(dataDir, "-w", "json");
  const { findings } = JSON.parse(out) as {
    findings: { severity: string; subject: string; text: string; lost?: string; next?: string[]; repair?: string }[];
  };
  const own = findings.filter(({ subject }) => subject !== "disk" && subject !== "space");
  return { code, all: own, bad: own.filter(({ severity }) => severity !== "ok") };
}

const segmentOf = (dataDir: string): string => {
  const names = readdirSync(join(dataDir, "member/wal")).filter((name) => name.endsWith(".wal"));
  return join(dataDir, "member/wal", names.sort().at(-1)!);
};

/** Where the log's records end and the zeros of reserved space begin. */
function endOf(path: string): number {
  const bytes = readFileSync(path);
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return (end + 7) & ~7;
}

function change(dataDir: string, changes: readonly BucketChange[]): void {
  const path = join(dataDir, "member/snap/db");
  const reader = new BoltReader({ disk: systemDisk, path });
  writeBoltFile({ disk: systemDisk, path: `${path}.new`, buckets: changedBuckets(reader, changes) });
  reader.close();
  renameSync(`${path}.new`, path);
}

test("a healthy directory reports only what it holds", async () => {
  const { bad, all } = await found(copy());
  assert.deepEqual(bad, []);
  assert.deepEqual(all.map(({ subject }) => subject).sort(), ["database", "log"]);
  assert.match(
    all[0]!.text,
    /^member [0-9a-f]+ of cluster [0-9a-f]+: 1 segments, whole from entry 2 to 1, committed up to 1$/,
  );
  assert.match(all[1]!.text, /every page in order; revision 51, holds the log up to entry 1, storage version 3\.7\.0/);
});

test("a torn tail of the log loses nothing, and is repaired on request, keeping a copy", async () => {
  const dataDir = copy();
  const segment = segmentOf(dataDir);
  const end = endOf(segment);
  // The last record, of which only a part reached the disk.
  truncateSync(segment, end - 16);
  const { code, bad } = await found(dataDir);
  assert.deepEqual(
    bad.map(({ severity, subject }) => [severity, subject]),
    [["note", "log"]],
  );
  assert.ok(code <= 1);
  assert.match(bad[0]!.text, /a crash tore the end of .*\.wal; .*Nothing of it was acknowledged/);
  const repaired = await doctor(dataDir, "--repair");
  assert.match(
    repaired.err,
    /repairing: cut it off now, and keep the segment as it is as .*\.wal\.broken\ndone: cut \d+ bytes/,
  );
  assert.deepEqual((await found(dataDir)).bad, []);
  assert.equal(readFileSync(`${segment}.broken`).length, end - 16);
  assert.match((await doctor(dataDir, "--repair")).err, /there is nothing that can be repaired safely/);
});

test("damage in the middle of the log names the segment and the byte, and what it costs", async () => {
  const dataDir = copy();
  const segment = segmentOf(dataDir);
  const fd = openSync(segment, "r+");
  writeSync(fd, Buffer.from([0xff, 0xff, 0xff]), 0, 3, 120);
  const { code, bad } = await found(dataDir);
  assert.equal(code, 2);
  const log = bad.find(({ subject }) => subject === "log")!;
  assert.equal(log.severity, "problem");
  assert.match(log.text, /0000000000000000-0000000000000000\.wal.*byte \d+/s);
  assert.match(log.lost!, /as far as only this member has them/);
  assert.ok(log.next!.length >= 3);
});

test("a missing log, and a directory without a member, report what was lost and how to continue", async () => {
  const dataDir = copy();
  rmSync(join(dataDir, "member/wal"), { recursive: true });
  mkdirSync(join(dataDir, "member/wal"));
  const { code, bad } = await found(dataDir);
  rmSync(join(dataDir, "member/wal"), { recursive: true });
  assert.match((await found(dataDir)).bad[0]!.text, /there is no log in .*member\/wal/, "nor a directory for it");
  assert.equal(code, 2);
  assert.match(bad[0]!.text, /there is no log in .*member\/wal/);
  assert.match(bad[0]!.next![0]!, /--wal-dir/);
  const empty = join(dir.path, "empty");
  mkdirSync(empty);
  assert.match((await found(empty)).bad[0]!.text, /empty is empty$/);
  assert.match((await found(join(dir.path, "nowhere"))).bad[0]!.text, /nowhere does not exist$/);
  writeFileSync(join(empty, "note.txt"), "");
  assert.match((await found(empty)).bad[0]!.text, /holds note\.txt, but no data of a member$/);
});

test("a damaged database names its pages", async () => {
  const dataDir = copy();
  const path = join(dataDir, "member/snap/db");
  const page = damagePage(path);
  const { code, bad } = await found(dataDir);
  assert.equal(code, 2);
  assert.equal(bad[0]!.subject, "database");
  assert.match(bad[0]!.text, new RegExp(`page ${page}: `));
  const bytes = readFileSync(path);
  bytes.fill(0, 0, 8192);
  writeFileSync(path, bytes);
  assert.match((await found(dataDir)).bad[0]!.text, /is not in bbolt's format/);
});

test("a log and a database that do not fit together are distinguished by which of them is older", async () => {
  const index = (value: bigint): BucketChange => ({
    name: "meta",
    *entries(old) {
      for (const entry of old) {
        if (Buffer.from(entry.key).toString() !== "consistent_index") yield entry;
        else {
          const bytes = Buffer.alloc(8);
          bytes.writeBigUInt64BE(value);
          yield { key: entry.key, value: bytes };
        }
      }
    },
  });
  const ahead = copy();
  change(ahead, [index(9n)]);
  const older = await found(ahead);
  assert.equal(older.code, 2);
  assert.match(older.bad[0]!.text, /it ends at entry 1, but the database holds entry 9 already/);
  assert.match(older.bad[0]!.lost!, /entries 2 to 9 and later: it must not vote as if it had them/);
  const behind = copy();
  change(behind, [index(0n)]);
  assert.match((await found(behind)).bad[0]!.text, /it holds the log up to entry 0, but the log begins at 2/);
});

test("a removed member, and a log of another member, are reported", async () => {
  const removed = copy();
  const { all } = await found(removed);
  const id = /^member ([0-9a-f]+)/.exec(all[0]!.text)![1]!;
  change(removed, [
    { name: "members_removed", entries: () => [{ key: Buffer.from(id), value: Buffer.from("removed") }] },
  ]);
  assert.match((await found(removed)).bad[0]!.text, new RegExp(`this member, ${id}, was removed`));
  const other = copy();
  change(other, [
    { name: "members", entries: () => [{ key: Buffer.from("ff"), value: Buffer.from('{"id":255,"name":"x"}') }] },
  ]);
  assert.match(
    (await found(other)).bad[0]!.text,
    new RegExp(`the log is of member ${id}, whom the database does not know`),
  );
});

test("active alarms, broken snapshots and open permissions are warnings", async () => {
  const dataDir = copy();
  change(dataDir, [{ name: "alarm", entries: () => [{ key: Buffer.from([8, 1, 16, 1]), value: Buffer.alloc(0) }] }]);
  writeFileSync(join(dataDir, "member/snap/00000000000000ff-00000000000000ff.snap"), "torn");
  chmodSync(dataDir, 0o755);
  const { bad } = await found(dataDir);
  assert.deepEqual(bad.map(({ subject, severity }) => `${severity} ${subject}`).sort(), [
    "warning alarms",
    "warning directory",
    "warning snapshot",
  ]);
});

test("a directory in use is not called damaged for what changes while it is read, nor repaired", async () => {
  const dataDir = copy();
  const segment = segmentOf(dataDir);
  truncateSync(segment, endOf(segment) - 16);
  const path = join(dataDir, "member/snap/db");
  damagePage(path);
  const lock = lockFile(path);
  try {
    const { code, bad } = await found(dataDir);
    assert.deepEqual(
      bad.map(({ severity, subject }) => [severity, subject]),
      [["note", "directory"]],
    );
    assert.ok(code <= 1);
    assert.match(bad[0]!.text, /^a member runs on it .*: the database is not examined/);
    assert.match((await doctor(dataDir, "--repair")).err, /there is nothing that can be repaired safely/);
  } finally {
    lock.release();
  }
  assert.equal((await found(dataDir)).code, 2);
});

test("text puts the worst last, and an invalid command line is reported", async () => {
  const dataDir = copy();
  rmSync(segmentOf(dataDir));
  const { out, code } = await doctor(dataDir);
  assert.equal(code, 2);
  assert.match(out, /^ok {7}database: [\s\S]*\nPROBLEM {2}log: there is no log/);
  assert.match(out, /\n {11}1\. if the log lies elsewhere/);
  assert.deepEqual(
    [(await doctor()).code, (await doctor("a", "b")).code, (await doctor(dataDir, "-w", "xml")).code],
    [3, 3, 3],
  );
  assert.match((await doctor("--frobnicate")).err, /unknown flag: --frobnicate/);
  assert.match((await doctor("--help")).out, /kvorum doctor DATA-DIR/);
});
