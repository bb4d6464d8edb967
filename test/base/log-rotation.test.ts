import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { type LogRotation, RotatingFileSink } from "../../src/base/log-rotation.ts";

const PLAIN: LogRotation = { maxSizeMb: 1, maxAgeDays: 0, maxBackups: 0, localTime: false, compress: false };
const START_MS = Date.UTC(2026, 0, 2, 15, 4, 5, 0);

function open(t: TestContext, rotation: Partial<LogRotation> = {}) {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-rotation-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const now = { ms: START_MS };
  const clock: Clock = { ...systemClock, wallMs: () => now.ms };
  const path = join(dir, "sub", "etcd.log");
  const sink = new RotatingFileSink(path, { ...PLAIN, ...rotation }, clock);
  t.after(() => sink.close());
  return { sink, path, now, names: () => readdirSync(join(dir, "sub")).sort(), dir: join(dir, "sub") };
}

/** A line of almost half a megabyte: three of them do not fit. */
const LINE = `${"x".repeat(450 * 1024)}\n`;

test("a file that would exceed its size is renamed with the time", (t) => {
  const { sink, path, names } = open(t);
  for (let i = 0; i < 3; i++) sink.write(LINE);
  assert.deepEqual(names(), ["etcd-2026-01-02T15-04-05.000.log", "etcd.log"]);
  assert.equal(statSync(path).size, LINE.length);
});

test("two rotations in one millisecond keep both files", (t) => {
  const { sink, names } = open(t);
  for (let i = 0; i < 5; i++) sink.write(LINE);
  assert.deepEqual(names(), ["etcd-2026-01-02T15-04-05.000.log", "etcd-2026-01-02T15-04-05.001.log", "etcd.log"]);
});

test("old files are removed by count, the oldest first", async (t) => {
  const { sink, now, names } = open(t, { maxBackups: 2 });
  for (let i = 0; i < 11; i++) {
    sink.write(LINE);
    now.ms += 1000;
  }
  await sink.settled();
  assert.deepEqual(names(), ["etcd-2026-01-02T15-04-13.000.log", "etcd-2026-01-02T15-04-15.000.log", "etcd.log"]);
});

test("old files are removed by age, and other files stay", async (t) => {
  const { sink, now, names, dir } = open(t, { maxAgeDays: 1 });
  writeFileSync(join(dir, "etcd-notes.log"), "");
  for (let i = 0; i < 3; i++) sink.write(LINE);
  now.ms += 2 * 24 * 3600 * 1000;
  for (let i = 0; i < 2; i++) sink.write(LINE);
  await sink.settled();
  assert.deepEqual(names(), ["etcd-2026-01-04T15-04-05.000.log", "etcd-notes.log", "etcd.log"]);
});

test("old files are compressed when configured, and nothing is lost", async (t) => {
  const { sink, names, dir } = open(t, { compress: true });
  sink.write("first\n");
  for (let i = 0; i < 3; i++) sink.write(LINE);
  await sink.settled();
  assert.deepEqual(names(), ["etcd-2026-01-02T15-04-05.000.log.gz", "etcd.log"]);
  const text = gunzipSync(readFileSync(join(dir, "etcd-2026-01-02T15-04-05.000.log.gz"))).toString();
  assert.ok(text.startsWith("first\nxxx"));
});

test("an existing log is continued", (t) => {
  const { sink, path, dir } = open(t);
  sink.write("a\n");
  sink.close();
  const again = new RotatingFileSink(join(dir, "etcd.log"), PLAIN, systemClock);
  again.write("b\n");
  again.close();
  assert.equal(readFileSync(path, "utf8"), "a\nb\n");
});
