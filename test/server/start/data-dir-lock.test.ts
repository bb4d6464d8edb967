import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, beforeEach, describe, type TestContext, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { systemDisk } from "../../../src/base/disk.ts";
import { lockDirectory } from "../../../src/server/start/data-dir-lock.ts";
import { MemoryLogger, tempDir } from "../../harness/in-process.ts";
import { repositoryRoot } from "../../harness/repository.ts";
import { waitFor } from "../../harness/wait.ts";

describe("a data directory used by another process", {
  skip: process.platform !== "linux" && "no abstract sockets",
}, () => {
  let dir: ReturnType<typeof tempDir>;
  let logger: MemoryLogger;

  beforeEach(() => {
    dir = tempDir();
    logger = new MemoryLogger();
  });
  afterEach(() => dir.remove());

  const options = () => ({ disk: systemDisk, clock: systemClock, logger });

  async function hold(t: TestContext) {
    const program = `
      import { systemClock } from "./src/base/clock.ts";
      import { systemDisk } from "./src/base/disk.ts";
      import { nullLogger } from "./src/base/log.ts";
      import { lockDirectory } from "./src/server/start/data-dir-lock.ts";
      await lockDirectory(${JSON.stringify(dir.path)}, { disk: systemDisk, clock: systemClock, logger: nullLogger });
      console.log("held");
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
      cwd: repositoryRoot,
      stdio: ["ignore", "pipe", "inherit"],
    });
    t.after(() => child.kill("SIGKILL"));
    await once(child.stdout, "data");
    return child;
  }

  test("is waited for, and taken when that process has ended", async (t) => {
    const child = await hold(t);
    const taken = lockDirectory(dir.path, options(), 60_000);
    await waitFor("it says that it waits", () =>
      logger.lines.some(({ message }) => /waiting for it to end/.test(message)),
    );
    child.kill("SIGKILL");
    const outcome = await taken;
    assert.ok("unlock" in outcome);
    outcome.unlock();
  });

  test("is given up after a while", async (t) => {
    await hold(t);
    assert.deepEqual(await lockDirectory(dir.path, options(), 150), { heldBy: "another process" });
  });

  test("is not waited for when the other is a member of the same process", async () => {
    const first = await lockDirectory(dir.path, options());
    assert.deepEqual(await lockDirectory(dir.path, options()), { heldBy: "this process" });
    assert.ok("unlock" in first);
    first.unlock();
    const again = await lockDirectory(dir.path, options());
    assert.ok("unlock" in again);
    again.unlock();
  });
});
