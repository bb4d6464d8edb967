/** The proxies of the `etcd` program: from a command line to a running proxy. */
import { helpText, UsageError, understand } from "../base/command-tree.ts";
import { type ProxyCommand, type ProxyContext, ProxyError, type ProxyIo, type RunningProxy } from "./contract.ts";
import { grpcProxy } from "./grpc/command.ts";
import { gateway } from "./tcp/command.ts";

const PROGRAM: ProxyCommand = { name: "etcd", short: "etcd server", commands: [gateway, grpcProxy] };

/** Resolves with an exit code, or with the running proxy. Does not reject for errors of the user or of the machine. */
export async function runProxy(io: ProxyIo): Promise<number | RunningProxy> {
  const context: ProxyContext = { io, running: undefined };
  try {
    const invocation = understand(PROGRAM, io.args);
    if (invocation.wantsHelp || invocation.command.run === undefined) {
      io.out(helpText(invocation.path));
      return 0;
    }
    await invocation.command.run(context, invocation);
    await notifyReady(io);
    return context.running ?? 0;
  } catch (error) {
    if (error instanceof UsageError) io.err(`Error: ${error.message}\n${error.hint}\n${error.message}\n`);
    else if (error instanceof ProxyError) io.err(`${error.message}\n`);
    else throw error;
    return 1;
  }
}

async function notifyReady({ systemd, logger }: ProxyIo): Promise<void> {
  try {
    await systemd.notify("READY=1");
  } catch (error) {
    logger.error("failed to notify systemd for readiness", { error });
  }
}
