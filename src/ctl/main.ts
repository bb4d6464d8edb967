/** etcdctl: from a command line to an exit code. */
import { helpText, UsageError, understand } from "../base/command-tree.ts";
import { Ctl } from "./ctl.ts";
import { describeError, EXIT, ExitError } from "./exit.ts";
import type { Io } from "./io.ts";
import { PROGRAM } from "./program.ts";

const OPTIONS_HINT = 'Use "etcdctl options" for the options that every command takes.\n';

/** Runs one command. Resolves with the exit code; does not reject for errors of the user or the server. */
export async function main(io: Io): Promise<number> {
  let ctl: Ctl | undefined;
  try {
    const invocation = understand(PROGRAM, io.args);
    const { command, path, wantsHelp } = invocation;
    if (wantsHelp || !command.run) {
      io.out(path.length === 1 ? helpText(path) + OPTIONS_HINT : helpText(path));
      return 0;
    }
    ctl = new Ctl(io, invocation);
    await command.run(ctl, invocation);
    return 0;
  } catch (error) {
    return report(io, error);
  } finally {
    await ctl?.close();
  }
}

function report(io: Io, error: unknown): number {
  if (error instanceof UsageError) {
    io.err(`Error: ${error.message}\n${error.hint}`);
    return EXIT.error;
  }
  if (error instanceof ExitError) {
    if (error.message !== "") io.err(`Error: ${error.message}\n`);
    return error.code;
  }
  io.err(`Error: ${describeError(error)}\n`);
  return EXIT.error;
}
