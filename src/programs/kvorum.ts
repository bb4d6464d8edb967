import type { Environment } from "../base/systemd.ts";
import { versionText } from "./server/version.ts";

/** One program for all: `kvorum server|ctl|utl …` run etcd, etcdctl and etcdutl. */
export async function main(argv: readonly string[], env: Environment): Promise<number | undefined> {
  const [command, ...rest] = argv;
  switch (command) {
    case "server":
      return (await import("./etcd.ts")).main(rest, env);
    case "ctl":
      return (await import("./etcdctl.ts")).main(rest, env);
    case "utl":
      return (await import("./etcdutl.ts")).main(rest);
    case "doctor": {
      // As in etcdctl: what connections still do ends with the program, and Node's developer warnings are not for users.
      process.noDeprecation = true;
      const { main: doctor } = await import("../doctor/main.ts");
      const { flushOutput, processIo } = await import("../ctl/process-io.ts");
      const code = await doctor(rest, processIo(rest, env));
      await flushOutput();
      return process.exit(code);
    }
    case "backup":
    case "restore": {
      process.noDeprecation = true;
      const { main: backup } = await import("../backup/main.ts");
      const { flushOutput, processIo } = await import("../ctl/process-io.ts");
      const code = await backup(command, processIo(rest, env));
      await flushOutput();
      return process.exit(code);
    }
    case "audit":
      return (await import("../doctor/audit.ts")).main(rest, {
        out: (text) => void process.stdout.write(text),
        err: (text) => void process.stderr.write(text),
      });
    case "up":
    case "ps":
    case "down":
    case "cert":
    case "cluster":
      return deploy(argv, env);
    case "pod":
      return deploy(rest, env, () => import("../pod/main.ts"));
    case "version":
    case "--version":
      process.stdout.write(versionText("etcd"));
      return 0;
    case undefined:
    case "help":
    case "--help":
    case "-h":
      process.stdout.write(help);
      return 0;
  }
  if (notBuiltYet.has(command)) {
    process.stderr.write(`kvorum ${command} is not built yet, see docs/differences.md\n`);
    return 2;
  }
  process.stderr.write(`kvorum: unknown command "${command}"\n\n${help}`);
  return 2;
}

/** Does not return: a connection to a member that does not answer must not keep the process. */
async function deploy(
  args: readonly string[],
  env: Environment,
  load: () => Promise<Pick<typeof import("../deploy/main.ts"), "main">> = () => import("../deploy/main.ts"),
): Promise<never> {
  // The gRPC library names IP addresses in handshakes, which Node deprecates with a warning.
  process.noDeprecation = true;
  const { realpathSync } = await import("node:fs");
  const [{ main: run }, { flushOutput }, { systemClock }, { systemRandom }] = await Promise.all([
    load(),
    import("../ctl/process-io.ts"),
    import("../base/clock.ts"),
    import("../base/random.ts"),
  ]);
  const { stdout, stderr } = process;
  // The reader of our output may close it early.
  stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 141 : 1));
  const code = await run({
    args,
    env,
    cwd: process.cwd(),
    clock: systemClock,
    random: systemRandom,
    self: { file: process.execPath, args: [realpathSync(process.argv[1]!)] },
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    ...(process.stdin.isTTY ? { ask } : {}),
  });
  await flushOutput();
  return process.exit(code);
}

async function ask(question: string): Promise<string> {
  const { createInterface } = await import("node:readline/promises");
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await lines.question(question);
  } finally {
    lines.close();
  }
}

const notBuiltYet = new Set(["import", "export"]);

const help = `kvorum: etcd in TypeScript.

Usage:
  kvorum server [flags]     Run a member (etcd)
  kvorum ctl [command]      Work with a cluster (etcdctl)
  kvorum utl [command]      Work with data that no server has open (etcdutl)
  kvorum up [NAME]          Start a local cluster with TLS
  kvorum ps                 Show the local clusters
  kvorum down [NAME]        Stop a local cluster
  kvorum cert [command]     Make, show and check certificates
  kvorum cluster [command]  Make and operate a cluster on hosts, from one inventory
  kvorum pod                Run a pod of a StatefulSet on Kubernetes
  kvorum backup [command]   Back up a cluster continuously, look into backups, verify them
  kvorum restore            Bring back a cluster, or one prefix of it, as of a revision or a time
  kvorum doctor             Say what is wrong with a directory, a configuration or a cluster, and what to do
  kvorum audit verify FILE  Check that nobody has changed an audit log
  kvorum version            Print the version

Not built yet:
  import, export
`;
