/** The commands of `kvorum` that deploy and operate: from a command line to an exit code. */
import { helpText, UsageError, understand, usageText } from "../base/command-tree.ts";
import { systemText } from "../base/system-error.ts";
import { certCommand } from "./commands/cert.ts";
import { clusterCommand } from "./commands/cluster.ts";
import { localCommands } from "./commands/local.ts";
import { type Context, type DeployCommand, DeployError, EXIT } from "./common/context.ts";

const PROGRAM: DeployCommand = {
  name: "kvorum",
  short: "etcd in TypeScript.",
  commands: [...localCommands, certCommand, clusterCommand],
};

/** Resolves with the exit code; does not reject for errors of the user, of files or of the cluster. */
export async function main(context: Context): Promise<number> {
  try {
    const invocation = understand(PROGRAM, context.args);
    const { command, path, wantsHelp, flags } = invocation;
    if (wantsHelp || !command.run) {
      context.out(helpText(path));
      return EXIT.healthy;
    }
    const missing = (command.required ?? []).filter((name) => !flags.changed(name));
    if (missing.length > 0) {
      const names = missing.map((name) => `--${name}`).join(", ");
      throw new UsageError(`${path.map(({ name }) => name).join(" ")} needs ${names}`, `${usageText(path)}\n`);
    }
    await command.run(context, invocation);
    return EXIT.healthy;
  } catch (error) {
    if (error instanceof UsageError) context.err(`Error: ${error.message}\n${error.hint}`);
    else if (!(error instanceof DeployError) || error.message !== "") context.err(`Error: ${systemText(error)}\n`);
    return error instanceof DeployError ? error.exitCode : EXIT.failed;
  }
}
