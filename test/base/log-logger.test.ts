import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import type { LogLevel } from "../../src/base/log.ts";
import { createLogger } from "../../src/base/log-logger.ts";
import { FileSink, type LogSink } from "../../src/base/log-sink.ts";

function keepingSink(): LogSink & { lines: string[] } {
  const lines: string[] = [];
  return { lines, write: (line) => void lines.push(line), sync() {}, close() {} };
}

const frozenClock = (wallMs: { now: number }): Clock => ({ ...systemClock, wallMs: () => wallMs.now });

function loggerAt(level: LogLevel) {
  const sink = keepingSink();
  return { sink, log: createLogger({ level, format: "json", sinks: [sink], clock: systemClock }) };
}

test("a line below the level is dropped, and debugEnabled says so beforehand", () => {
  const { sink, log } = loggerAt("warn");
  log.debug("a");
  log.info("b");
  log.warn("c");
  log.error("d");
  assert.deepEqual(
    sink.lines.map((line) => JSON.parse(line).msg),
    ["c", "d"],
  );
  assert.equal(log.debugEnabled, false);
});

test("a new level takes effect at once, for the loggers named from this one too", () => {
  const { sink, log } = loggerAt("info");
  const raft = log.named({ name: "raft" });
  raft.debug("before");
  log.setLevel("debug");
  raft.debug("after");
  assert.equal(raft.debugEnabled, true);
  assert.equal(raft.level, "debug");
  assert.deepEqual(
    sink.lines.map((line) => [JSON.parse(line).msg, JSON.parse(line).logger]),
    [["after", "raft"]],
  );
});

test("a line names the function that logged it when callers are enabled, unless it is labelled", () => {
  const sink = keepingSink();
  const log = createLogger({ level: "debug", format: "json", sinks: [sink], clock: systemClock, callers: true });
  class Member {
    start(): void {
      log.info("a");
      this.#elect();
    }
    #elect(): void {
      [1].map(() => log.warn("b"));
    }
  }
  function stop(): void {
    log.log("error", "c");
    log.named({ name: "raft" }).debug("d");
    log.named({ caller: "embed/etcd" }).info("e");
  }
  new Member().start();
  stop();
  assert.deepEqual(
    sink.lines.map((line) => JSON.parse(line).caller),
    ["Member.start", "Member.#elect", "stop", "stop", "embed/etcd"],
  );
});

test("functions that only forward a line are not named in it, nor the bundler's name of a class that refers to itself", () => {
  const sink = keepingSink();
  const log = createLogger({ level: "debug", format: "json", sinks: [sink], clock: systemClock, callers: true });
  const forward = { info: (text: string) => log.info(text) };
  class _Store {
    restore(): void {
      forward.info("a");
      this.#warn("b");
    }
    #warn(text: string): void {
      log.warn(text);
    }
  }
  new _Store().restore();
  assert.deepEqual(
    sink.lines.map((line) => JSON.parse(line).caller),
    ["Store.restore", "Store.restore"],
  );
});

test("a timer's callback is named by its own name", async () => {
  const sink = keepingSink();
  const log = createLogger({ level: "debug", format: "json", sinks: [sink], clock: systemClock, callers: true });
  await new Promise<void>((resolve) => {
    setTimeout(function report() {
      log.info("a");
      resolve();
    }, 0);
  });
  assert.equal(JSON.parse(sink.lines[0]!).caller, "report");
});

test("every sink gets every line", () => {
  const sinks = [keepingSink(), keepingSink()];
  createLogger({ level: "info", format: "json", sinks, clock: systemClock }).info("x");
  assert.equal(sinks[0]?.lines.length, 1);
  assert.deepEqual(sinks[0]?.lines, sinks[1]?.lines);
});

test("in a storm of one message the first hundred in a second are written, then every hundredth", () => {
  const now = { now: 1_000_000 };
  const sink = keepingSink();
  const log = createLogger({ level: "info", format: "json", sinks: [sink], clock: frozenClock(now) });
  for (let i = 0; i < 1000; i++) log.warn("storm", { i });
  assert.equal(sink.lines.length, 109);
  log.warn("another message");
  log.error("storm");
  assert.equal(sink.lines.length, 111);
  now.now += 1000;
  log.warn("storm");
  assert.equal(sink.lines.length, 112);
});

test("a fatal line is in the file when the call returns", () => {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-log-"));
  try {
    const path = join(dir, "etcd.log");
    const log = createLogger({ level: "info", format: "json", sinks: [new FileSink(path)], clock: systemClock });
    log.fatal("the end", { error: new Error("why") });
    const { level, msg, error } = JSON.parse(readFileSync(path, "utf8"));
    assert.deepEqual([level, msg, error], ["fatal", "the end", "why"]);
    log.close();
  } finally {
    rmSync(dir, { recursive: true });
  }
});
