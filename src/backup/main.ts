/** `kvorum backup` and `kvorum restore`: from a command line to an exit code. */
import { helpText, UsageError, understand, usageText } from "../base/command-tree.ts";
import { systemText } from "../base/system-error.ts";
import type { Io } from "../ctl/io.ts";
import type { BackupCommand, BackupContext } from "./commands/context.ts";
import { cat, diff } from "./commands/inside.ts";
import { list, prune, status, verify } from "./commands/look.ts";
import { once, run } from "./commands/record.ts";
import { restore } from "./commands/restore.ts";
import { unit } from "./commands/unit.ts";
import { BackupError } from "./error.ts";

const BACKUP: BackupCommand = {
  name: "backup",
  short: "Backs up a cluster continuously, so that it can be brought back to any revision or second",
  commands: [cat, diff, list, once, prune, run, status, unit, verify],
};

/** Exit codes: 1 something is wrong, 2 the command line is. */
const USAGE = 2;

/** Runs one command. Resolves with the exit code; does not reject for errors of the user, the cluster or the store. */
export async function main(program: "backup" | "restore", io: Io): Promise<number> {
  try {
    const tree = program === "backup" ? BACKUP : restore;
    const invocation = understand(tree, io.args);
    const { command, path, wantsHelp, flags, args } = invocation;
    if (wantsHelp || !command.run) {
      io.out(helpText(path).replaceAll(/^ {2}(backup|restore)(?= )/gm, "  kvorum $1"));
      return 0;
    }
    const missing = (command.required ?? []).find((name) => !flags.changed(name));
    if (missing !== undefined) throw new UsageError(`give --${missing}`, `${usageText(path)}\n`);
    const context: BackupContext = { io, flags, args, invocation, exitCode: 0 };
    await command.run(context, invocation);
    return context.exitCode;
  } catch (error) {
    if (error instanceof UsageError) {
      io.err(`Error: ${error.message}\n${error.hint}`);
      return USAGE;
    }
    io.err(`Error: ${systemText(error)}\n`);
    return error instanceof BackupError && error.code === "ERR_BACKUP_USAGE" ? USAGE : 1;
  }
}
