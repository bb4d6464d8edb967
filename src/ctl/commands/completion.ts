/** `etcdctl completion` */
import { completionHelp, completionScript } from "../../base/completion.ts";
import type { CtlCommand } from "../ctl.ts";
import { badArgs } from "../exit.ts";

/** @param source returns the program, which contains this command. */
export function completion(source: { program(): CtlCommand }): CtlCommand {
  return {
    name: "completion",
    usage: "<bash|zsh|fish|powershell>",
    short: "Prints a completion script for a shell",
    long: completionHelp("etcdctl"),
    run({ args, io }) {
      const [shell, ...more] = args;
      const script = more.length === 0 && shell !== undefined ? completionScript(source.program(), shell) : undefined;
      if (script === undefined) throw badArgs("completion takes one shell: bash, zsh, fish or powershell");
      io.out(script);
    },
  };
}
