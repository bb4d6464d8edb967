import type { StructuredLogger } from "../../base/log-logger.ts";
import { type End, endOf } from "./ends.ts";

/**
 * How the server process ends. The first SIGTERM or SIGINT shuts the member down in order and then ends the process by
 * the same signal, as in etcd, so that its parent sees the real reason. As process 1 it exits with 0, because no signal
 * would end it. A second signal ends it at once. The other reasons, with exit code 1, are listed in ends.ts.
 */
export class ProcessEnd {
  readonly #log: StructuredLogger;
  #isEnding = false;

  constructor(log: StructuredLogger) {
    this.#log = log;
    // Unhandled rejections arrive here too.
    process.on("uncaughtException", (error) => this.fail(error));
  }

  /** Sets the reaction to a signal. Until then, during the start, a signal ends the process directly. */
  onSignal(shutdown: () => Promise<void>): void {
    for (const signal of SIGNALS) process.on(signal, () => this.#receive(signal, shutdown));
  }

  /** Ends the process with 1, after logging the reason and the advice. */
  fail(error: unknown, end = endOf(error)): void {
    this.#log.fatal(end.message, {
      error: error instanceof Error ? error : String(error),
      ...(end.advice === undefined ? {} : { "what-to-do": end.advice }),
      stacktrace: error instanceof Error ? error.stack : undefined,
    });
    process.exit(1);
  }

  /** Ends the process with 0 after an orderly shutdown, because there is nothing left to do. */
  leave(shutdown: () => Promise<void>): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    shutdown().then(
      () => {
        this.#log.sync();
        process.exit(0);
      },
      (error: unknown) => this.fail(error, FAILED_TO_SHUT_DOWN),
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
      this.fail(error, FAILED_TO_SHUT_DOWN);
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

const FAILED_TO_SHUT_DOWN: End = { message: "failed to shut down" };

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Go's names of signals. */
const NAMES: Partial<Record<NodeJS.Signals, string>> = { SIGINT: "interrupt", SIGTERM: "terminated" };
