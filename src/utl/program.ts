/** The commands of etcdutl. */

import { helpCommand } from "../base/command-tree.ts";
import { completionCommand } from "../base/completion.ts";
import { API_VERSION, ETCD_VERSION } from "../base/versions.ts";
import { analyze } from "./commands/analyze.ts";
import { defrag } from "./commands/defrag.ts";
import { hashkv } from "./commands/hashkv.ts";
import { migrate } from "./commands/migrate.ts";
import { snapshot } from "./commands/snapshot.ts";
import { badArgs, type UtlCommand } from "./utl.ts";

const version: UtlCommand = {
  name: "version",
  short: "Prints the version of etcdutl",
  run: ({ io }) => io.out(`etcdutl version: ${ETCD_VERSION}\nAPI version: ${API_VERSION}\n`),
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
  commands: [analyze, completionCommand("etcdutl", badArgs), defrag, hashkv, helpCommand(), migrate, snapshot, version],
};
