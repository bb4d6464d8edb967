/** etcdutl: from a command line to an exit code. */
import { helpText, UsageError, understand, usageText } from "../base/command-tree.ts";
import { systemText } from "../base/system-error.ts";
import { PROGRAM } from "./program.ts";
import { EXIT, ExitError, Utl, type UtlIo } from "./utl.ts";

/** Runs one command. Resolves with the exit code; does not reject for errors of the user, the files or the disk. */
export async function main(io: UtlIo): Promise<number> {
  try {
    const invocation = understand(PROGRAM, io.args);
    const { command, path, wantsHelp, flags } = invocation;
    if (wantsHelp || !command.run) {
      io.out(helpText(path));
      return 0;
    }
    const missing = (command.required ?? []).filter((name) => !flags.changed(name));
    if (missing.length > 0) {
      const names = missing.map((name) => `"${name}"`).join(", ");
      throw new UsageError(`required flag(s) ${names} not set`, `${usageText(path)}\n`);
    }
    await command.run(new Utl(io, invocation), invocation);
    return 0;
  } catch (error) {
    if (error instanceof UsageError) {
      io.err(`Error: ${error.message}\n${error.hint}`);
      return EXIT.error;
    }
    io.err(`Error: ${systemText(error)}\n`);
    return error instanceof ExitError ? error.code : EXIT.error;
  }
}
