import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { endOf, failedStartOf } from "../../src/programs/server/ends.ts";
import { repositoryRoot } from "../harness/repository.ts";
import { waitFor } from "../harness/wait.ts";

const HEAD = `
import { systemClock } from "./src/base/clock.ts";
import { createLogger } from "./src/base/log-logger.ts";
import { DescriptorSink } from "./src/base/log-sink.ts";
import { ProcessEnd } from "./src/programs/server/process-end.ts";
const log = createLogger({ level: "info", format: "json", sinks: [new DescriptorSink(2)], clock: systemClock });
const end = new ProcessEnd(log);
setInterval(() => {}, 1000);
`;

function start(t: TestContext, body: string) {
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", `${HEAD}${body}`], {
    cwd: repositoryRoot,
    stdio: ["ignore", "ignore", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  const running = { child, log: "", exit: once(child, "exit") };
  child.stderr.on("data", (chunk) => {
    running.log += chunk;
  });
  return running;
}

test("a second signal ends a shutdown that hangs", async (t) => {
  const running = start(t, `end.onSignal(() => new Promise(() => {})); log.info("up");`);
  await waitFor("the process to be up", () => running.log.includes('"up"'));
  running.child.kill("SIGTERM");
  await waitFor("the first signal", () => running.log.includes("received signal; shutting down"));
  running.child.kill("SIGINT");
  assert.deepEqual(await running.exit, [null, "SIGINT"]);
  assert.match(running.log, /received second signal; ending without waiting for the shutdown/);
});

test("during a member's start a signal ends the process directly", async (t) => {
  const running = start(t, `log.info("up");`);
  await waitFor("the process to be up", () => running.log.includes('"up"'));
  running.child.kill("SIGTERM");
  assert.deepEqual(await running.exit, [null, "SIGTERM"]);
});

test("an uncaught error is logged, with its stack, before the process ends with 1", async (t) => {
  const running = start(t, `setTimeout(() => { throw new Error("broken invariant"); });`);
  assert.deepEqual(await running.exit, [1, null]);
  const { level, msg, error, stacktrace } = JSON.parse(running.log.trim().split("\n").at(-1)!);
  assert.deepEqual([level, msg, error], ["fatal", "uncaught exception", "broken invariant"]);
  assert.match(stacktrace, /Error: broken invariant\n {4}at /);
});

test("an unhandled rejection ends the process like any other failure", async (t) => {
  const running = start(t, `void Promise.reject(new Error("lost"));`);
  assert.deepEqual(await running.exit, [1, null]);
  assert.match(running.log, /"msg":"uncaught exception","error":"lost"/);
});

test("an error that ends a member says what happened and what to do", async (t) => {
  const running = start(
    t,
    `const { InvariantError } = await import("./src/base/fatal.ts");
     end.fail(new InvariantError("commit went backwards"));`,
  );
  assert.deepEqual(await running.exit, [1, null]);
  const entry = JSON.parse(running.log.trim().split("\n").at(-1)!);
  assert.equal(entry.error, "commit went backwards");
  assert.match(entry.msg, /^something that must hold does not/);
  assert.match(entry["what-to-do"], /etcdctl member remove/);
});

test("each kind of end has its own line, and bugs are distinguished from errors of the disk or the cluster", () => {
  const named = (name: string) => Object.assign(new Error("x"), { name });
  assert.equal(endOf(named("WalError")).message, "the log cannot be written");
  assert.equal(endOf(named("BackendError")).message, "the database cannot be used");
  assert.equal(endOf(new TypeError("x")).message, "uncaught exception");
  assert.equal(endOf("a string").message, "uncaught exception");
  assert.equal(failedStartOf(named("DataDirError")).message, "the data directory cannot be used");
  assert.equal(failedStartOf(named("ClusterConfigError")).message, "discovery failed");
});
