/** The context of an etcdutl command: its flags and arguments, its outputs, and the disk. */
import type { Clock } from "../base/clock.ts";
import type { Command, Invocation } from "../base/command-tree.ts";
import type { Disk } from "../base/disk.ts";
import { KvorumError } from "../base/errors.ts";
import type { FlagSet } from "../base/flags.ts";
import type { Logger } from "../base/log.ts";
import { createLogger } from "../base/log-logger.ts";

/** The environment of the program. The process passes the real one; tests pass one that they can inspect. */
export interface UtlIo {
  /** The arguments after the program's name. */
  readonly args: readonly string[];
  out(text: string): void;
  err(text: string): void;
  /** Whether `err` is a terminal, where a line may be overwritten. */
  readonly errIsTerminal: boolean;
  readonly clock: Clock;
  readonly disk: Disk;
}

export type UtlCommand = Command<Utl>;

/** Exit codes. Source: etcd `pkg/cobrautl/error.go`. */
export const EXIT = { error: 1, badFeature: 4, badArgs: 128 } as const;

/** Ends the program with `code` after printing `Error: message`. */
export class ExitError extends KvorumError<number> {
  override name = "ExitError";
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export const badArgs = (message: string): ExitError => new ExitError(EXIT.badArgs, message);

export class Utl {
  readonly io: UtlIo;
  readonly flags: FlagSet;
  readonly args: readonly string[];
  readonly invocation: Invocation<Utl>;
  readonly logger: Logger;

  constructor(io: UtlIo, invocation: Invocation<Utl>) {
    this.io = io;
    this.invocation = invocation;
    this.flags = invocation.flags;
    this.args = invocation.args;
    this.logger = consoleLogger(io);
  }

  /** How long to wait for another process that uses the database; Infinity for no limit. */
  get lockTimeoutMs(): number {
    return this.flags.number("timeout") || Number.POSITIVE_INFINITY;
  }
}

/** Lines on standard error, as stock etcdutl prints them: time, level, message and fields, separated by tabs. */
function consoleLogger(io: UtlIo): Logger {
  const sink = { write: (line: string) => io.err(line), sync() {}, close() {} };
  return createLogger({ level: "info", format: "console", sinks: [sink], clock: io.clock, callers: true });
}
