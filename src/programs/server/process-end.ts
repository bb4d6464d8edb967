import type { StructuredLogger } from "../../base/log-logger.ts";

/**
 * How the server's process ends. A first SIGTERM or SIGINT shuts the member down in order and then ends the process by
 * the same signal, as etcd does, so that whoever waits for it sees the true reason; as process 1 it exits with 0,
 * because no signal would end it. A second signal ends it at once. What nobody caught is logged and ends it with 1.
 */
export class ProcessEnd {
  readonly #log: StructuredLogger;
  #isEnding = false;

  constructor(log: StructuredLogger) {
    this.#log = log;
    process.on("uncaughtException", (error) => this.fail("uncaught exception", error));
  }

  /** What to do at a signal from now on. Until then, while a member starts, a signal ends the process as it is. */
  onSignal(shutdown: () => Promise<void>): void {
    for (const signal of SIGNALS) process.on(signal, () => this.#receive(signal, shutdown));
  }

  /** Ends the process with 1; the reason is in the log before it does. */
  fail(message: string, error: unknown): void {
    const { stack } = error as Error;
    this.#log.fatal(message, { error: error instanceof Error ? error : String(error), stacktrace: stack });
    process.exit(1);
  }

  /** Ends the process with 0 because there is nothing left to do, after an orderly shutdown. */
  leave(shutdown: () => Promise<void>): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    shutdown().then(
      () => {
        this.#log.sync();
        process.exit(0);
      },
      (error: unknown) => this.fail("failed to shut down", error),
    );
  }

  #receive(signal: NodeJS.Signals, shutdown: () => Promise<void>): void {
    if (this.#isEnding) {
      this.#log.warn("received second signal; ending without waiting for the shutdown", { signal: NAMES[signal] });
      return this.#raise(signal);
    }
    this.#isEnding = true;
    this.#log.named({ caller: "osutil/interrupt" }).info("received signal; shutting down", { signal: NAMES[signal] });
    void this.#end(signal, shutdown);
  }

  async #end(signal: NodeJS.Signals, shutdown: () => Promise<void>): Promise<void> {
    try {
      await shutdown();
    } catch (error) {
      this.fail("failed to shut down", error);
    }
    this.#raise(signal);
  }

  #raise(signal: NodeJS.Signals): void {
    this.#log.sync();
    if (process.pid === 1) process.exit(0);
    for (const name of SIGNALS) process.removeAllListeners(name);
    process.kill(process.pid, signal);
  }
}

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Go's names of signals. */
const NAMES: Partial<Record<NodeJS.Signals, string>> = { SIGINT: "interrupt", SIGTERM: "terminated" };
