/** The commands of etcdutl. */

import { findCommand, helpText } from "../base/command-tree.ts";
import { completionHelp, completionScript } from "../base/completion.ts";
import { API_VERSION, ETCD_VERSION } from "../base/versions.ts";
import { analyze } from "./commands/analyze.ts";
import { defrag } from "./commands/defrag.ts";
import { hashkv } from "./commands/hashkv.ts";
import { migrate } from "./commands/migrate.ts";
import { snapshot } from "./commands/snapshot.ts";
import { badArgs, EXIT, ExitError, type UtlCommand } from "./utl.ts";

const version: UtlCommand = {
  name: "version",
  short: "Prints the version of etcdutl",
  run: ({ io }) => io.out(`etcdutl version: ${ETCD_VERSION}\nAPI version: ${API_VERSION}\n`),
};

const completion: UtlCommand = {
  name: "completion",
  usage: "[bash|zsh|fish|powershell]",
  short: "Generate completion script",
  long: completionHelp("etcdutl"),
  run({ args, io }) {
    const [shell, ...more] = args;
    const script = more.length === 0 && shell !== undefined ? completionScript(PROGRAM, shell) : undefined;
    if (script === undefined) throw badArgs("completion takes one shell: bash, zsh, fish or powershell");
    io.out(script);
  },
};

const help: UtlCommand = {
  name: "help",
  usage: "[command]",
  short: "Help about any command",
  run({ io, args }) {
    const path = [PROGRAM];
    for (const word of args) {
      const next = findCommand(path.at(-1)!, word);
      if (next === undefined) throw new ExitError(EXIT.error, `no command is called ${args.join(" ")}`);
      path.push(next);
    }
    io.out(helpText(path));
  },
};

export const PROGRAM: UtlCommand = {
  name: "etcdutl",
  short: "An administrative command line tool for etcd3.",
  sharedFlags: [
    {
      name: "timeout",
      kind: "duration",
      value: 10_000,
      usage: "time to wait to obtain a file lock on db file, 0 to block indefinitely",
    },
    {
      name: "write-out",
      shorthand: "w",
      kind: "string",
      value: "simple",
      usage: "set the output format (fields, json, protobuf, simple, table)",
    },
  ],
  commands: [analyze, completion, defrag, hashkv, help, migrate, snapshot, version],
};
