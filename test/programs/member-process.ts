/** Members as an init system starts them: the program with a command line and an environment, observed by its log. */
import { type ChildProcess, spawn } from "node:child_process";
import type { TestContext } from "node:test";
import { ourEtcd } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";

export interface LogEntry {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export class MemberProcess {
  readonly #args: readonly string[];
  readonly #env: Readonly<Record<string, string>>;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #log = "";

  /** It is killed when the test ends. */
  constructor(t: TestContext, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#args = args;
    this.#env = env;
    t.after(() => this.kill("SIGKILL"));
  }

  spawn(args = this.#args): void {
    const { file, args: first } = ourEtcd();
    this.#log = "";
    const child = spawn(file, [...first, ...args], {
      env: { ...process.env, ...this.#env },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#child = child;
    child.stderr.on("data", (chunk) => {
      this.#log += chunk;
    });
    this.#ended = new Promise((resolve) => child.once("close", () => resolve()));
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#child?.kill(signal);
    await this.#ended;
  }

  /** Waits until the process has ended by itself. */
  async ended(): Promise<number | null> {
    await waitFor("the process ends", () => this.#child?.exitCode !== null || this.#child?.signalCode !== null, 30_000);
    await this.#ended;
    return this.#child!.exitCode;
  }

  /** Its log since it was started. */
  entries(): LogEntry[] {
    const lines = this.#log.split("\n").slice(0, -1);
    return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as LogEntry);
  }

  async logged(msg: string): Promise<LogEntry> {
    try {
      return await waitFor(msg, () => this.entries().find((entry) => entry.msg === msg), 30_000);
    } catch (error) {
      throw new Error(`${(error as Error).message}; it printed:\n${this.#log.slice(-4000)}`);
    }
  }

  /** Waits until it serves clients. */
  async serves(): Promise<void> {
    await this.logged("successfully notified init daemon");
  }
}
