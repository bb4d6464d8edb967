/** What every command of `kvorum` that deploys gets from its process, and the error with which it ends. */
import type { Clock } from "../../base/clock.ts";
import type { Command, Invocation } from "../../base/command-tree.ts";
import { KvorumError } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import type { Environment } from "../../base/systemd.ts";

/** A program and its fixed first arguments. */
export interface Program {
  readonly file: string;
  readonly args: readonly string[];
}

export interface Context {
  readonly args: readonly string[];
  /** The directory that relative paths start from. */
  readonly cwd: string;
  readonly env: Environment;
  readonly clock: Clock;
  readonly random: Random;
  /** `kvorum` itself: `server`, `ctl` and `utl` behind it are etcd, etcdctl and etcdutl. */
  readonly self: Program;
  out(text: string): void;
  err(text: string): void;
  /** Asks the user for one line; absent where there is no terminal. */
  ask?(question: string): Promise<string>;
}

export type DeployCommand = Command<Context>;
export type DeployInvocation = Invocation<Context>;

/** As `kvorum doctor` exits: warnings, problems, or the command itself could not work. */
export const EXIT = { healthy: 0, warnings: 1, problems: 2, failed: 3 } as const;

/** A command cannot go on. The text says why and what to do; the state is as before, or a repetition continues. */
export class DeployError extends KvorumError {
  override name = "DeployError";
  readonly code = "ERR_DEPLOY";
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT.failed) {
    super(message);
    this.exitCode = exitCode;
  }
}
