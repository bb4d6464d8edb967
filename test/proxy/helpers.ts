/** Proxies inside the test's own process. */
import type { TestContext } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import { Client } from "../../src/client/client.ts";
import type { ClientOptions } from "../../src/client/options.ts";
import type { RunningProxy } from "../../src/proxy/contract.ts";
import { runProxy } from "../../src/proxy/program.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";

export interface Run {
  readonly code: number;
  readonly running: RunningProxy | undefined;
  readonly out: string;
  readonly err: string;
  readonly logger: MemoryLogger;
}

/** Runs a command line of a proxy; `running` when it serves. */
export async function run(...args: readonly string[]): Promise<Run> {
  const logger = new MemoryLogger();
  let [out, err] = ["", ""];
  const result = await runProxy({
    args,
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    logger,
    clock: systemClock,
    random: systemRandom,
    systemd: { notify: async () => false },
  });
  const isRunning = typeof result !== "number";
  return { code: isRunning ? -1 : result, running: isRunning ? result : undefined, out, err, logger };
}

/** Starts a proxy on a port of the system's choice; fails with its message. */
export async function startProxy(t: TestContext, ...args: readonly string[]): Promise<Run & { address: string }> {
  const started = await run(...args, "--listen-addr=127.0.0.1:0");
  if (started.running === undefined) throw new Error(started.err);
  t.after(() => started.running!.close());
  return { ...started, address: started.running.address };
}

export function clientOf(t: TestContext, endpoint: string, options: ClientOptions = {}): Client {
  const client = new Client({ ...options, endpoints: endpoint });
  t.after(() => client.close());
  return client;
}
