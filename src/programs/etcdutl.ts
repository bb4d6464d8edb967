import { ETCD_VERSION } from "../base/versions.ts";

/** The offline tool. Its commands come with the recovery work; until then each reports that it is missing. */
export async function main(argv: readonly string[]): Promise<number> {
  const [command] = argv;
  switch (command) {
    case undefined:
    case "help":
    case "--help":
    case "-h":
      process.stdout.write(help);
      return 0;
    case "version":
      process.stdout.write(`etcdutl version: ${ETCD_VERSION}\nAPI version: ${apiVersion}\n`);
      return 0;
  }
  if (notBuiltYet.has(command)) {
    process.stderr.write(
      `Error: etcdutl ${command} is not built yet in this version of kvorum, see docs/differences.md\n`,
    );
    return 2;
  }
  process.stderr.write(`Error: unknown command "${command}" for "etcdutl"\nRun 'etcdutl --help' for usage.\n`);
  return 1;
}

const apiVersion = ETCD_VERSION.split(".").slice(0, 2).join(".");
const notBuiltYet = new Set(["backup", "completion", "defrag", "hashkv", "migrate", "snapshot"]);

const help = `An administrative command line tool for etcd data that no server has open.

Usage:
  etcdutl [command]

Available commands:
  version     Print the version

Not built yet:
  completion, defrag, hashkv, migrate, snapshot
`;
