import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { journalEntry } from "../../src/base/log-journal.ts";
import { DescriptorSink } from "../../src/base/log-sink.ts";

test("a full pipe keeps a bounded rest, in order, and reports later what was dropped", () => {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-pipe-"));
  const path = join(dir, "pipe");
  execFileSync("mkfifo", [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  try {
    const sink = new DescriptorSink(writer);
    const line = (i: number) => `${String(i).padStart(999, "0")}\n`;
    const count = 2000;
    for (let i = 0; i < count; i++) sink.write(line(i));
    const chunks: Buffer[] = [];
    const chunk = Buffer.alloc(65536);
    const drain = () => {
      for (;;) {
        try {
          const length = readSync(reader, chunk);
          if (length === 0) return;
          chunks.push(Buffer.from(chunk.subarray(0, length)));
        } catch {
          return;
        }
      }
    };
    for (let i = 0; i < 40; i++) {
      drain();
      sink.write("end\n");
    }
    drain();
    const lines = Buffer.concat(chunks).toString().split("\n").slice(0, -1);
    const numbers = lines.filter((text) => /^\d+$/.test(text));
    assert.ok(numbers.length > 1000 && numbers.length < count);
    assert.deepEqual(
      numbers.map(Number),
      numbers.map((_, i) => i),
    );
    const note = lines.find((text) => text.startsWith("{"));
    assert.match(note ?? "", /log lines were dropped because the reader of the log is too slow/);
    assert.equal(lines.at(-1), "end");
  } finally {
    closeSync(reader);
    closeSync(writer);
    rmSync(dir, { recursive: true });
  }
});

test("a reader that is gone does not end the process", async () => {
  const script = `
    import { DescriptorSink } from "./src/base/log-sink.ts";
    const sink = new DescriptorSink(1);
    for (let i = 0; i < 10000; i++) sink.write("a line of the log\\n");
    process.exitCode = 7;`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  child.stdout.destroy();
  const code = await new Promise((resolve) => child.on("exit", resolve));
  assert.equal(code, 7);
});

test("a journal entry has its priority, its identifier and its message with a length", () => {
  const entry = journalEntry("line one\nline two\n", "warn", "etcd");
  const head = "PRIORITY=4\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n";
  assert.equal(entry.subarray(0, head.length).toString(), head);
  assert.equal(entry.readBigUInt64LE(head.length), 18n);
  assert.equal(entry.subarray(head.length + 8).toString(), "line one\nline two\n\n");
});
