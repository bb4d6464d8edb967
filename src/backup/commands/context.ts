/** What a command of `kvorum backup` and `kvorum restore` gets. */
import type { Command, Invocation } from "../../base/command-tree.ts";
import type { FlagSet } from "../../base/flags.ts";
import type { Io } from "../../ctl/io.ts";
import { usage } from "../settings.ts";

export interface BackupContext {
  readonly io: Io;
  readonly flags: FlagSet;
  readonly args: readonly string[];
  readonly invocation: Invocation<BackupContext>;
  /** The exit code; 0 unless a command sets another one. */
  exitCode: number;
}

export type BackupCommand = Command<BackupContext>;

/** Whether output is to be JSON. Throws BackupError for other formats than ours. */
export function wantsJson(flags: FlagSet): boolean {
  const format = flags.string("write-out");
  if (format !== "simple" && format !== "json") throw usage(`-w is simple or json, not ${format}`);
  return format === "json";
}

export const FORMAT_FLAG = {
  name: "write-out",
  shorthand: "w",
  kind: "string",
  value: "simple",
  usage: "simple or json",
} as const;

/** Throws BackupError when there are arguments. */
export function noArguments({ args }: BackupContext): void {
  if (args.length > 0) throw usage(`unexpected argument "${args[0]}"`);
}
