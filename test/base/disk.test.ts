import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import test, { type TestContext } from "node:test";
import { type DiskFile, systemDisk as disk } from "../../src/base/disk.ts";

function tempDir(t: TestContext): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "kvorum-disk-"));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function openNew(t: TestContext): DiskFile {
  const name = path.join(tempDir(t), "file");
  disk.open(name, "wx", 0o600).close();
  const file = disk.open(name, "r+");
  t.after(() => file.close());
  return file;
}

const settled = (start: (done: (error: Error | null) => void) => void): Promise<Error | null> =>
  new Promise((resolve) => start(resolve));

test("what is written at a position is read back from there", (t) => {
  const file = openNew(t);
  file.write(Buffer.from("world"), 6);
  file.write(Buffer.from("hello "), 0);
  const buffer = Buffer.alloc(11);
  assert.equal(file.read(buffer, 0), 11);
  assert.equal(buffer.toString(), "hello world");
  assert.equal(file.size(), 11);
});

test("a read past the end returns how much there was", (t) => {
  const file = openNew(t);
  file.write(Buffer.from("abc"), 0);
  assert.equal(file.read(Buffer.alloc(10), 1), 2);
  assert.equal(file.read(Buffer.alloc(10), 3), 0);
});

test("a background write and sync report when they are done", async (t) => {
  const file = openNew(t);
  assert.equal(await settled((done) => file.writeAsync(Buffer.alloc(300_000, 5), 10, done)), null);
  assert.equal(await settled((done) => file.dataSyncAsync(done)), null);
  file.dataSync();
  assert.equal(file.size(), 300_010);
  const buffer = Buffer.alloc(300_000);
  file.read(buffer, 10);
  assert.ok(buffer.equals(Buffer.alloc(300_000, 5)));
});

test("a background write and sync report the error that they fail with", async (t) => {
  const name = path.join(tempDir(t), "file");
  fs.writeFileSync(name, "abc");
  const file = disk.open(name, "r");
  const error = await settled((done) => file.writeAsync(Buffer.from("x"), 0, done));
  assert.equal((error as NodeJS.ErrnoException).code, "EBADF");
  file.close();
  assert.throws(() => file.dataSync(), { code: "EBADF" });
});

test("truncating cuts a file and extends it with zeros", (t) => {
  const file = openNew(t);
  file.write(Buffer.from("abcdef"), 0);
  file.truncate(2);
  file.truncate(4);
  const buffer = Buffer.alloc(9);
  assert.equal(file.read(buffer, 0), 4);
  assert.deepEqual([...buffer.subarray(0, 4)], [97, 98, 0, 0]);
});

test("opening to create fails if the file exists, opening to read if it does not", (t) => {
  const dir = tempDir(t);
  disk.open(path.join(dir, "a"), "wx").close();
  assert.throws(() => disk.open(path.join(dir, "a"), "wx"), { code: "EEXIST" });
  assert.throws(() => disk.open(path.join(dir, "b"), "r"), { code: "ENOENT" });
});

test("directories are made with their parents, listed and removed with their content", (t) => {
  const dir = tempDir(t);
  disk.makeDir(path.join(dir, "a/b"), 0o700);
  disk.makeDir(path.join(dir, "a/b"), 0o700);
  assert.equal(disk.modeOf(path.join(dir, "a")), 0o700);
  disk.open(path.join(dir, "a/b/c"), "w", 0o640).close();
  assert.equal(disk.modeOf(path.join(dir, "a/b/c")), 0o640);
  disk.rename(path.join(dir, "a/b/c"), path.join(dir, "a/d"));
  disk.syncDir(path.join(dir, "a"));
  assert.deepEqual(disk.readDir(path.join(dir, "a")).sort(), ["b", "d"]);
  disk.removeDir(path.join(dir, "a/b"));
  disk.remove(path.join(dir, "a/d"));
  assert.deepEqual(disk.readDir(path.join(dir, "a")), []);
  assert.equal(disk.exists(path.join(dir, "a/b")), false);
  assert.equal(disk.modeOf(path.join(dir, "a/b")), undefined);
});

test("two paths to one directory share their identity, two directories do not", (t) => {
  const dir = tempDir(t);
  disk.makeDir(path.join(dir, "a"), 0o700);
  fs.symlinkSync(path.join(dir, "a"), path.join(dir, "link"));
  assert.equal(disk.identityOf(path.join(dir, "a")), disk.identityOf(path.join(dir, "link")));
  assert.notEqual(disk.identityOf(path.join(dir, "a")), disk.identityOf(dir));
});

test("a file is read completely", (t) => {
  const name = path.join(tempDir(t), "file");
  fs.writeFileSync(name, "content");
  assert.equal(disk.readFile(name).toString(), "content");
  assert.throws(() => disk.readFile(`${name}2`), { code: "ENOENT" });
});
