import assert from "node:assert/strict";
import { test } from "node:test";
import { attempt, inBackground } from "../../src/base/background.ts";
import { InvariantError } from "../../src/base/fatal.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";
import { repositoryRoot, run } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";

test("an error in the background is logged, and nothing else happens", async () => {
  const logger = new MemoryLogger();
  inBackground(Promise.reject(new TypeError("a mistake")), "look around", logger);
  await waitFor("the line", () => logger.has("failed to look around"));
  assert.equal(
    attempt(() => JSON.parse("{"), "read what a peer says", logger),
    false,
  );
  assert.ok(logger.has("failed to read what a peer says"));
  assert.equal(
    attempt(() => {}, "do nothing", logger),
    true,
  );
});

test("a broken invariant is rethrown, to end the process", async () => {
  const broken = () => {
    throw new InvariantError("commit went backwards");
  };
  assert.throws(() => attempt(broken, "apply", new MemoryLogger()), InvariantError);
  const program = `
    import { inBackground } from "./src/base/background.ts";
    import { InvariantError } from "./src/base/fatal.ts";
    process.on("uncaughtException", (error) => { console.log(error.name); process.exit(1); });
    inBackground(Promise.reject(new InvariantError("x")), "apply", { error() {} });`;
  const args = ["--import", "tsx", "--input-type=module", "-e", program];
  const { code, stdout } = await run(process.execPath, args, { cwd: repositoryRoot });
  assert.deepEqual([code, stdout.toString()], [1, "InvariantError\n"]);
});
